"""Random shooting (Nagabandi et al. 2018): the best of n candidates around the shifted plan; with std wide, of n random ones."""

from dataclasses import dataclass

from torch import Tensor

from planners.shooting import Shooting


@dataclass(frozen=True)
class RandomShooting(Shooting):
    iterations: int = 1

    def refit(self, mean: Tensor, std: Tensor, actions: Tensor, costs: Tensor) -> tuple[Tensor, Tensor]:
        best = costs.argmin(1)[:, None, None, None].expand(-1, 1, *actions.shape[2:])
        return actions.gather(1, best)[:, 0], std
