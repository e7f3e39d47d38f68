"""What a simulated robot shows to sensors and eyes."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# What the sensors do to a reading: (what, numbers) -> numbers. `what` is a field of robot_config.Quantities.
Disturb = Callable[[str, np.ndarray], np.ndarray]


class Shape(NamedTuple):
    """A geom to be drawn in the world's frame. kind: sphere or capsule."""

    kind: str
    p: np.ndarray  # (3,) [m]
    quaternion: np.ndarray  # (4,), w first
    size: np.ndarray  # radius, half length [m]
    broken: bool
