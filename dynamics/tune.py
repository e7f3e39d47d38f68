"""Settings of adapters that are a handful of scalars: chosen on recorded data with changes of dynamics spliced in."""

from collections.abc import Callable, MutableMapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dynamics.adapt.effectiveness import Effectiveness
from dynamics.adapt.gradient import OnlineSGD
from dynamics.data import DataError, Rows, window
from dynamics.mlp import MLP
from dynamics.types import Params, Theta, Transitions, as_phi

# Of the gain filter, tried one setting after the other, twice around: the fresh ones are among them.
GRID = {
    "gamma": (0.6, 0.7, 0.8, 0.87, 0.93, 0.96, 0.98),
    "body_gamma": (0.6, 0.7, 0.8, 0.87, 0.93, 0.96, 0.98),
    "inflation": (3.0, 10.0, 30.0),
    "precision": (0.5, 2.0, 8.0),
    "body_precision": (0.5, 2.0, 8.0, 32.0),
}
Trials = MutableMapping[tuple[float, ...], Tensor]  # the settings of GRID -> error of each sequence (n,)


class Tried(NamedTuple):
    """So far, of how many trials. score: of the best settings on the sequences that choose; held: on those that do not."""

    done: int
    total: int
    score: float
    held: float


CHANGED = 0.06  # share of an episode of 500 steps in which a change lies no further back than a sequence's second half is long


@torch.no_grad()
def tune_filter(
    model: MLP, theta: Theta, rows: Rows, seed: int, tell: Callable[[Tried], None], trials: Trials | None = None,
    sequences: int = 160, length: int = 32, sweeps: int = 2,
) -> tuple[Theta, dict[str, Any]]:  # fmt: skip
    """Discount, inflation and prior precision of the gain filter, by coordinate search on what they are for: the filter runs over held-out
    recordings as it runs on the robot, and is scored on the transition that comes next.

    A sequence is 2 `length` transitions: half of them of one robot, half of them change to another robot in the middle, which no single
    recording holds. Scored are the second halves, a change as rarely as it comes in an episode; of each kind of body that recordings tell of
    the logarithm of the mean squared error, so that what is rare in training, or hard to predict, counts no less and no more. A criterion that
    is differentiable, with each window linearised at the gains that explain it best, chose settings that lost a short leg (docs/trials/ant.md).

    The score hardly tells how stiff the prior on the gains should be, and a healthy robot walks better the stiffer it is: of precisions, the largest
    that is not worse than a smaller one by more than a standard error (Breiman et al. 1984, Classification and Regression Trees, sec. 3.4.3).

    trials: what was tried before, with the same arguments, by a run that was cut off; what is tried now is added.
    """
    rng = torch.Generator().manual_seed(seed)
    at = _starts(rows, sequences, 2 * length, rng)
    stay = window(rows, at, 0, 2 * length)[1]
    then = _starts(rows, sequences, length, rng)
    parts = [window(rows, start, 0, length)[1] for start in (_starts(rows, sequences, length, rng), then)]
    change = Transitions(*(torch.cat(x, 1) for x in zip(*parts, strict=True)))
    t = Transitions(*(torch.cat(x) for x in zip(stay, change, strict=True)))
    kind = _kinds(rows)[torch.cat((at, then))]
    gamma, precision = (theta.meta[f"effectiveness.{n}"].expand(model.n_acting) for n in ("gamma", "precision"))
    best = {"gamma": gamma[0], "inflation": theta.meta["effectiveness.inflation"], "precision": precision[0]}
    if model.body:
        best |= {"body_gamma": gamma[-1], "body_precision": precision[-1]}
    best = {name: round(float(x), 6) for name, x in best.items()}
    chosen, held = (torch.arange(2 * sequences) % 2 == i for i in range(2))

    errors: Trials = {} if trials is None else trials

    def scores(settings: dict[str, float]) -> tuple[float, float]:
        key = tuple(settings.values())
        if key not in errors:
            errors[key] = _replayed(model, theta._replace(meta=theta.meta | _meta(model, settings)), t)[
                :, length:
            ].mean(1)
        error = errors[key]
        return _score(error, kind, chosen, sequences), _score(error, kind, held, sequences)

    tried = {tuple(best.values()): scores(best)}
    first = tried[tuple(best.values())]
    done, total = 0, sweeps * sum(len(GRID[name]) for name in best)
    for _ in range(sweeps):
        for name in best:
            for value in GRID[name]:
                settings = best | {name: value}
                if (key := tuple(settings.values())) not in tried:
                    tried[key] = scores(settings)
                if tried[key][0] < tried[tuple(best.values())][0]:
                    best = settings
                tell(Tried(done := done + 1, total, *tried[tuple(best.values())]))
    for value in sorted(GRID["precision"]):
        stiffer = best | {"precision": value}
        if value > best["precision"]:
            if (key := tuple(stiffer.values())) not in tried:
                tried[key] = scores(stiffer)
            worse = _difference(errors[key], errors[tuple(best.values())], kind, sequences, rng)
            best = stiffer if worse.mean() <= worse.std() else best
    record = {"validation_before": first[1], "validation": tried[tuple(best.values())][1]} | best
    return theta._replace(meta=theta.meta | _meta(model, best)), record


