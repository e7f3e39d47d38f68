"""Settings of adapters that are a handful of scalars: chosen on recorded data with changes of dynamics spliced in."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dynamics.adapt.effectiveness import discounted, normal_equations, solve
from dynamics.adapt.gradient import OnlineSGD
from dynamics.data import DataError, Rows, window
from dynamics.mlp import MLP
from dynamics.types import Theta, Transitions, as_phi


def tune_filter(
    model: MLP, theta: Theta, rows: Rows, seed: int, progress: Callable[[str, int, int], None],
    sequences: int = 256, length: int = 48, steps: int = 400,
) -> tuple[Theta, dict[str, Any]]:  # fmt: skip
    """Meta-learn discount, inflation and prior precision of the gain filter by gradient descent on what they are for: predicting the
    next transitions.

    A sequence is `length` transitions of one held-out episode, followed by `length` of another whose motors differ (half of the sequences
    stay with one episode): the discount is learned from changes, which no single recording holds. Sequences are dealt evenly to the bodies that
    recordings tell of, however rare: what is rare in training would else be held for unlikely on the robot. The normal equations are taken at the
    gains that explain each transition's own window, so each prediction error is a quadratic in g and the filter is differentiable in
    its settings.
    """
    rng = torch.Generator().manual_seed(seed)
    pieces = []
    for half in range(2):
        at = _starts(rows, sequences, length, rng)
        if half == 1:
            stay = torch.arange(sequences) % 2 == 0
            at = torch.where(stay & _room(rows, pieces[0][1], 2 * length), pieces[0][1] + length, at)
        _, t = window(rows, at, 0, length)
        gain = model.neutral.expand(sequences, -1)
        for _ in range(3):
            h, r = normal_equations(model, theta.net, theta.norm, theta.meta["effectiveness.sigma"], gain, t)
            gain = solve(model, h.sum(1) / 10.0, r.sum(1) / 10.0, torch.full((model.n_acting,), 0.5))
        h, r = normal_equations(model, theta.net, theta.norm, theta.meta["effectiveness.sigma"], gain, t)
        pieces.append(((h, r), at))
    h = torch.cat([p[0][0] for p in pieces], 1)  # (n, 2 length, a, a)
    r = torch.cat([p[0][1] for p in pieces], 1)
    meta, motors = theta.meta, model.space.n_action
    gamma = meta["effectiveness.gamma"].expand(model.n_acting)
    free = {"inflation": meta["effectiveness.inflation"].log().clone()}
    for kind, of in (("", slice(0, motors)), ("body_", slice(motors, None))):
        if len(gamma[of]):
            free[f"{kind}gamma"] = torch.logit(gamma[of]).mean().clone()
            free[f"{kind}precision"] = meta["effectiveness.precision"][of].log().mean().clone()
    train_half, held = slice(0, None, 2), slice(1, None, 2)
    for w in free.values():
        w.requires_grad_()
    optimiser = torch.optim.Adam(list(free.values()), lr=0.05)
    first = float(_filter_error(model, free, h[held], r[held]).detach())
    best, best_loss = {k: w.detach().clone() for k, w in free.items()}, first
    for step in range(1, steps + 1):
        loss = _filter_error(model, free, h[train_half], r[train_half])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 20 == 0:
            with torch.no_grad():
                now = float(_filter_error(model, free, h[held], r[held]))
            if now < best_loss:
                best, best_loss = {k: w.detach().clone() for k, w in free.items()}, now
            progress("train effectiveness", step, steps)
    learned = {
        "effectiveness.gamma": _each(model, best, "gamma").sigmoid(),
        "effectiveness.inflation": best["inflation"].exp(),
        "effectiveness.precision": _each(model, best, "precision").exp(),
    }
    record = {"validation_before": first, "validation": best_loss} | {
        k: float(best[k].sigmoid() if k.endswith("gamma") else best[k].exp()) for k in best
    }
    return theta._replace(meta=meta | learned), record


def _each(model: MLP, free: dict[str, Tensor], name: str) -> Tensor:
    """(n_acting,) one setting for all motors, one for all parameters of the body."""
    parts = [free[name].expand(model.space.n_action)]
    if model.body:
        parts.append(free[f"body_{name}"].expand(model.body))
    return torch.cat(parts)


def _filter_error(model: MLP, free: dict[str, Tensor], h: Tensor, r: Tensor) -> Tensor:
    """Mean of (g^T H g - 2 g^T r) of the next transition under the gains filtered so far: its squared error, up to a constant."""
    n, length, a, _ = h.shape
    gamma, c = _each(model, free, "gamma").sigmoid(), free["inflation"].exp()
    precision = _each(model, free, "precision").exp()
    hs, rs = torch.zeros(n, a, a), torch.zeros(n, a)
    gains = []
    for t in range(length):
        g = torch.linalg.solve(hs / c + torch.diag_embed(precision.expand(n, a)), rs / c + precision * model.neutral)
        gains.append(g)
        hs, rs = discounted(gamma, g, hs, rs)
        hs, rs = hs + h[:, t], rs + r[:, t]
    g = torch.stack(gains, 1)
    return ((h @ g[..., None])[..., 0] * g - 2 * g * r).sum(-1).mean()


def _starts(rows: Rows, count: int, length: int, rng: torch.Generator) -> Tensor:
    """Random rows of held-out episodes with `length` rows of their episode still to come, evenly of every kind of robot."""
    at = torch.arange(rows.n)
    ok = (rows.episode % 8 == 7) & _room(rows, at, length)
    if not ok.any():
        raise DataError(
            f"no held-out episode is {length} transitions long; valid: a dataset of 8 or more such episodes"
        )
    # Rows of which the same is told are of one kind; the row count of a kind plays no part.
    kind = rows.told.nan_to_num(nan=-9.0)[ok].unique(dim=0, return_inverse=True)[1]
    chance = 1.0 / torch.bincount(kind)[kind].float()
    return at[ok][_draw(chance, count, rng)]


def _draw(weight: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """(count,) indices with replacement, in proportion to weight (n,): torch.multinomial takes no more than 2^24 of them."""
    edges = weight.double().cumsum(0)
    u = torch.rand(count, generator=rng, dtype=torch.float64) * edges[-1]
    return torch.searchsorted(edges, u, right=True).clamp_max(len(weight) - 1)


def _room(rows: Rows, at: Tensor, length: int) -> Tensor:
    end = (at + length - 1).clamp_max(rows.n - 1)
    return (at + length <= rows.n) & (rows.episode[at] == rows.episode[end])


def tune_online_sgd(
    adapter: OnlineSGD, theta: Theta, rows: Rows, past: int, seed: int, count: int = 24, ticks: int = 40
) -> tuple[Theta, dict[str, Any]]:
    """The rate, of a grid, with the lowest error on the transition that comes next, over `ticks` ticks on held-out episodes."""
    rng = torch.Generator().manual_seed(seed)
    at = _starts(rows, count, ticks + 1, rng)
    errors: dict[float, float] = {}
    for rate in (0.001, 0.003, 0.01, 0.03, 0.1):
        trial = theta._replace(meta=theta.meta | {"online-sgd.log_rate": torch.tensor(rate).log()})
        carry, total = adapter.init(trial, count), 0.0
        phi = as_phi(trial)
        for t in range(ticks):
            before, ahead = window(rows, at + t, past, 1)
            # The past of the first tick lies before the sequence: it is context, as in closed loop.
            total += _error(adapter.model, phi, ahead)
            before = Transitions(*(torch.cat((b[:, 1:], x), 1) for b, x in zip(before, ahead, strict=True)))
            phi, carry = adapter.adapt(trial, carry, before)
        errors[rate] = total / ticks
    best = min(errors, key=lambda r: errors[r] if errors[r] == errors[r] else float("inf"))
    meta = theta.meta | {"online-sgd.log_rate": torch.tensor(best).log()}
    return theta._replace(meta=meta), {
        "online_sgd_errors": {str(k): v for k, v in errors.items()},
        "online_sgd_rate": best,
    }


@torch.no_grad()
def _error(model: MLP, phi, t: Transitions) -> float:
    error = model.normalised(phi, t.s, t.a).mean(1) - model.target(phi, t.s, t.s_next)
    return float(error.square().mean())
