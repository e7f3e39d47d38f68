"""Reference trajectories: derivatives, speed, a start at rest, and what is too fast to fly."""

import math
from dataclasses import replace

import numpy as np
import pytest

from robots.trajectory import KINDS, RADIUS, RAMP, SPEEDS, TrajectoryError, check, make
from robots.vehicle import GRAVITY, load

V = load("1kg")
MOVING = [kind for kind in KINDS if kind != "hover"]


def path(kind: str, speed: float | str = "medium", seed: int = 0):
    return make(kind, speed, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_feed_forward_is_the_derivative_of_the_position(kind):
    t, e = np.linspace(0.1, 9.7, 97), 1e-4
    before, now, after = (path(kind).at(t + d) for d in (-e, 0, e))
    for x, slope in ((0, now.v), (1, now.a)):
        np.testing.assert_allclose((after[x] - before[x]) / (2 * e), slope, atol=1e-4)
    # A square's jerk jumps at its corners.
    smooth = np.abs(after.j - before.j).max(1) < 1
    assert smooth.sum() > 85
    np.testing.assert_allclose(((after.a - before.a) / (2 * e))[smooth], now.j[smooth], atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_at_rest_and_where_it_stays_before(kind):
    ref = path(kind, "fast").at(np.array([-1.0, 0.0, 1e-3]))
    for x in (ref.v, ref.a):
        assert np.abs(x).max() < 0.03
    np.testing.assert_allclose(ref.p[0], ref.p[1])


@pytest.mark.parametrize("speed", [*SPEEDS, 1.7])
@pytest.mark.parametrize("kind", MOVING)
def test_the_speed_is_the_largest_and_the_path_closes(kind, speed):
    made = path(kind, speed)
    t = RAMP + np.linspace(0, made.period, 4001)
    ref = made.at(t)
    assert np.linalg.norm(ref.v, axis=1).max() == pytest.approx(SPEEDS.get(speed, speed), rel=1e-3)
    np.testing.assert_allclose(ref.p[0], ref.p[-1], atol=1e-9)
    assert np.abs(ref.p - made.centre).max() <= RADIUS + 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_a_time_is_where_it_is_whatever_else_is_asked_for(kind):
    made, t = path(kind, "fast"), RAMP + np.array([-1e-3, 0.0, 1e-3, 0.5, 9.0])
    together, later = made.at(t), made.at(t[1:])  # all of `later` is at full speed
    for x, y in zip(together, later, strict=True):
        np.testing.assert_allclose(y, x[1:], rtol=1e-12, atol=1e-12)


def test_shapes():
    ref = path("circle").at(np.linspace(0, 30, 500))
    np.testing.assert_allclose(np.linalg.norm(ref.p - np.array(path("circle").centre), axis=1), RADIUS)
    t = RAMP + np.linspace(0, path("square").period, 2000)
    corners = path("square").at(t)
    assert np.linalg.norm(corners.v, axis=1).min() < 1e-2
    # One coordinate at a time: the corners are not cut.
    assert np.abs(corners.v).min(1).max() == 0 and (np.sort(np.abs(corners.v), 1)[:, 1] == 0).all()
    assert np.ptp(path("hover").at(np.linspace(0, 9, 9)).p, axis=0).max() == 0


def test_random_paths_follow_their_generator():
    t = np.linspace(0, 9, 50)
    one, same, other = (path("random", seed=seed).at(t).p for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1


def test_what_is_asked_for_exists():
    for kind, speed, words in (
        ("loop", "slow", ("'loop'", "circle")), ("circle", "warp", ("'warp'", "fast")), ("circle", 0.0, ("0", "above 0")),
        ("circle", math.nan, ("nan", "above 0")),
    ):  # fmt: skip
        with pytest.raises(TrajectoryError) as error:
            make(kind, speed)
        assert all(word in str(error.value) for word in words)
    with pytest.raises(TrajectoryError, match="generator"):
        make("random", "slow")


@pytest.mark.parametrize("vehicle", ["1kg", "80g"])
@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_speeds_can_be_flown_with_half_the_mass_as_payload(kind, speed, vehicle):
    v = load(vehicle)
    check(path(kind, speed), v, 0.5 * v.mass_kg)


def test_too_fast_is_one_sentence_with_the_value_and_the_limit():
    with pytest.raises(TrajectoryError) as error:
        check(path("circle", 6.0), V)
    # v^2 / r = 36 m/s^2
    thrust = math.hypot(36, GRAVITY) + 6 * 0.25
    text = str(error.value)
    assert (
        f"{thrust:.3g} N" in text
        and f"{0.95 * V.thrust_max_n:.3g} N" in text
        and "36 m/s^2" in text
        and "'1kg'" in text
    )
    assert "\n" not in text and text.count(". ") <= 2
    slower = float(text.split("e.g. ")[1].split(" ", 1)[0])
    check(path("circle", slower), V)
    with pytest.raises(TrajectoryError):
        check(path("circle", 1.1 * slower), V)
    check(path("circle", 4.0), V)
    with pytest.raises(TrajectoryError, match="thrust"):
        check(path("circle", 4.0), V, 0.5)
    with pytest.raises(TrajectoryError, match="body rate"):
        check(path("circle", 3.0), replace(V, rate_max_rad_s=(1.0, 1.0, 3.0)))
