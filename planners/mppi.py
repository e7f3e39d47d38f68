"""MPPI (Williams et al. 2017, Information Theoretic MPC): the mean moves to the cost-weighted average.

w_j = softmax(-(J_j - min J) / temperature),  mean <- sum_j w_j a_j
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from planners.shooting import Shooting


@dataclass(frozen=True)
class MPPI(Shooting):
    iterations: int = 1
    temperature: float = 1.0

    def weights(self, costs: Tensor) -> Tensor:
        """(b, n) -> (b, n), each row summing to 1."""
        return torch.softmax(-(costs - costs.min(1, keepdim=True).values) / self.temperature, 1)

    def refit(self, mean: Tensor, std: Tensor, actions: Tensor, costs: Tensor) -> tuple[Tensor, Tensor]:
        return (self.weights(costs)[:, :, None, None] * actions).sum(1), std
