"""The cross-entropy method (Rubinstein 1999; as a planner: Chua et al. 2018): refit a Gaussian to the elites.

mean, std <- moments of the `elites` cheapest candidates
"""

from dataclasses import dataclass

from torch import Tensor

from planners.shooting import Shooting, _take


@dataclass(frozen=True)
class CEM(Shooting):
    elites: int = 16
    momentum: float = 0.1

    def refit(self, mean: Tensor, std: Tensor, actions: Tensor, costs: Tensor) -> tuple[Tensor, Tensor]:
        cheapest = costs.topk(self.elites, dim=1, largest=False)
        elite = _take(actions, cheapest.indices)
        weight = cheapest.values.isfinite().float()  # fewer than `elites` may have survived
        weight = (weight / weight.sum(1, keepdim=True))[:, :, None, None]
        centre = (weight * elite).sum(1)
        spread = (weight * (elite - centre[:, None]).square()).sum(1).sqrt()
        new = 1 - self.momentum
        return mean + new * (centre - mean), std + new * (spread - std)
