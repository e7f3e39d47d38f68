"""The loop that all sampling planners share: propose, score, refit, shift.

    mean <- shift(last plan)
    repeat:  a_j = clip(mean + std * noise_j),  J_j = cost of a_j,  (mean, std) <- refit(a, J)

An algorithm is its `refit`, and three switches: whether it iterates, keeps elites, and shrinks the deviation. The first `ahead` iterations can be
made before the state is measured, from where it is expected (`prepare`), as real-time iteration prepares its linearisation (Diehl, Bock, Schloeder
2005): the same work, most of it before the state comes.
Noise is first-order coloured over the horizon, n_t = beta n_{t-1} + sqrt(1 - beta^2) e_t (cf. Pinneri et al. 2020, sec. 3.1, which
uses power-law noise): neighbouring actions agree, so candidates move the robot instead of shaking it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from planners.planner import Cost, Plan, Predict, Terminal
from planners.rollout import evaluate


class Memory(NamedTuple):
    """The warm start: the last plan and its elites, not yet shifted."""

    mean: Tensor  # (b, h, a)
    elites: Tensor  # (b, m, h, a); m = 0 for planners that keep none


class Search(NamedTuple):
    """A search that has begun."""

    mean: Tensor  # (b, h, a)
    std: Tensor  # (b, h, a)
    elites: Tensor  # (b, m, h, a)


@dataclass(frozen=True)
class Shooting(ABC):
    """Settings of every sampling planner. Actions are bounded by [low, high]. ahead: how many of the iterations `prepare` makes, one less than all of
    them at most."""

    n_action: int = 8
    horizon: int = 12
    samples: int = 128
    iterations: int = 2
    std: float = 0.6
    std_floor: float = 0.1
    beta: float = 0.7
    low: float = -1.0
    high: float = 1.0
    ahead: int = 0

    @property
    def early(self) -> int:
        """Iterations that `prepare` makes."""
        return min(self.ahead, self.iterations - 1)

    @property
    def keep(self) -> int:
        """Elites carried to the next iteration and the next step."""
        return 0

    @abstractmethod
    def refit(self, mean: Tensor, std: Tensor, actions: Tensor, costs: Tensor) -> tuple[Tensor, Tensor]:
        """mean, std (b, h, a), candidates (b, n, h, a), costs (b, n) -> mean, std. Costs may be +inf, but not all of a robot's."""

    def choose(self, mean: Tensor, best: Tensor) -> Tensor:
        """What is carried out: the refitted mean, unless the algorithm says otherwise. (b, h, a), (b, h, a) -> (b, h, a)"""
        return mean

    def init(self, b: int) -> Memory:
        middle = (self.low + self.high) / 2
        mean = torch.full((b, self.horizon, self.n_action), middle)
        return Memory(mean, mean[:, None].expand(-1, self.keep, -1, -1))

    def noise(self, n: int, rngs: Sequence[torch.Generator]) -> Tensor:
        """-> (b, n, h, a), unit variance, coloured over h. Robot i draws from rngs[i] alone."""
        shape = (self.horizon, self.n_action * n)
        white = [torch.randn(shape, generator=rng) for rng in rngs]
        # Candidates last in memory, as the rollout reads them. A product for each robot: one for all may round differently.
        coloured = torch.stack([_colour(self.horizon, self.beta) @ x for x in white])
        return coloured.unflatten(-1, (self.n_action, n)).permute(0, 3, 1, 2)

    def skip(self, memory: Memory) -> Memory:
        """One period went by without a plan."""
        return Memory(_shift(memory.mean), _shift(memory.elites))

    @torch.no_grad()
    def prepare(
        self,
        memory: Memory,
        predict: Predict,
        s: Tensor,
        cost: Cost,
        rngs: Sequence[torch.Generator],
        terminal: Terminal | None = None,
    ) -> Search:
        """The first `early` iterations of the next plan, from the states s (b, s) where the robots are expected to be by then."""
        return self._search(self._begin(memory), self.early, predict, s, cost, rngs, terminal)[0]

    @torch.no_grad()
    def plan(
        self,
        memory: Memory,
        predict: Predict,
        s: Tensor,
        cost: Cost,
        rngs: Sequence[torch.Generator],
        terminal: Terminal | None = None,
        search: Search | None = None,
    ) -> tuple[Plan, Memory]:
        """search: what `prepare` found, in the place of memory."""
        n = self.iterations if search is None else self.iterations - self.early
        search, best, cost_of_best = self._search(search or self._begin(memory), n, predict, s, cost, rngs, terminal)
        plan = Plan(self.choose(search.mean, best), cost_of_best, cost_of_best.isfinite())
        return plan, Memory(search.mean, search.elites)

    def _begin(self, memory: Memory) -> Search:
        mean = _shift(memory.mean)
        return Search(mean, torch.full_like(mean, self.std), _shift(memory.elites))

    def _search(
        self,
        search: Search,
        iterations: int,
        predict: Predict,
        s: Tensor,
        cost: Cost,
        rngs: Sequence[torch.Generator],
        terminal: Terminal | None,
    ) -> tuple[Search, Tensor, Tensor]:
        """-> the search, its best candidate (b, h, a) and what that costs (b,)."""
        mean, std, elites = search
        b = s.shape[0]
        best, best_cost = mean, torch.full((b,), torch.inf)
        for _ in range(iterations):
            actions = (mean[:, None] + std[:, None] * self.noise(self.samples, rngs)).clamp_(self.low, self.high)
            actions[:, 0], actions[:, 1 : 1 + elites.shape[1]] = mean, elites
            costs = evaluate(predict, cost, s, actions, terminal)
            low, at = costs.min(1)
            improved = low < best_cost
            best = torch.where(improved[:, None, None], actions[torch.arange(b), at], best)
            best_cost = torch.minimum(low, best_cost)
            alive = low.isfinite()[:, None, None]
            # Where nothing is finite there is nothing to refit: keep the mean, and say so in `valid`.
            mean_new, std_new = self.refit(mean, std, actions, torch.where(alive[..., 0], costs, 0.0))
            mean = torch.where(alive, mean_new, mean).clamp(self.low, self.high)
            std = torch.where(alive, std_new, std).clamp_min(self.std_floor)
            if self.keep:
                elites = _take(actions, costs.topk(self.keep, dim=1, largest=False).indices)
        return Search(mean, std, elites), best, best_cost


@lru_cache
def _colour(horizon: int, beta: float) -> Tensor:
    """(h, h), lower triangular: white noise -> first-order coloured noise of unit variance."""
    lag = torch.arange(horizon)[:, None] - torch.arange(horizon)
    response = torch.where(lag >= 0, beta ** lag.float(), 0.0)
    response[:, 1:] *= (1 - beta**2) ** 0.5
    return response


def _shift(x: Tensor) -> Tensor:
    """(..., h, a): drop the action that was carried out, repeat the last."""
    return torch.cat((x[..., 1:, :], x[..., -1:, :]), -2)


def _take(actions: Tensor, index: Tensor) -> Tensor:
    """(b, n, h, a), (b, m) -> (b, m, h, a)."""
    return actions.gather(1, index[:, :, None, None].expand(-1, -1, *actions.shape[2:]))
