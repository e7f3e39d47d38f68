"""The cross-entropy method (Rubinstein 1999; as a planner: Chua et al. 2018): refit a Gaussian to the elites.

mean, std <- moments of the `elites` cheapest candidates, each alike or weighed by its rank as CMA-ES does (Hansen 2016, The CMA Evolution
Strategy: A Tutorial, eq. 49)
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from planners.shooting import Shooting, _take

Weighting = Literal["even", "rank"]


@dataclass(frozen=True)
class CEM(Shooting):
    elites: int = 16
    momentum: float = 0.1
    weighting: Weighting = "even"

    def refit(self, mean: Tensor, std: Tensor, actions: Tensor, costs: Tensor) -> tuple[Tensor, Tensor]:
        cheapest = costs.topk(self.elites, dim=1, largest=False)  # the best one first
        elite = _take(actions, cheapest.indices)
        weight = cheapest.values.isfinite().float()  # fewer than `elites` may have survived
        if self.weighting == "rank":
            weight = weight * (math.log(self.elites + 0.5) - torch.arange(1.0, self.elites + 1).log())
        weight = (weight / weight.sum(1, keepdim=True))[:, :, None, None]
        centre = (weight * elite).sum(1)
        spread = (weight * (elite - centre[:, None]).square()).sum(1).sqrt()
        new = 1 - self.momentum
        return mean + new * (centre - mean), std + new * (spread - std)
