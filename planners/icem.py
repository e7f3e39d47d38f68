"""iCEM (Pinneri et al. 2020, Sample-efficient Cross-Entropy Method for Real-time Planning): CEM with coloured noise, elites kept
over iterations and, shifted, over steps.

The original carries out the best candidate. Through a learned model the best of many is the one whose luck is largest: here the mean of the elites
is carried out by default, which falls less (docs/trials/ant.md)."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from planners.cem import CEM


@dataclass(frozen=True)
class ICEM(CEM):
    kept: int = 4
    execute: Literal["mean", "best"] = "mean"

    @property
    def keep(self) -> int:
        return self.kept

    def choose(self, mean: Tensor, best: Tensor) -> Tensor:
        return best if self.execute == "best" else mean
