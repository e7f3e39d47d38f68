"""A small problem of optimal control, linear or not: an integrator or a pendulum, squared costs, and NMPC for it."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from planners.linearise import from_predict, from_residual
from planners.nmpc import NMPC
from robots.space import Euclidean

DT, H = 0.2, 10
PLANE = Euclidean(2, 1)
START = np.array([[1.0, 0.0], [-0.5, 1.0], [2.0, -1.0]])
Q, R = np.array([1.0, 0.1]), 0.1


def planner(bound: float = 50.0, **settings) -> NMPC:
    limit = np.array([bound])
    base = NMPC(PLANE.retract, PLANE.local, 2, 2, -limit, limit, np.zeros(1), horizon=H, damping=0.0)
    return replace(base, **settings)


def integrator(s: Tensor, a: Tensor) -> Tensor:
    p, v, u = s[..., 0], s[..., 1], a[..., 0]
    return torch.stack((p + DT * v + DT**2 / 2 * u, v + DT * u), -1)


def pendulum(s, a, sin=torch.sin, join=lambda *x: torch.stack(x, -1)):
    """Semi-implicit, so that a step is nonlinear in the state. Angle from hanging [rad], rate [rad/s], torque."""
    angle, rate = s[..., 0], s[..., 1]
    rate = rate + DT * (a[..., 0] - 4.0 * sin(angle))
    return join(angle + DT * rate, rate)


def residual(s: Tensor, a: Tensor) -> Tensor:
    return torch.cat((s * torch.as_tensor(Q, dtype=s.dtype).sqrt(), a * R**0.5), -1)


COST = from_residual(residual, PLANE.retract, 2, 3)


def linear(model=integrator, n_delta: int = 2):
    return from_predict(model, PLANE.retract, PLANE.local, n_delta, torch.float64)
