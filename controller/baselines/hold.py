"""What an autopilot does whose commands have stopped coming: brake, and stay where that ends (PX4's Hold mode).

    p_ref(t) = p + d (|v| t - a t^2 / 2)   until it stands, t = |v| / a;   d = v / |v|,  a = BRAKE

from position p and velocity v when the last command had run out, tracked by the geometric controller. Thrust and rates without attitude, as before,
keep a tilt: half a second of that from 0.5 m/s and 0.5 rad/s off (standard deviations, per axis), and 6 of 32 crash; held, none
(before plans had a price on tilt; a planner takes over afterwards; docs/trials/ros.md).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from controller.baselines.baseline import rotation, turn
from controller.baselines.geometric import Geometric
from robots.trajectory import Reference
from robots.vehicle import Vehicle

BRAKE = 4.0  # [m/s^2]


class Memory(NamedTuple):
    """Of b vehicles, when they began to brake."""

    p: np.ndarray  # (b, 3) in the world [m]
    v: np.ndarray  # (b, 3) in the world [m/s]
    t: float  # since then [s]


@dataclass(frozen=True)
class Hold:
    vehicle: Vehicle

    @cached_property
    def _geometric(self) -> Geometric:
        return Geometric(self.vehicle)

    def init(self, state: np.ndarray) -> Memory:
        """state (b, 16 or 22) as robots.space.Flying."""
        return Memory(state[:, :3].copy(), turn(rotation(state), state[:, 9:12]), 0.0)

    def step(self, state: np.ndarray, memory: Memory, dt: float) -> tuple[np.ndarray, Memory]:
        """dt: for how long the command acts [s]. -> command (b, 4) collective thrust [N] and body rates [rad/s], memory."""
        p, v, a = braked(memory)
        now = Reference(*(x[:, None] for x in (p, v, a, np.zeros_like(a))))
        command, _ = self._geometric.step(state, now)
        return command, memory._replace(t=memory.t + dt)


def braked(memory: Memory) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> (b, 3) each: position [m], velocity [m/s] and acceleration [m/s^2] of the path at its time."""
    speed = np.linalg.norm(memory.v, axis=1, keepdims=True)
    along = memory.v / np.maximum(speed, 1e-9)
    t = np.minimum(memory.t, speed / BRAKE)
    moving = memory.t < speed / BRAKE
    return memory.p + along * (speed * t - BRAKE * t**2 / 2), along * (speed - BRAKE * t), -BRAKE * moving * along
