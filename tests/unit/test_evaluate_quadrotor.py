"""The quadrotor's rows and tables: settling, times, pairs; and what its command line refuses, in one sentence each."""

import json
import math

import numpy as np
import pytest
import refusals

from controller import cli
from controller.config import UsageError
from controller.evaluate_quadrotor import (
    EvaluateQuadrotorConfig,
    against,
    counted,
    groups,
    make_robot,
    markdown,
    tracking,
)
from controller.pilots import CLASSICAL, PILOTS, make_pilot
from controller.score import settle
from robots.quadrotor import Quadrotor
from robots.vehicle import PRESETS, load

DT = 0.01


def decaying(rate: float, steady: float, n: int = 800, onset: int = 200) -> np.ndarray:
    t = np.maximum(np.arange(n) - onset, 0) * DT
    return np.where(np.arange(n) < onset, 0.001, steady + np.exp(-rate * t))


@pytest.mark.parametrize("rate", [2.0, 5.0])
def test_settling_is_when_the_error_is_one_and_a_half_times_the_steady_one(rate):
    steady = 0.02
    # steady + exp(-rate t) = 1.5 steady
    assert settle(decaying(rate, steady), 200, DT) == pytest.approx(-math.log(0.5 * steady) / rate, abs=0.06)


def test_an_error_that_never_changes_has_settled_at_once():
    assert settle(np.full(600, 0.01), 200, DT) == 0


def test_an_error_that_comes_back_has_not_settled():
    error = decaying(5.0, 0.02)
    calm = settle(error, 200, DT)
    again = error.copy()
    again[200 + round(calm / DT) + 50] = 0.5  # half a second later
    assert settle(again, 200, DT) == pytest.approx(calm + 0.51, abs=0.02)


def test_settling_that_never_happens_takes_the_time_that_was_left():
    error = np.zeros(600)
    error[200::50] = 1.0  # a peak every half second, of five times the RMS
    assert settle(error, 200, DT) == pytest.approx(4.0)


def test_settling_ends_with_the_next_onset():
    error = decaying(5.0, 0.02)
    error[600:] = 3.0
    assert settle(error, 200, DT, 600) == pytest.approx(settle(decaying(5.0, 0.02), 200, DT), abs=0.02)


@pytest.mark.parametrize("error", [np.full(390, 0.01), np.r_[np.full(500, 0.01), np.full(100, np.nan)]])
def test_settling_is_unknown_where_little_follows_or_nothing_tracks(error):
    assert math.isnan(settle(error, 200, DT))


def test_what_counts_of_an_episode():
    assert counted(1200, DT) == 100 and counted(30, DT) == 15
    rmse, largest = tracking(np.array([3.0, np.nan, -4.0]))
    assert rmse == pytest.approx(math.sqrt(12.5)) and largest == 3.0
    assert all(math.isnan(x) for x in tracking(np.full(3, np.nan)))


def row(adapter: str, seed: int, rmse: float, condition: str = "none") -> dict:
    return {
        "trajectory": "circle", "speed": "fast", "condition": condition, "adapter": adapter, "seed": seed, "rmse_m": rmse,
        "max_error_m": 2 * rmse, "settle_s": float("nan"), "crashed": False, "error_before": float("nan"), "error_after": float("nan"),
        "step_ms_p50": 1.0, "step_ms_p99": 2.0,
    }  # fmt: skip


def test_the_ratio_is_over_the_seeds_that_both_flew():
    nmpc = [row("nmpc", s, x) for s, x in ((1, 0.1), (2, 0.2), (3, 9.0))]
    ours = [row("pid", s, x) for s, x in ((1, 0.05), (2, 0.1), (4, 9.0))]
    np.testing.assert_allclose(against(ours, nmpc), (0.5, 0.5, 0.5))
    assert math.isnan(against(ours, [row("nmpc", 9, 0.1)])[0])


