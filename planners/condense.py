"""A linear-quadratic problem over a horizon -> a dense quadratic programme in the actions alone (Bock, Plitt 1984, condensing).

    x_{k+1} = A_k x_k + B_k u_k + c_k,  x_0 = 0          minimise  sum_k |e_k + E_k x_{k+1} + F_k u_k|^2 + damping |u|^2
    X = G u + g                                          minimise  u' H u / 2 + q' u + constant

Robots come first, b of them; h stages of d tangent coordinates, a actions and m residuals.
"""

from typing import NamedTuple

import numpy as np


class Expansion(NamedTuple):
    """A map at h points, to first order in the state's tangent coordinates and in the action."""

    value: np.ndarray  # (b, h, m)
    by_state: np.ndarray  # (b, h, m, d)
    by_action: np.ndarray  # (b, h, m, a)

    def finite(self) -> np.ndarray:
        """(b,) bool"""
        return np.logical_and.reduce([np.isfinite(x).reshape(len(x), -1).all(1) for x in self])


class QP(NamedTuple):
    """minimise u' hessian u / 2 + gradient' u + constant, u the actions of all stages."""

    hessian: np.ndarray  # (b, h a, h a)
    gradient: np.ndarray  # (b, h a)
    constant: np.ndarray  # (b,)

    def value(self, u: np.ndarray) -> np.ndarray:
        """(b, h a) -> (b,)"""
        curved = (self.hessian @ u[..., None])[..., 0]
        return (u * (curved / 2 + self.gradient)).sum(1) + self.constant


class Response(NamedTuple):
    """How the states answer the actions: x_{k+1} = by_action[k] u + offset[k]."""

    by_action: np.ndarray  # (b, h, d, h a)
    offset: np.ndarray  # (b, h, d)


def compose(steps: Expansion, hold: int) -> Expansion:
    """Every `hold` stages that share their action -> one stage (b, h / hold, ...)."""
    b, n, _ = steps.value.shape
    c, by_state, by_action = (x.reshape(b, n // hold, hold, *x.shape[2:]) for x in steps)
    total = Expansion(c[:, :, 0], by_state[:, :, 0], by_action[:, :, 0])
    for i in range(1, hold):
        a = by_state[:, :, i]
        total = Expansion(
            (a @ total.value[..., None])[..., 0] + c[:, :, i],
            a @ total.by_state,
            a @ total.by_action + by_action[:, :, i],
        )
    return total


def respond(dynamics: Expansion) -> Response:
    b, h, d, a = dynamics.by_action.shape
    by_action, offset = np.zeros((b, h, d, h * a)), np.zeros((b, h, d))
    for k in range(h):
        if k:
            by_action[:, k, :, : k * a] = dynamics.by_state[:, k] @ by_action[:, k - 1, :, : k * a]
            offset[:, k] = (dynamics.by_state[:, k] @ offset[:, k - 1, :, None])[..., 0]
        by_action[:, k, :, k * a : (k + 1) * a] = dynamics.by_action[:, k]
        offset[:, k] += dynamics.value[:, k]
    return Response(by_action, offset)


def condense(response: Response, residual: Expansion, damping: float) -> QP:
    b, h, m, a = residual.by_action.shape
    value = residual.value + (residual.by_state @ response.offset[..., None])[..., 0]
    jacobian = residual.by_state @ response.by_action  # (b, h, m, h a)
    for k in range(h):
        jacobian[:, k, :, k * a : (k + 1) * a] += residual.by_action[:, k]
    value, jacobian = value.reshape(b, h * m), jacobian.reshape(b, h * m, h * a)
    transposed = jacobian.swapaxes(1, 2)
    hessian = 2 * (transposed @ jacobian + damping * np.eye(h * a))
    return QP(hessian, 2 * (transposed @ value[..., None])[..., 0], (value**2).sum(1))
