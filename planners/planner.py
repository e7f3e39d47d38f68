"""The planner's protocol. A planner sees `predict` and `cost`, never a network or an adapter."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]  # (b, n, s), (b, n, a) -> (b, n, s)
Cost = Callable[
    [Tensor, Tensor, Tensor], Tensor
]  # (*b, s), (*b, a), (*b, s) -> (*b), of every step of every candidate at once
Terminal = Callable[[Tensor], Tensor]  # (b, n, s) at the end of the horizon -> (b, n) what follows costs


class Plan(NamedTuple):
    """Actions for the next h steps, within bounds, and what the planner expects them to cost."""

    actions: Tensor  # (b, h, a)
    cost: Tensor  # (b,), +inf where every candidate failed
    valid: Tensor  # (b,) bool: at least one candidate had a finite cost


class Planner(Protocol):
    """`init` makes the memory (the warm start), `plan` returns the next; nothing mutates but the generators."""

    def init(self, b: int) -> Any: ...

    def plan(
        self,
        memory: Any,
        predict: Predict,
        s: Tensor,
        cost: Cost,
        rngs: Sequence[torch.Generator],
        terminal: Terminal | None = None,
    ) -> tuple[Plan, Any]:
        """s (b, s) and one generator per robot -> plan, memory. A robot's plan depends on its own generator alone.

        planners.nmpc takes a planners.linearise.LeastSquares in the place of the cost, over all knots of the horizon at once: a reference
        that moves is bound into a new one at every tick."""
        ...