def test_the_table_has_a_line_for_each_cell_and_one_over_all():
    rows = [row(a, s, 0.01 * k, c) for a, k in (("nmpc", 2), ("pid", 1)) for c in ("none", "gust:1") for s in (1, 2)]
    lines = markdown(rows).splitlines()
    assert len(lines) == 2 + 4 + 2
    assert len({line.count("|") for line in lines}) == 1
    assert [line.split(" | ")[2:4] for line in lines[2:4]] == [["none", "nmpc"], ["none", "pid"]]
    (pooled,) = [line for line in lines if line.startswith("| all | - | all | pid")]
    assert "10.0 [10.0, 10.0] | 0.50 [0.50, 0.50] | 20 | - | 0 of 4 |" in pooled
    alone = [row("pid", s, 9.0, "rotor:0:0.7") for s in (1, 2)]  # who flew less is not compared with who flew more
    assert pooled in markdown(rows + alone).splitlines()


def test_a_hover_is_flown_once_and_a_random_path_is_its_seeds():
    config = EvaluateQuadrotorConfig(
        trajectories=("hover", "random"), speeds=("slow", "1.3"), seeds=(1, 2), conditions=("none", "gust:1")
    )
    todo = groups(config, make_robot(config))
    assert [(g.trajectory, g.speed) for g in todo] == [("hover", None), ("random", "slow"), ("random", "1.3")]
    paths = todo[1].paths
    assert paths[0] == paths[2] and paths[1] == paths[3] and paths[0] != paths[1] and len(paths) == 4
    assert todo[1].seeds == [1, 2, 1, 2] and todo[1].firsts == [0, 2]
    assert [s.text for s in todo[1].schedules] == ["none", "none", "gust:1", "gust:1"]


@pytest.mark.parametrize("name", CLASSICAL)
def test_pilots_that_need_to_see_the_payload_say_so(name):
    assert set(CLASSICAL) <= set(PILOTS)
    blind = Quadrotor("1kg")
    with pytest.raises(UsageError, match="valid: --payload-seen"):
        make_pilot(name, blind, "payload")
    if name != "nmpc-oracle":
        assert make_pilot(name, blind, "vehicle").preview >= 0
    seeing = make_pilot(name, Quadrotor(load("80g"), payload_seen=True), "payload")
    assert seeing.preview > 0


def refused(capsys, *argv: object) -> str:
    """With what would be valid."""
    error = refusals.refused(capsys, *argv)
    assert "; valid: " in error
    return error


