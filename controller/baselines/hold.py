"""What an autopilot does whose commands have stopped coming: brake, and stay where that ends (PX4's Hold mode).

    v_ref(t) = (v + c t + d t^2) exp(-w t)        p_ref, a_ref and the jerk by integrating and differentiating

from position p, velocity v, acceleration and jerk (they make c and d) when the last command had run out, tracked by the geometric controller. It
begins as the vehicle flew, so that a gap of a period in the commands is hardly felt: where it braked at once with 4 m/s^2, commands with such gaps
went 0.40 mm off their path where it is 0.15 without a gap (docs/trials/ros.md).
Thrust and rates without attitude, as before, keep a tilt: half a second of that from 0.5 m/s and 0.5 rad/s off (standard deviations, per axis), and
6 of 32 crash; held, none (before plans had a price on tilt; a planner takes over afterwards; docs/trials/ros.md).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from controller.baselines.baseline import UP, rotation, turn
from controller.baselines.geometric import Geometric
from robots.trajectory import Reference
from robots.vehicle import GRAVITY, Vehicle

BRAKE = 8.0  # [1/s], w: from a steady flight it comes to a stand after 3 |v| / w, and brakes with 2 w |v| / e^2 at most
MOST = 4.0  # [m/s^2], of a: whoever falls is not to go on falling


class Memory(NamedTuple):
    """Of b vehicles, when they began to brake."""

    p: np.ndarray  # (b, 3) in the world [m]
    v: np.ndarray  # (b, 3) in the world [m/s]
    a: np.ndarray  # (b, 3) in the world [m/s^2]
    j: np.ndarray  # (b, 3) in the world [m/s^3]
    t: float  # since then [s]


@dataclass(frozen=True)
class Hold:
    vehicle: Vehicle

    @cached_property
    def _geometric(self) -> Geometric:
        return Geometric(self.vehicle)

    def init(self, state: np.ndarray, acceleration: np.ndarray) -> Memory:
        """state (b, 16 or 22) as robots.space.Flying, acceleration (b, 3) in the world [m/s^2]."""
        size = np.linalg.norm(acceleration, axis=1, keepdims=True)
        a = acceleration * np.minimum(1, MOST / np.maximum(size, 1e-9))
        # A thrust that does not change turns with the vehicle.
        rot, pull = rotation(state), np.linalg.norm(a + GRAVITY * UP, axis=1, keepdims=True)
        return Memory(state[:, :3].copy(), velocity(state), a, pull * turn(rot, np.cross(state[:, 12:15], UP)), 0.0)

    def step(self, state: np.ndarray, memory: Memory, dt: float) -> tuple[np.ndarray, Memory]:
        """dt: for how long the command acts [s]. -> command (b, 4) collective thrust [N] and body rates [rad/s], memory."""
        command, _ = self._geometric.step(state, Reference(*(x[:, None] for x in braked(memory))))
        return command, memory._replace(t=memory.t + dt)


def velocity(state: np.ndarray) -> np.ndarray:
    """(b, 16 or 22) -> (b, 3) in the world [m/s]."""
    return turn(rotation(state), state[:, 9:12])


def braked(memory: Memory) -> Reference:
    """At its time, (b, 3) each."""
    p, v, a, j, t = memory
    w = BRAKE
    flown = (v, a + w * v, (j + 2 * w * a + w**2 * v) / 2)
    d = flown[2] / w
    c = (flown[1] + 2 * d) / w
    left = ((flown[0] + c) / w, c, d)  # until it stands

    def at(x: tuple[np.ndarray, ...]) -> np.ndarray:
        return (x[0] + x[1] * t + x[2] * t**2) * np.exp(-w * t)

    def slope(x: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return x[1] - w * x[0], 2 * x[2] - w * x[1], -w * x[2]

    return Reference(p + left[0] - at(left), at(flown), at(slope(flown)), at(slope(slope(flown))))
