"""Actuator effectiveness: infer the gain of every motor, then let the model see the action as it acts.

    phi = (theta, g):   s' ~ d_theta(s, g * a)
    g = argmin  sum_t w_t || (y_t - d_theta(s_t, g * a_t)) / sigma ||^2 / c  +  || (g - 1) / sigma_0 ||^2,   w_t = gamma^age

by one Gauss-Newton step a tick, linearised at the last estimate, over sums that are discounted as they grow: recursive least squares
with forgetting on a linearised model (an extended Kalman filter for parameters, Ljung 1979), so that a tick costs one transition.
A dead, weak or reversed motor is a point of this 8-dimensional space, whichever motor it is: that is what lets
a damage no training saw be found from a few transitions. Loss of control effectiveness is the standard fault
model of fault-tolerant control (Zhang and Jiang 2008).

sigma is the residual the model leaves on its training data, c inflates it because residuals are correlated in time and across outputs.

Where the network is conditioned on parameters of the body (MLP.body), g holds them behind the gains, about 0 in the place of 1: a change of the
body that training named in its recordings is found in the same way. A transition says less of the body than of a motor, so each kind forgets at
its own rate (vector forgetting: Parkum, Poulsen and Holst 1992), see `discounted`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dynamics.data import Rows
from dynamics.mlp import CLIP, MLP, mul
from dynamics.types import Params, Phi, Theta, Transitions

BOUND = 1.5  # gains outside [-BOUND, BOUND] are not believed, nor parameters of the body outside [0, 1], of which there are no recordings
SURE = 1e6  # precision of what a recording tells


def normal_equations(
    model: MLP, net: Params, norm: Params, sigma: Tensor, gain: Tensor, t: Transitions
) -> tuple[Tensor, Tensor]:
    """Each transition's part of the Gauss-Newton system in g, linearised at `gain` (b, n_acting).

    -> H (b, k, n_acting, n_acting), r (b, k, n_acting) with H_t = J^T J and r_t = J^T (y - f + J g), J = d f / d g / sigma. The ensemble's mean.
    """
    n_feature = model.space.n_feature
    phi = Phi(net, norm)
    x = model.inputs(phi, t.s, model.acting(t.a, gain[:, None]))[:, None]  # (b, 1, k, i)
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
    jac = jac * model.acting(t.a, torch.ones_like(gain)[:, None])[..., None] / sigma
    y = model.target(phi, t.s, t.s_next)
    # A contact that the model missed must not pass for a broken motor: residuals beyond 3 sigma are cut (Huber 1964).
    residual = ((y - f) / sigma).clamp(-3.0, 3.0)
    usable = t.mask & (y.abs().amax(-1) < CLIP)
    jac = jac * usable[..., None, None]
    h_t = jac @ jac.mT
    r_t = (jac @ residual[..., None])[..., 0] + (h_t @ gain[:, None, :, None])[..., 0]
    return h_t, r_t


def discounted(gamma: Tensor, g: Tensor, h: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Of the sums h (b, n, n) and r (b, n), what is left of them a tick later, gamma (n,) or () of each parameter: less information about the same
    estimate g (b, n). With one gamma for all, gamma h and gamma r."""
    root = gamma.expand(g.shape[-1]).sqrt()
    kept = root[:, None] * h * root
    return kept, (kept @ g[..., None])[..., 0] + gamma * (r - (h @ g[..., None])[..., 0])


def solve(model: MLP, hessian: Tensor, right: Tensor, precision: Tensor, prior: Tensor | None = None) -> Tensor:
    """(b, n, n), (b, n), precision (n,) or (b, n) of the prior (its mean (b, n): gains of 1, a body as theta's, where None) -> g (b, n)."""
    prior = model.neutral if prior is None else prior
    g = torch.linalg.solve(hessian + torch.diag_embed(precision.expand_as(right)), right + precision * prior)
    low, high = torch.zeros(model.n_acting), torch.ones(model.n_acting)
    low[: model.space.n_action], high[: model.space.n_action] = -BOUND, BOUND
    return g.clamp(low, high)


class Carry(NamedTuple):
    g: Tensor  # (b, n_acting), the last estimate
    h: Tensor  # (b, n_acting, n_acting), discounted sum of J^T J
    r: Tensor  # (b, n_acting), discounted sum of J^T (y - f + J g)


@dataclass(frozen=True)
class Effectiveness:
    model: MLP

    def meta(self, theta: Theta) -> Params:
        """Fresh meta parameters: discount a tick, inflation of the residual's variance, prior precision, the first and last of each parameter."""
        return {
            "effectiveness.gamma": torch.full((self.model.n_acting,), 0.93),
            "effectiveness.inflation": torch.tensor(10.0),
            "effectiveness.precision": torch.full((self.model.n_acting,), 2.0),
        }

    def init(self, theta: Theta, b: int) -> Carry:
        """All motors healthy, nothing seen."""
        n = self.model.n_acting
        return Carry(self.model.neutral.expand(b, n).clone(), torch.zeros(b, n, n), torch.zeros(b, n))

    @torch.no_grad()
    def adapt(self, theta: Theta, carry: Carry, recent: Transitions) -> tuple[Phi, Carry]:
        meta = theta.meta
        newest = Transitions(*(x[:, -1:] for x in recent))
        h, r = normal_equations(self.model, theta.net, theta.norm, meta["effectiveness.sigma"], carry.g, newest)
        gamma, c = meta["effectiveness.gamma"], meta["effectiveness.inflation"]
        seen = newest.mask[:, 0]
        kept_h, kept_r = discounted(gamma, carry.g, carry.h, carry.r)
        h = torch.where(seen[:, None, None], kept_h, carry.h) + h[:, 0] / c
        r = torch.where(seen[:, None], kept_r, carry.r) + r[:, 0] / c
        g = solve(self.model, h, r, meta["effectiveness.precision"])
        return Phi(theta.net, theta.norm, g), Carry(g, h, r)


@torch.no_grad()
def episode_gains(
    model: MLP, theta: Theta, rows: Rows, episodes: Tensor, gains: Tensor, per_episode: int = 48
) -> Tensor:
    """Explain recorded episodes: the gains and parameters of the body that fit each best, from transitions spread over it, two Gauss-Newton
    steps from `gains` (all episodes, n_acting). What a recording tells of them (Rows.told) is held. -> the new (all episodes, n_acting).

    Training alternates this with fitting the network to the actions as they acted: expectation-maximisation with a point estimate.
    """
    count = torch.bincount(rows.episode, minlength=len(gains))
    first = count.cumsum(0) - count
    told = rows.told[first, : model.n_acting]
    known = told.isfinite()
    gains = torch.where(known, told, gains)
    episodes = episodes[~known[episodes].all(1)]
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
            c, held = meta["effectiveness.inflation"], known[batch]
            precision = torch.where(held, SURE, meta["effectiveness.precision"])
            prior = torch.where(held, told[batch], model.neutral)
            gains[batch] = torch.where(held, prior, solve(model, h.sum(1) / c, r.sum(1) / c, precision, prior))
    return gains
