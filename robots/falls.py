"""Falls, counted with hysteresis, so that one tumble is one fall however long the robot rocks on its back.

A fall is the torso's z axis dropping below FALLEN after the start, or after having been above UPRIGHT again.
"""

from typing import NamedTuple

import numpy as np

from robots.ant import FALLEN, UPRIGHT


class Falls(NamedTuple):
    down: np.ndarray  # (b,) bool: has fallen and not stood up since
    falls: np.ndarray  # (b,) int64: how often so far


def start(b: int) -> Falls:
    """b robots on their feet."""
    return Falls(np.zeros(b, bool), np.zeros(b, np.int64))


def count(state: Falls, upright: np.ndarray) -> Falls:
    """upright (b,): cosine between the torso's z axis and up, after one more step. NaN changes nothing."""
    fell = ~state.down & (upright < FALLEN)
    down = (state.down | fell) & ~(upright > UPRIGHT)
    return Falls(down, state.falls + fell)
