"""Actuator effectiveness: infer the gain of every motor, then let the model see the action as it acts.

    phi = (theta, g):   s' ~ d_theta(s, g * a)
    g = argmin  sum_t w_t || (y_t - d_theta(s_t, g * a_t)) / sigma ||^2 / c  +  || (g - 1) / sigma_0 ||^2,   w_t = gamma^age

by one Gauss-Newton step a tick, linearised at the last estimate, over sums that are discounted as they grow: recursive least squares
with forgetting on a linearised model (an extended Kalman filter for parameters, Ljung 1979), so that a tick costs one transition.
A dead, weak or reversed motor is a point of this 8-dimensional space, whichever motor it is: that is what lets
a damage no training saw be found from a few transitions. Loss of control effectiveness is the standard fault
model of fault-tolerant control (Zhang and Jiang 2008).

sigma is the residual the model leaves on its training data, c inflates it because residuals are correlated in time and across outputs.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dynamics.data import Rows
from dynamics.mlp import CLIP, MLP, mul
from dynamics.types import Params, Phi, Theta, Transitions

BOUND = 1.5  # gains outside [-BOUND, BOUND] are not believed


def normal_equations(
    model: MLP, net: Params, norm: Params, sigma: Tensor, gain: Tensor, t: Transitions
) -> tuple[Tensor, Tensor]:
    """Each transition's part of the Gauss-Newton system in g, linearised at `gain` (b, a).

    -> H (b, k, a, a), r (b, k, a) with H_t = J^T J and r_t = J^T (y - f + J g), J = d f / d g / sigma. The ensemble's mean.
    """
    n_feature = model.space.n_feature
    phi = Phi(net, norm)
    a = t.a * gain[:, None]
    x = model.inputs(phi, t.s, a)[:, None]  # (b, 1, k, i)
    h = x
    tangent: Tensor | None = None  # (b, e, k, a, width)
    for i in range(model.depth):
        w = net[f"W{i}"]
        z = mul(h, w) + net[f"b{i}"]
        if tangent is None:
            tangent = w[..., None, n_feature:, :] * (z > 0)[..., None, :]
        else:
            tangent = mul(tangent.flatten(-3, -2), w).unflatten(-2, tangent.shape[-3:-1]) * (z > 0)[..., None, :]
        h = torch.relu(z)
    assert tangent is not None
    k_h, k_x, k_1 = net["K"].split([model.width, model.n_in, 1], dim=-2)
    f = (mul(h, k_h) + mul(x, k_x) + k_1).mean(1)  # (b, k, d)
    jac = mul(tangent.flatten(-3, -2), k_h).unflatten(-2, tangent.shape[-3:-1])
    jac = (jac + k_x[..., None, n_feature:, :]).mean(1)  # (b, k, a, d)
    jac = jac * t.a[..., None] / sigma
    y = model.target(phi, t.s, t.s_next)
    # A contact that the model missed must not pass for a broken motor: residuals beyond 3 sigma are cut (Huber 1964).
    residual = ((y - f) / sigma).clamp(-3.0, 3.0)
    usable = t.mask & (y.abs().amax(-1) < CLIP)
    jac = jac * usable[..., None, None]
    h_t = jac @ jac.mT
    r_t = (jac @ residual[..., None])[..., 0] + (h_t @ gain[:, None, :, None])[..., 0]
    return h_t, r_t


def solve(hessian: Tensor, right: Tensor, precision: Tensor) -> Tensor:
    """(b, a, a), (b, a), prior precision about 1 (a,) -> g (b, a)."""
    g = torch.linalg.solve(hessian + torch.diag_embed(precision.expand_as(right)), right + precision)
    return g.clamp(-BOUND, BOUND)


class Carry(NamedTuple):
    g: Tensor  # (b, a), the last estimate
    h: Tensor  # (b, a, a), discounted sum of J^T J
    r: Tensor  # (b, a), discounted sum of J^T (y - f + J g)


@dataclass(frozen=True)
class Effectiveness:
    model: MLP

    def meta(self, theta: Theta) -> Params:
        """Fresh meta parameters: discount a tick, inflation of the residual's variance, prior precision of each gain."""
        return {
            "effectiveness.gamma": torch.tensor(0.93),
            "effectiveness.inflation": torch.tensor(10.0),
            "effectiveness.precision": torch.full((self.model.space.n_action,), 2.0),
        }

    def init(self, theta: Theta, b: int) -> Carry:
        """All motors healthy, nothing seen."""
        n = self.model.space.n_action
        return Carry(torch.ones(b, n), torch.zeros(b, n, n), torch.zeros(b, n))

    @torch.no_grad()
    def adapt(self, theta: Theta, carry: Carry, recent: Transitions) -> tuple[Phi, Carry]:
        meta = theta.meta
        newest = Transitions(*(x[:, -1:] for x in recent))
        h, r = normal_equations(self.model, theta.net, theta.norm, meta["effectiveness.sigma"], carry.g, newest)
        gamma, c = meta["effectiveness.gamma"], meta["effectiveness.inflation"]
        seen = newest.mask[:, 0]
        keep = torch.where(seen, gamma, torch.ones(()))
        h = keep[:, None, None] * carry.h + h[:, 0] / c
        r = keep[:, None] * carry.r + r[:, 0] / c
        g = solve(h, r, meta["effectiveness.precision"])
        return Phi(theta.net, theta.norm, g), Carry(g, h, r)


@torch.no_grad()
def episode_gains(
    model: MLP, theta: Theta, rows: Rows, episodes: Tensor, gains: Tensor, per_episode: int = 48
) -> Tensor:
    """Explain recorded episodes: the gains that fit each best, from transitions spread over it, two Gauss-Newton steps from `gains` (all
    episodes, a). Episodes recorded as healthy keep gains of 1. -> the new (all episodes, a).

    Training alternates this with fitting the network to the actions as they acted: expectation-maximisation with a point estimate.
    """
    gains = gains.clone()
    count = torch.bincount(rows.episode, minlength=len(gains))
    first = count.cumsum(0) - count
    healthy = rows.healthy[first]
    episodes = episodes[~healthy[episodes]]
    spread = torch.arange(per_episode)[None]
    meta = theta.meta
    for batch in episodes.split(24):
        n = count[batch, None]
        mask = spread < n
        # A short episode is taken whole, a long one in even steps.
        index = first[batch, None] + torch.where(n > per_episode, spread * n // per_episode, spread.minimum(n - 1))
        t = Transitions(rows.s[index], rows.a[index], rows.s_next[index], mask)
        for _ in range(2):
            h, r = normal_equations(model, theta.net, theta.norm, meta["effectiveness.sigma"], gains[batch], t)
            c = meta["effectiveness.inflation"]
            gains[batch] = solve(h.sum(1) / c, r.sum(1) / c, meta["effectiveness.precision"])
    return gains
