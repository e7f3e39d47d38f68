"""What an episode was worth: speed, falls, time to recover; and comparisons over paired seeds."""

import numpy as np

from robots.falls import count, start

STRIDE = 10  # steps: half a second
SPAN_S = 4.0  # after the damage in which the mean over episodes is looked at; what it keeps from then on is steady


def falls(upright: np.ndarray) -> np.ndarray:
    """(b, t) cosine of the torso's tilt -> (b,) falls, as robots.falls counts them."""
    state = start(upright.shape[0])
    for now in upright.T:
        state = count(state, now)
    return state.falls


def ahead(speed: np.ndarray) -> np.ndarray:
    """(t,) -> (t - STRIDE + 1,): the mean over the half second that follows each step."""
    return np.convolve(speed, np.ones(STRIDE) / STRIDE, mode="valid")


def recovery(speed: np.ndarray, onset: int, dt: float) -> float:
    """(t,) speed per step -> seconds from the damage until the speed, over the half second that follows, is 90% of the steady
    speed after the damage (mean from 2 s after it on). NaN where less than 4 s follow, or there was and is no steady speed; the time that was
    left where it never happens, or what it keeps is less than a tenth of what it had in the 2 s before: it lies, or crawls.

    Of one episode it tells little: an ant's speed over half a second varies by a fifth of itself. See mean_recovery."""
    after = speed[onset:]
    settle = round(2 / dt)
    if len(after) < 2 * settle:
        return float("nan")
    steady, before = after[settle:].mean(), speed[max(0, onset - settle) : onset]
    if len(before) and steady < 0.1 * before.mean():
        return len(after) * dt
    if steady <= 0:
        return float("nan")
    reached = (ahead(after) >= 0.9 * steady).nonzero()[0]
    return float(reached[0] if len(reached) else len(after)) * dt


def mean_recovery(
    speed: np.ndarray, onset: int, dt: float, seed: int = 0, draws: int = 2000
) -> tuple[float, float, float]:
    """(n, t) speeds of n episodes that the damage comes to at the same step -> seconds from it until their mean, over the half second that follows,
    is no longer below 90% of its steady value; 0 where it never is, SPAN_S at most. With its 95% bootstrap interval over episodes. NaN where less
    than twice SPAN_S follow."""
    after, span = speed[:, onset:], round(SPAN_S / dt)
    if after.shape[1] < 2 * span:
        return float("nan"), float("nan"), float("nan")

    def until(episodes: np.ndarray) -> float:
        mean = episodes.mean(0)
        low = (ahead(mean)[:span] < 0.9 * mean[span:].mean()).nonzero()[0]
        return float(low[-1] + 1 if len(low) else 0) * dt

    rng = np.random.default_rng(seed)
    drawn = [until(after[rng.integers(len(after), size=len(after))]) for _ in range(draws)]
    return until(after), float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))


def settle(error: np.ndarray, onset: int, dt: float, end: int | None = None) -> float:
    """(t,) tracking error at every step -> seconds from the onset until the error is within 1.5 x the steady error, and stays there for the
    second that follows. The steady error is the RMS over the last half of what follows the onset, up to `end` (the next onset) or the end of
    the episode. Staying is asked for one second, not for ever, because the steady error of a periodic path has peaks of twice its RMS.

    The time that was left where it never happens; NaN where fewer than 2 s follow or an error is not finite (no payload that could be
    off)."""
    after, hold = error[onset:end], round(1 / dt)
    if len(after) < 2 * hold or not np.isfinite(after).all():
        return float("nan")
    inside = after <= 1.5 * np.sqrt(np.mean(after[len(after) // 2 :] ** 2))
    stays = np.convolve(inside, np.ones(hold), mode="valid") > hold - 0.5
    reached = stays.nonzero()[0]
    return float(reached[0] if len(reached) else len(after)) * dt


def interval(values: np.ndarray, seed: int = 0, draws: int = 4000) -> tuple[float, float]:
    """95% bootstrap interval of the mean of (n,)."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(draws, len(values)))].mean(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def ratio(ours: np.ndarray, theirs: np.ndarray, seed: int = 0, draws: int = 4000) -> tuple[float, float, float]:
    """Ratio of the means of paired (n,) scores, with its 95% bootstrap interval over pairs. NaN where theirs is not positive."""
    rng = np.random.default_rng(seed)
    at = rng.integers(len(ours), size=(draws, len(ours)))
    below = theirs[at].mean(1)
    if theirs.mean() <= 0:
        return float("nan"), float("nan"), float("nan")
    r = np.where(below > 0, ours[at].mean(1) / np.where(below > 0, below, 1), np.inf)
    return float(ours.mean() / theirs.mean()), float(np.quantile(r, 0.025)), float(np.quantile(r, 0.975))
