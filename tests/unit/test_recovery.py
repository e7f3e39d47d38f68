"""When an ant has found its legs again: of one episode, and in the mean over many."""

import numpy as np
import pytest

from controller import score

DT = 0.05


def episode(*stretches: tuple[float, float]) -> np.ndarray:
    """(seconds, m/s) after 5 s at 5 m/s."""
    return np.concatenate([np.full(100, 5.0), *(np.full(round(s / DT), v) for s, v in stretches)])


@pytest.mark.parametrize(
    ("stretches", "seconds"),
    [
        ([(20, 4.0)], 0.0),
        ([(0.4, 0.0), (20, 3.0)], 0.35),
        ([(20, 0.2)], 20),  # it crawls
        ([(0.65, 5.0), (20, 0.0)], 20.65),  # it lies
        ([(20, -1.0)], 20),
    ],
)
def test_what_lies_or_crawls_has_not_recovered(stretches, seconds):
    assert score.recovery(episode(*stretches), 100, DT) == pytest.approx(seconds, abs=0.051)


def test_too_short_an_episode_says_nothing():
    assert np.isnan(score.recovery(episode((3.9, 4.0)), 100, DT))
    assert np.isnan(score.mean_recovery(episode((7.9, 4.0))[None], 100, DT)).all()


@pytest.mark.parametrize(("dip", "seconds"), [(0.0, 0.0), (1.0, 1.0), (3.0, 3.0), (6.0, 4.0)])
def test_the_mean_over_episodes_has_recovered_when_it_is_below_no_more(dip, seconds):
    """However noisy each is: half a second varies by a fifth. Speed is kept for half a second after the loss, then there is a dip."""
    rng = np.random.default_rng(0)
    one = episode((0.5, 5.0), (dip, 2.0), (20 - dip, 4.0))
    gait = np.repeat(rng.standard_normal((200, -(-len(one) // 10))), 10, axis=1)[:, : len(one)]
    value, low, high = score.mean_recovery(one + 0.2 * one * gait, 100, DT)
    wanted = min(score.SPAN_S, seconds + 0.5 * (dip > 0))
    assert low <= value <= high and value == pytest.approx(wanted, abs=0.15)
    assert high - low < 0.5


def test_a_mean_of_few_says_how_uncertain_it_is():
    rng = np.random.default_rng(1)
    speed = episode((20, 4.0)) * (1 + 0.3 * np.repeat(rng.standard_normal((6, 50)), 10, axis=1))
    value, low, high = score.mean_recovery(speed, 100, DT)
    assert 0 <= low <= value <= high and high > 1
