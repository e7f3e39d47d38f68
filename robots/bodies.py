"""What an engine does for the quadrotor: moves a batch of vehicles and loads as free rigid bodies over flat ground.

Coordinates are MuJoCo's, whatever the engine: qpos (14,) = position [m] and quaternion (w first) of the vehicle, then of the load;
qvel (12,) = world-frame linear velocity [m/s] and body-frame angular velocity [rad/s] of each.
"""

from typing import Protocol

import numpy as np

from robots.vehicle import Vehicle

VEHICLE, LOAD = slice(0, 3), slice(7, 10)  # positions in qpos
V_VEHICLE, RATES, V_LOAD = slice(0, 3), slice(3, 6), slice(6, 9)  # in qvel
QUATERNION = slice(3, 7)


class Bodies(Protocol):
    """b vehicles, each with its load, which touch the ground and nothing else. Translation is semi-implicit Euler (robots.cable
    relies on it); every force but gravity and the ground's comes in from outside."""

    qpos: np.ndarray  # (b, 14)
    qvel: np.ndarray  # (b, 12)

    def place(self, i: int, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Put vehicle and load i there."""
        ...

    def alter(self, i: int, inertia: float, load_mass: float) -> None:
        """Robot i's moments of inertia as a factor of the vehicle's; its load's mass [kg]."""
        ...

    def step(self, force: np.ndarray, torque: np.ndarray, pull: np.ndarray) -> None:
        """One inner period under force (b, 3) [N] and torque (b, 3) [N m] on the vehicles and pull (b, 3) [N] on the loads, at the
        centres of mass, in the world frame."""
        ...

    def close(self) -> None: ...


def radius(vehicle: Vehicle) -> float:
    """Of the spheres with which vehicle and load touch the ground [m]."""
    return vehicle.arm_m / 4
