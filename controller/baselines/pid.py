"""Cascaded PID, as autopilots fly it: position P -> velocity PID -> tilt and thrust -> attitude P -> body rates.

    v_c = v_ref + k_x (p_ref - p)           a_c = a_ref + k_p e + k_i integral of e - k_d d/dt v,   e = v_c - v
    F   = m (a_c + g e3)                    w_c = -k_r e_r, as in controller.baselines.geometric

The integral stops at its limits (anti-windup); the derivative is of the measured velocity, filtered.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from controller.baselines.baseline import UP, Target, attitude, hang, limit, misalignment, rotation, turn
from robots.trajectory import Reference
from robots.vehicle import GRAVITY, Vehicle


class Memory(NamedTuple):
    integral: np.ndarray  # (b, 3) [m/s^2]
    v: np.ndarray  # (b, 3) last velocity in the world [m/s], NaN before the first step
    slope: np.ndarray  # (b, 3) its derivative less a_ref, filtered [m/s^2]


@dataclass(frozen=True)
class PID:
    """Gains: see controller.baselines.tune."""

    vehicle: Vehicle
    target: Target = "vehicle"
    position: float = 8.0  # k_x [1/s]
    proportional: float = 8.0  # k_p [1/s]
    integral: float = 8.0  # k_i [1/s^2]
    derivative: float = 0.8  # k_d
    turning: float = 10.0  # k_r [1/s]
    integral_max: float = 8.0  # [m/s^2]
    filter_s: float = 0.02  # of the derivative

    @property
    def preview(self) -> int:
        return 2 if self.target == "payload" else 0

    def init(self, b: int) -> Memory:
        return Memory(np.zeros((b, 3)), np.full((b, 3), np.nan), np.zeros((b, 3)))

    def step(self, state: np.ndarray, reference: Reference, memory: Memory) -> tuple[np.ndarray, Memory]:
        dt = self.vehicle.dt
        if self.target == "payload":
            reference = hang(reference, state, dt)
        now = Reference(*(x[:, 0] for x in reference))
        rot = rotation(state)
        v = turn(rot, state[:, 9:12])
        error = now.v + self.position * (now.p - state[:, :3]) - v
        integral = np.clip(memory.integral + dt * self.integral * error, -self.integral_max, self.integral_max)
        newest = np.nan_to_num((v - memory.v) / dt - now.a)
        slope = memory.slope + dt / (self.filter_s + dt) * (newest - memory.slope)
        force = now.a + GRAVITY * UP + self.proportional * error + integral - self.derivative * slope
        force[:, 2] = np.maximum(force[:, 2], 0.1 * GRAVITY)  # it does not turn over to fall faster
        rates = -self.turning * misalignment(rot, attitude(force))
        thrust = self.vehicle.mass_kg * (force * rot[:, :, 2]).sum(1)
        return limit(self.vehicle, thrust, rates), Memory(integral, v, slope)
