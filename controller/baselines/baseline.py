"""The protocol of the classical controllers of the quadrotor, and what several of them share. All work on a batch of b vehicles."""

from typing import Any, Literal, Protocol

import numpy as np

from robots.trajectory import Reference
from robots.vehicle import GRAVITY, Vehicle

Target = Literal["vehicle", "payload"]  # what is to be where the reference is
UP = np.array([0.0, 0.0, 1.0])


class Baseline(Protocol):
    """preview: how many control periods ahead the reference must reach."""

    @property
    def preview(self) -> int: ...

    def init(self, b: int) -> Any: ...

    def step(self, state: np.ndarray, reference: Reference, memory: Any) -> tuple[np.ndarray, Any]:
        """state (b, 16 or 22) as robots.space.Flying; reference, (b, preview + 1, 3) each, from now on, a control period apart ->
        command (b, 4) collective thrust [N] and body rates [rad/s] within the vehicle's limits, memory."""
        ...


def rotation(s: np.ndarray) -> np.ndarray:
    """(b, >= 9) -> (b, 3, 3) body -> world."""
    f, u = s[:, 3:6], s[:, 6:9]
    y = u[:, _NEXT] * f[:, _LAST] - u[:, _LAST] * f[:, _NEXT]  # numpy's cross takes five times as long
    return np.stack((f, y, u), 1)


def turn(rot: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(*b, 3, 3), (*b, 3) -> (*b, 3)."""
    return (rot @ x[..., None])[..., 0]


def attitude(force: np.ndarray) -> np.ndarray:
    """(*b, 3) -> (*b, 3, 3), body -> world: z along the force, y across the world's x (heading 0)."""
    z = _unit(force)
    y = _unit(np.stack((0 * z[..., 0], z[..., 2], -z[..., 1]), -1))  # z x (1, 0, 0)
    x = y[..., _NEXT] * z[..., _LAST] - y[..., _LAST] * z[..., _NEXT]  # numpy's cross takes five times as long
    return np.stack((x, y, z), -1)


_NEXT, _LAST = [1, 2, 0], [2, 0, 1]


def misalignment(rot: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """(b, 3, 3) twice -> (b, 3) vee(goal' rot - rot' goal) / 2 [rad, where small]."""
    off = goal.swapaxes(1, 2) @ rot
    return np.stack((off[:, 2, 1] - off[:, 1, 2], off[:, 0, 2] - off[:, 2, 0], off[:, 1, 0] - off[:, 0, 1]), 1) / 2


def feedforward(reference: Reference) -> tuple[np.ndarray, np.ndarray]:
    """Differential flatness (Mellinger, Kumar 2011) at heading 0 -> specific force (*b, n, 3) in the world [m/s^2], and the body rates
    (*b, n, 3) of an attitude that follows it [rad/s]."""
    force = reference.a + GRAVITY * UP
    rot = attitude(force)
    across = turn(rot.swapaxes(-1, -2), reference.j) / np.linalg.norm(force, axis=-1, keepdims=True)
    p, q = -across[..., 1], across[..., 0]
    # The heading stays: y keeps to the world's y-z plane, so world x is R' e1 = (x1, 0, z1), and r x1 = p z1.
    r = p * rot[..., 0, 2] / rot[..., 0, 0]
    return force, np.stack((p, q, r), -1)


def limit(vehicle: Vehicle, thrust: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """(b,) [N], (b, 3) [rad/s] -> command (b, 4) within the vehicle's limits."""
    most = np.array(vehicle.rate_max_rad_s)
    return np.column_stack((np.clip(thrust, 0, vehicle.thrust_max_n), np.clip(rates, -most, most)))


def hang(reference: Reference, state: np.ndarray, dt: float) -> Reference:
    """A reference of the load -> of the vehicle above it, for controllers that know of a load only what they see: a cable of the
    length seen, along the load's a + g (flatness of the load: Sreenath, Lee, Kumar 2013). Without a load, the same."""
    if state.shape[1] < 22:
        return reference
    length = np.linalg.norm(state[:, 16:19], axis=1)[:, None, None]
    force = reference.a + GRAVITY * UP
    norm = np.linalg.norm(force, axis=-1, keepdims=True)
    q = force / norm
    qd = (reference.j - (q * reference.j).sum(-1, keepdims=True) * q) / norm
    qdd = np.gradient(qd, dt, axis=1) if qd.shape[1] > 1 else np.zeros_like(qd)
    qddd = np.gradient(qdd, dt, axis=1) if qd.shape[1] > 1 else np.zeros_like(qd)
    p, v, a, j = reference
    return Reference(p + length * q, v + length * qd, a + length * qdd, j + length * qddd)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)
