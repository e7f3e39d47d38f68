"""What trains the model with a latent: the evidence lower bound over recorded segments, in each of which the load is the same.

    L = sum_t E_q(z) [ log N(y_t; g(x_t, a_t, z), sigma^2) ] - KL( q(z) || N(0, 1) )        q(z) diagonal Gaussian, one for every segment

z known and z unknown (Belkhale et al. 2021, IV-A and B): in `known` segments the load's coordinate is its true value, elsewhere it is
inferred with the rest; the others are inferred everywhere. One bound, so the network learns from both.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dynamics.data import Rows
from dynamics.objectives import Sampler, join
from dynamics.residual import SHARE, SPREAD, Residual
from dynamics.train import Loss
from dynamics.types import Params, Transitions, as_phi

LOG_SIGMA = (-4.0, 2.0)  # [log m/s^2]
INITIAL = -1.0  # log standard deviation of q


class Loads(NamedTuple):
    """Of every segment."""

    share: Tensor  # (segments,) of the load in the total mass; NaN without one
    known: Tensor  # (segments,) bool: told to training


def beliefs(segments: int, n_z: int) -> Params:
    """The variational parameters, trained beside the network and thrown away with the segments."""
    return {"q.mean": torch.zeros(segments, n_z), "q.log_std": torch.full((segments, n_z), INITIAL)}


def elbo(
    model: Residual, norm: Params, rows: Rows, loads: Loads, sampler: Sampler, batch: int
) -> tuple[Loss, Callable[[Params], float]]:
    """-> the negative bound per row, and its value over held-out segments whose q is fitted with the rest (their rows never train the network: their
    gradient reaches q alone)."""
    truth = ((loads.share - SHARE) / SPREAD).nan_to_num()
    told = loads.known & loads.share.isfinite()
    length = torch.bincount(rows.episode, minlength=len(truth)).clamp_min(1).float()

    def bound(params: Params, at: Tensor, noise: Tensor, detach: bool) -> Tensor:
        theta = join({n: w for n, w in params.items() if not n.startswith("q.")}, norm)
        if detach:
            theta = theta._replace(net={n: w.detach() for n, w in theta.net.items()})
        episode = rows.episode[at]
        mean, log_std = params["q.mean"][episode], params["q.log_std"][episode]
        z = mean + log_std.exp() * noise
        first = torch.where(told[episode], truth[episode], z[:, 0])
        z = torch.cat((first[:, None], z[:, 1:]), 1)
        s, a, s_next = (x[at][:, None] for x in (rows.s, rows.a, rows.s_next))
        t = Transitions(s, a, s_next, torch.ones(len(at), 1, dtype=torch.bool))
        log_sigma = theta.meta["variational.log_sigma"].clamp(*LOG_SIGMA)
        # Beyond five deviations a row (a cable that snaps taut) pulls linearly, so that it does not decide what noise is.
        scaled = model.error(as_phi(theta), t, z)[:, 0] * (-log_sigma).exp()
        square = torch.where(scaled.abs() < 5, 0.5 * scaled.square(), 5 * scaled.abs() - 12.5)
        there = model.mlp.space.there(t.s)[:, 0]  # pyright: ignore[reportAttributeAccessIssue] (Rows)
        nll = ((square + log_sigma) * there).sum(1)
        kl = (0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std).sum(1)
        return (nll + kl / length[episode]).mean()

    def loss(params: Params, rng: torch.Generator) -> Tensor:
        at = sampler.draw(batch, rng)
        count = batch // 4
        beside = sampler.held_out[torch.randint(len(sampler.held_out), (count,), generator=rng)]
        noise = torch.randn(batch + count, params["q.mean"].shape[1], generator=rng)
        own = bound(params, at, noise[:batch], False)
        others = bound(
            params | {n: w.detach() for n, w in params.items() if n.startswith("meta.")}, beside, noise[batch:], True
        )
        return own + others / 4

    def validate(params: Params) -> float:
        at = sampler.held_out[:: max(1, len(sampler.held_out) // 4096)]
        with torch.no_grad():
            return float(bound(params, at, torch.zeros(len(at), params["q.mean"].shape[1]), True))

    return loss, validate
