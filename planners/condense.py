"""A linear-quadratic problem over a horizon -> a dense quadratic programme in the actions alone (Bock, Plitt 1984, condensing).

    x_{k+1} = A_k x_k + B_k u_k + c_k            minimise  sum_k |e_k - t_k + E_k x_{k+1} + F_k u_k|^2 + damping |u|^2
    X = G u + S x_0 + g                          minimise  u' H u / 2 + q' u + constant,      q = 2 J' (e + E (S x_0 + g) - t)

H and all matrices are known before x_0 and the target t are: `condense` makes them, and `Condensed.at` the programme.
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
    """How the states answer: x_{k+1} = by_action[k] u + by_start[k] x_0 + offset[k]."""

    by_action: np.ndarray  # (b, h, d, h a)
    by_start: np.ndarray  # (b, h, d, d)
    offset: np.ndarray  # (b, h, d)

    def at(self, start: np.ndarray, u: np.ndarray) -> np.ndarray:
        """x_0 (b, d), u (b, h a) -> x_0 .. x_h (b, h + 1, d)."""
        x = self.offset + _apply(self.by_start, start[:, None]) + _apply(self.by_action, u[:, None])
        return np.concatenate((start[:, None], x), 1)


class Condensed(NamedTuple):
    """The programme of every x_0 and target."""

    hessian: np.ndarray  # (b, h a, h a)
    by_action: np.ndarray  # (b, h m, h a) of the residuals
    by_start: np.ndarray  # (b, h m, d)
    value: np.ndarray  # (b, h m) at x_0 = 0, u = 0, t = 0

    def at(self, start: np.ndarray, target: np.ndarray | None = None) -> QP:
        """x_0 (b, d), t (b, h, m)."""
        value = self.value + _apply(self.by_start, start)
        if target is not None:
            value = value - target.reshape(value.shape)
        return QP(self.hessian, 2 * (value[:, None] @ self.by_action)[:, 0], (value**2).sum(1))


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
    # Columns: x_0, offset, actions.
    all_ = np.zeros((b, h, d, d + 1 + h * a))
    before = np.eye(d, d + 1)
    for k in range(h):
        known = d + 1 + k * a
        np.matmul(dynamics.by_state[:, k], before, out=all_[:, k, :, :known])
        all_[:, k, :, d] += dynamics.value[:, k]
        all_[:, k, :, known : known + a] = dynamics.by_action[:, k]
        before = all_[:, k, :, : known + a]
    return Response(all_[..., d + 1 :], all_[..., :d], all_[..., d])


def condense(response: Response, residual: Expansion, damping: np.ndarray) -> Condensed:
    """damping: (b,)"""
    b, h, m, a = residual.by_action.shape
    d = response.offset.shape[2]
    value = residual.value + _apply(residual.by_state, response.offset)
    by_start = residual.by_state @ response.by_start
    by_action = residual.by_state @ response.by_action  # (b, h, m, h a)
    each = np.arange(h)
    by_action.reshape(b, h, m, h, a)[:, each, :, each] += residual.by_action.swapaxes(0, 1)
    by_action = by_action.reshape(b, h * m, h * a)
    hessian = by_action.swapaxes(1, 2) @ by_action
    each = np.arange(h * a)
    hessian[:, each, each] += damping[:, None]
    hessian *= 2
    return Condensed(hessian, by_action, by_start.reshape(b, h * m, d), value.reshape(b, h * m))


def _apply(matrix: np.ndarray, x: np.ndarray) -> np.ndarray:
    return (matrix @ x[..., None])[..., 0]
