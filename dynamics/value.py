"""A value behind the planner's horizon: what the controller's own behaviour goes on to cost from a state.

    V(s) ~ E sum_i gamma^i c_i,    fitted to lambda-returns  G_t = c_t + gamma ((1 - lambda) V(s_t+1) + lambda G_t+1)

over recordings (Sutton and Barto 2018, sec. 12.1; behind a short horizon: Lowrey et al. 2019, Plan Online, Learn Offline). A model of contact
is wrong a few steps ahead, now and then by a fall; recordings know how often. So the planner trusts the model for a short
horizon and what happened to real states behind it. V is a mean over all recorded conditions: it sees no damage.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynamics import scalar
from dynamics.data import Rows
from dynamics.types import Params
from robots.space import StateSpace
from robots.symmetry import Symmetry


@dataclass(frozen=True)
class ValueConfig:
    gamma: float = 0.95
    """discount a step"""
    trace: float = 0.5
    """lambda: 0 trusts V behind the next step, 1 the recording to its end. Low, because recordings are of earlier, worse controllers"""
    newest: float = 0.4
    """fraction of the shards it is fitted to, the newest, and never fewer than six of them"""
    width: int = 256
    sweeps: int = 14
    """times the returns are computed anew"""
    steps: int = 200
    """of Adam, between sweeps"""
    batch: int = 512
    lr: float = 1e-3


SCALE = 10.0  # of the network's output, so that it starts and stays near 1


def apply(value: Params, x: Tensor) -> Tensor:
    """(n, i) -> (n,)"""
    return SCALE * scalar.apply(value, x)


def terminal(space: StateSpace, value: Params) -> Callable[[Tensor], Tensor] | None:
    """-> V(s (b, n, s)) -> (b, n), as a planner's terminal cost; None where no value was learned."""
    if not value:
        return None
    scaled = scalar.of(space, value)
    return lambda s: SCALE * scaled(s)


def returns(cost: Tensor, after: Tensor, episode: Tensor, gamma: float, trace: float) -> Tensor:
    """lambda-returns (n,) from costs (n,) and V of the next states (n,), rows of an episode contiguous and in order. An episode's end is where
    the recording stopped, not where the robot did: V stands for the rest."""
    ends = torch.cat(((episode[1:] != episode[:-1]).nonzero()[:, 0], torch.tensor([len(episode) - 1])))
    starts = torch.cat((torch.tensor([0]), ends[:-1] + 1))
    out = torch.empty_like(cost)
    at, following = ends, after[ends]
    while len(at):
        following = cost[at] + gamma * ((1 - trace) * after[at] + trace * following)
        out[at] = following
        inside = at > starts
        at, starts, following = at[inside] - 1, starts[inside], following[inside]
    return out


def fit(
    space: StateSpace,
    rows: Rows,
    cost: Callable[[Tensor, Tensor, Tensor], Tensor],
    symmetries: Sequence[Symmetry],
    config: ValueConfig,
    rng: torch.Generator,
    members: int = 1,
) -> Params:
    """From recordings to V. With symmetries, rows recorded on the healthy robot are seen as one of their images, at random; the cost must not
    tell them apart. members: fits whose mean V is; two of them differ by a quarter of V's own spread."""
    count = int(rows.shard.max()) + 1
    rows = Rows(*(x[rows.shard >= count - max(6, round(config.newest * count))] for x in rows))
    paid = cost(rows.s, rows.a, rows.s_next)
    x, x_next = space.directed(rows.s), space.directed(rows.s_next)
    images = scalar.images(symmetries, x.shape[1])
    values = [_fit(rows, paid, x, x_next, images, config, rng) for _ in range(members)]
    return scalar.distilled(values, x, images, rows.healthy, rng)


def _fit(
    rows: Rows, paid: Tensor, x: Tensor, x_next: Tensor, images: Tensor, config: ValueConfig, rng: torch.Generator
) -> Params:
    value = scalar.init(torch.cat([x @ g.T for g in images]), config.width, rng)
    optimiser = torch.optim.Adam(scalar.trained(value), lr=config.lr)
    total = config.sweeps * config.steps
    goal = paid
    for step in range(total):
        if step % config.steps == 0:
            with torch.no_grad():
                goal = returns(paid, apply(value, x_next), rows.episode, config.gamma, config.trace)
        optimiser.param_groups[0]["lr"] = config.lr * (1 - 0.9 * step / total)
        at = torch.randint(rows.n, (config.batch,), generator=rng)
        seen = scalar.imaged(x[at], images, rows.healthy[at], rng)
        # The mean, not the median: a fall is rare, and its price times its chance is what must be seen.
        loss = (apply(value, seen) - goal[at]).square().mean() / SCALE**2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {n: w.detach() for n, w in value.items()}