BAD = {
    "a cable of zero length": (("payload:0.3:0",), (), "0 is outside 0.1 to 2"),
    "a payload too heavy": (("payload:0.97:1.0",), (), "above the lift margin of vehicle '1kg'"),
    "an unknown condition": (("payload:0.3:1+ice",), (), "'ice'"),
    "a payload that never is": (("none",), ("--target", "payload"), "--target payload with condition 'none'"),
    "an unknown engine": ((), ("--engine", "bullet"), "unknown engine 'bullet'; valid: mujoco, pybullet"),
    "an unknown target": ((), ("--target", "cable"), "unknown target 'cable'; valid: vehicle, payload"),
    "an unknown vehicle": ((), ("--vehicle", "2kg"), "no vehicle '2kg'"),
    "a seed": ((), ("--seed", "-1"), "seed is -1"),
    "a seed too large": ((), ("--seed", str(2**63)), f"seed is {2**63}; valid: 0 to"),
    "no steps": ((), ("--steps", "0"), "steps is 0"),
    "an option of the ant": ((), ("--controller.k", "3"), "--controller.k is an option of ant, not of quadrotor"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_nothing_begins(case, tmp_path, capsys):
    conditions, more, why = BAD[case]
    out = tmp_path / "out"
    for argv in (
        ("evaluate", "quadrotor", "--out", out, *(("--conditions", *conditions) if conditions else ()), *more),
        ("demo", "quadrotor", "--out", out, *(("--condition", *conditions) if conditions else ()), *more),
    ):
        assert why in refused(capsys, *argv)
        assert not out.exists()


EVALUATE_ONLY = {
    "an unknown adapter": (("--adapters", "nmpc", "magic"), f"'magic'; valid: {', '.join(PILOTS)}"),
    "an unknown trajectory": (("--trajectories", "loop"), "unknown trajectory 'loop'; valid: hover, circle"),
    "an unknown speed": (("--speeds", "warp"), "unknown speed 'warp'; valid: slow, medium, fast"),
    "a speed that is none": (("--speeds", "0"), "speed 0 m/s is not above 0"),
    "nothing": (("--seeds",), "--seeds is empty"),
    "a seed twice": (("--seeds", "1", "2", "1"), "--seeds has 1 twice"),
    "a condition twice": (("--conditions", "none", "none"), "--conditions has 'none' twice"),
    "a controller twice": (("--adapters", "pid", "pid"), "--adapters has 'pid' twice"),
    "a speed twice": (("--speeds", "slow", "slow"), "--speeds has 'slow' twice"),
    "a seed below 0": (("--seeds", "1", "-3"), "seed is -3"),
    "what it does not see": (("--adapters", "nmpc-oracle", "--no-payload-seen"), "'nmpc-oracle'"),
}


@pytest.mark.parametrize("case", EVALUATE_ONLY)
def test_what_cannot_be_evaluated(case, tmp_path, capsys):
    argv, why = EVALUATE_ONLY[case]
    assert why in refused(capsys, "evaluate", "quadrotor", "--out", tmp_path / "out", *argv)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "argv", [("evaluate", "quadrotor", "--adapters", "variational"), ("demo", "quadrotor")], ids=lambda argv: argv[0]
)
def test_weights_of_another_vehicle_are_refused(argv, tmp_path, capsys):
    more = ("--vehicle", "80g", "--out", tmp_path / "out", "--speeds" if argv[0] == "evaluate" else "--speed", "slow")
    why = "is for vehicle '1kg', whose mass_kg is 1.0, and vehicle '80g' has 0.08; valid: --vehicle 1kg, or --weights made by"
    assert why in refused(capsys, *argv, *more)
    assert not (tmp_path / "out").exists()


def test_too_fast_counts_the_payloads_weight(tmp_path, capsys):
    argv = ("evaluate", "quadrotor", "--out", tmp_path / "out", "--trajectories", "circle", "--speeds", "4")
    why = "trajectory 'circle' at 4 m/s"
    error = refused(capsys, *argv, "--conditions", "none", "payload:0.5:1@300")
    assert why in error and "thrust" in error and "a lower speed" in error
    config = EvaluateQuadrotorConfig(trajectories=("circle",), speeds=("4",), conditions=("none",), seeds=(1,))
    assert len(groups(config, make_robot(config))) == 1  # without it, it can be flown


@pytest.mark.parametrize(
    "old, new, why",
    [
        ("mass_kg = ", "mass_g = ", "has another unit or none; valid: mass_kg"),
        ("mass_kg = ", "mas_kg = ", "is misspelt; valid: mass_kg"),
        ("mass_kg = ", "# mass_kg = ", "mass_kg is missing; valid: mass_kg"),
    ],
)
def test_a_vehicles_file_that_cannot_be_read(old, new, why, tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text((PRESETS / "1kg.toml").read_text().replace(old, new))
    for command in ("evaluate", "demo"):
        error = refused(capsys, command, "quadrotor", "--vehicle", path, "--out", tmp_path / "out")
        assert why in error and "mine.toml" in error


def test_the_robots_name_chooses_the_options(tmp_path, capsys):
    assert "--engine is an option of quadrotor, not of ant" in refused(capsys, "evaluate", "ant", "--engine=pybullet")
    assert "--engine is an option of quadrotor, not of ant" in refused(capsys, "demo", "--engine", "mujoco")
    assert "'quadrotor' comes after options" in refused(capsys, "demo", "--steps", "5", "quadrotor")
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "whale"])
    assert "'quadrotor'" in capsys.readouterr().err
    for robot, option in (("ant", "--specialists"), ("quadrotor", "--trajectories")):
        with pytest.raises(SystemExit) as exit_:
            cli.main(["evaluate", robot, "--help"])
        assert exit_.value.code == 0 and option in capsys.readouterr().out


def test_two_controllers_that_are_one_are_not_compared(tmp_path, capsys):
    argv = ("demo", "quadrotor", "--out", tmp_path, "--controllers", "pid", "pid")
    assert "controllers are pid and pid" in refused(capsys, *argv)


def test_numbers_that_are_none_are_null(tmp_path):
    from controller import report

    report.write_json(tmp_path / "x.json", {"a": [float("nan"), float("inf"), 1.5], "b": tmp_path})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, None, 1.5], "b": str(tmp_path)}
    assert report.spread([100.0, 1.0, 3.0]) == pytest.approx((2.0, 2.98)) and report.spread([5.0]) == (5.0, 5.0)
