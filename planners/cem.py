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
        elite = _take(actions, costs.topk(self.elites, dim=1, largest=False).indices)
        new = 1 - self.momentum
        return mean + new * (elite.mean(1) - mean), std + new * (elite.std(1, correction=0) - std)
