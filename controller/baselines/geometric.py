"""Geometric tracking control on SE(3) (Lee, Leok, McClamroch 2010, CDC), down to body rates, which the vehicle's own loop follows.

F   = m (a_ref + g e3 - k_p (p - p_ref) - k_v (v - v_ref)) + R D R' v_ref          the last: drag, which the specification knows
T   = F . R e3                       R_d: z along F, heading 0
w_c = R' R_d w_d - k_r e_r           e_r = vee(R_d' R - R' R_d) / 2
"""

from dataclasses import dataclass

import numpy as np

from controller.baselines.baseline import UP, Target, attitude, feedforward, hang, limit, misalignment, rotation, turn
from robots.trajectory import Reference
from robots.vehicle import GRAVITY, Vehicle


@dataclass(frozen=True)
class Geometric:
    """Needs no memory. Gains: see controller.baselines.tune."""

    vehicle: Vehicle
    target: Target = "vehicle"
    position: float = 24.0  # k_p [1/s^2]
    velocity: float = 8.0  # k_v [1/s]
    turning: float = 10.0  # k_r [1/s]

    @property
    def preview(self) -> int:
        return 2 if self.target == "payload" else 0  # the vehicle's path above a load's takes differences

    def init(self, b: int) -> None:
        return None

    def step(self, state: np.ndarray, reference: Reference, memory: None = None) -> tuple[np.ndarray, None]:
        if self.target == "payload":
            reference = hang(reference, state, self.vehicle.dt)
        now = Reference(*(x[:, 0] for x in reference))
        rot = rotation(state)
        v = turn(rot, state[:, 9:12])
        mass, drag = self.vehicle.mass_kg, np.array(self.vehicle.drag_n_s_per_m)
        wanted = now.a + GRAVITY * UP - self.position * (state[:, :3] - now.p) - self.velocity * (v - now.v)
        force = mass * wanted + turn(rot, drag * turn(rot.swapaxes(1, 2), now.v))
        goal = attitude(force)
        _, rates = feedforward(now)
        flown = turn(rot.swapaxes(1, 2) @ attitude(now.a + GRAVITY * UP), rates)
        thrust = (force * rot[:, :, 2]).sum(1)
        return limit(self.vehicle, thrust, flown - self.turning * misalignment(rot, goal)), None
