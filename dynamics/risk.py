"""The chance of a fall: what recordings say of the states from which robots fell.

    P(s) = sigmoid(f(s)) ~ chance that a robot which is in s and runs on as it does has fallen `within` steps from now

A classifier of recorded states (a safety critic: Srinivasan et al. 2020, Learning to be Safe; Thananjeyan et al. 2021, Recovery RL). A fall is
decided by an impact that the model does not foresee ten steps ahead, but recordings know the states that come before one, and a classifier
learns from few of them what a mean of costs-to-go blurs (docs/trials/ant.md). The planner pays for the chance at every step of a plan: at the first
ones the model is still right.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from dynamics import scalar
from dynamics.data import Rows
from dynamics.types import Params
from robots.space import StateSpace
from robots.symmetry import Symmetry


@dataclass(frozen=True)
class RiskConfig:
    within: int = 15
    """steps in which a fall counts as foreseeable"""
    newest: float = 0.7
    """fraction of the shards it is fitted to, the newest, and never fewer than six of them"""
    width: int = 128
    steps: int = 2000
    """of Adam"""
    batch: int = 512
    share: float = 0.25
    """of states before a fall in a batch, however rare they are"""
    lr: float = 1e-3
    decay: float = 0.02


def ahead(fell: Tensor, episode: Tensor, within: int) -> tuple[Tensor, Tensor]:
    """fell (n,) bool: the row's step ended in a fall; episode (n,), contiguous. -> two of (n,) bool: a fall comes within `within` steps, this one
    the first; and whether that is known, the recording being long enough or the fall in it."""
    n = len(fell)
    at = torch.arange(n)
    end = torch.ones(n, dtype=torch.bool)
    end[:-1] = episode[1:] != episode[:-1]

    def following(marks: Tensor) -> Tensor:
        """(n,) index of the next marked row, this one included; far off where there is none."""
        return torch.where(marks, at, 2 * n).flip(0).cummin(0).values.flip(0)

    last, fall = following(end), following(fell)
    falls = (fall <= last) & (fall - at < within)
    return falls, falls | (last - at + 1 >= within)


def fit(
    space: StateSpace,
    rows: Rows,
    fallen: Callable[[Tensor], Tensor],
    symmetries: Sequence[Symmetry],
    config: RiskConfig,
    rng: torch.Generator,
    members: int = 1,
) -> Params:
    """From recordings to P; empty where none of them holds a fall, or nothing but falls. fallen: (n, s) -> (n,) bool. With symmetries, rows recorded
    on the healthy robot are seen as one of their images, at random. members: fits of whose log odds f is the mean."""
    count = int(rows.shard.max()) + 1
    rows = Rows(*(x[rows.shard >= count - max(6, round(config.newest * count))] for x in rows))
    falls, known = ahead(fallen(rows.s_next), rows.episode, config.within)
    standing = known & ~fallen(rows.s)
    before, others = (falls & standing).nonzero()[:, 0], (~falls & standing).nonzero()[:, 0]
    if not len(before) or not len(others):
        return {}
    x = space.directed(rows.s)
    images = scalar.images(symmetries, x.shape[1])
    nets = [_fit(x, before, others, images, rows.healthy, config, rng) for _ in range(members)]
    return scalar.distilled(nets, x, images, rows.healthy, rng)


def _fit(
    x: Tensor,
    before: Tensor,
    others: Tensor,
    images: Tensor,
    healthy: Tensor,
    config: RiskConfig,
    rng: torch.Generator,
) -> Params:
    net = scalar.init(torch.cat([x @ g.T for g in images]), config.width, rng)
    optimiser = torch.optim.AdamW(scalar.trained(net), lr=config.lr, weight_decay=config.decay)
    dealt = round(config.share * config.batch)
    label = (torch.arange(config.batch) < dealt).float()
    for step in range(config.steps):
        optimiser.param_groups[0]["lr"] = config.lr * (1 - 0.9 * step / config.steps)
        at = torch.cat(
            [
                rows_[torch.randint(len(rows_), (n,), generator=rng)]
                for rows_, n in ((before, dealt), (others, config.batch - dealt))
            ]
        )
        seen = scalar.imaged(x[at], images, healthy[at], rng)
        loss = binary_cross_entropy_with_logits(scalar.apply(net, seen), label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    net = {n: w.detach() for n, w in net.items()}
    # From the batches' odds to those of the recordings: P is a chance, so that its price means something.
    odds = torch.tensor([len(before) / len(others), dealt / (config.batch - dealt)]).log()
    net["b2"] += odds[0] - odds[1]
    return net


def chance(space: StateSpace, net: Params) -> Callable[[Tensor], Tensor]:
    """-> P(s (*b, s)) -> (*b), without a gradient."""
    logit = scalar.of(space, net)
    return lambda s: torch.sigmoid(logit(s))