def _meta(model: MLP, settings: dict[str, float]) -> Params:
    def each(name: str) -> Tensor:
        motors = torch.full((model.space.n_action,), settings[name])
        return torch.cat((motors, torch.full((model.body,), settings.get(f"body_{name}", 0.0))))

    return {
        "effectiveness.gamma": each("gamma"),
        "effectiveness.inflation": torch.tensor(settings["inflation"]),
        "effectiveness.precision": each("precision"),
    }


def _replayed(model: MLP, theta: Theta, t: Transitions) -> Tensor:
    """(n, length) squared errors of what the filter predicts of every transition from those before."""
    adapter, phi, errors = Effectiveness(model), as_phi(theta), []
    carry = adapter.init(theta, len(t.mask))
    for i in range(t.mask.shape[1]):
        now = Transitions(*(x[:, i : i + 1] for x in t))
        error = model.normalised(phi, now.s, now.a).mean(1) - model.target(phi, now.s, now.s_next)
        errors.append(error.square().mean((1, 2)))
        phi, carry = adapter.adapt(theta, carry, now)
    return torch.stack(errors, 1)


def _score(error: Tensor, kind: Tensor, of: Tensor, stayed: int) -> float:
    """Mean over kinds of the log of the mean error (n,) of the sequences in `of` (n,), of which the first `stayed` hold no change."""
    stays = torch.arange(len(error)) < stayed
    logs = []
    for k in kind.unique():
        parts = [error[of & (kind == k) & which] for which in (stays, ~stays)]
        if all(len(part) for part in parts):
            logs.append(((1 - CHANGED) * parts[0].mean() + CHANGED * parts[1].mean()).log())
    return float(torch.stack(logs).mean()) if logs else float("inf")


def _difference(a: Tensor, b: Tensor, kind: Tensor, stayed: int, rng: torch.Generator, draws: int = 200) -> Tensor:
    """(draws,) by how much the score of errors a (n,) is above that of b, with the sequences drawn anew."""
    n, found = len(a), []
    for _ in range(draws):
        at = torch.cat(
            (torch.randint(stayed, (stayed,), generator=rng), torch.randint(stayed, n, (n - stayed,), generator=rng))
        )
        everything = torch.ones(n, dtype=torch.bool)
        found.append(_score(a[at], kind[at], everything, stayed) - _score(b[at], kind[at], everything, stayed))
    return torch.tensor(found)


def _kinds(rows: Rows) -> Tensor:
    """(n,) number of the kind of robot: rows of which the same is told are of one kind."""
    return rows.told.nan_to_num(nan=-9.0).unique(dim=0, return_inverse=True)[1]


def _starts(rows: Rows, count: int, length: int, rng: torch.Generator) -> Tensor:
    """Random rows of held-out episodes with `length` rows of their episode still to come, evenly of every kind of robot."""
    at = torch.arange(rows.n)
    ok = rows.held_out & _room(rows, at, length)
    if not ok.any():
        raise DataError(
            f"no held-out episode is {length} transitions long; valid: a dataset of 8 or more such episodes"
        )
    kind = _kinds(rows)[ok]  # how many rows a kind has plays no part
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
