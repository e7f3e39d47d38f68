"""What may reach the robot.

    good plan                 its first action, clipped to the bounds
    plan failed or late       hold: the next action of the last good plan, for at most `hold` steps in a row
    still failing             relax: a <- safe + relax (a - safe), every step, towards the safe action

Whatever goes in, what comes out is finite and within bounds.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

OK, THETA, HOLD, RELAX, RIGHT, BLIND = 0, 1, 2, 3, 4, 5
EVENTS = ("ok", "theta", "hold", "relax", "right", "blind")  # names of the codes, as diagnostics report them


class GuardMemory(NamedTuple):
    plan: Tensor  # (b, h, a), the last good plan
    failures: Tensor  # (b,) int, steps since it was made
    action: Tensor  # (b, a), the last action sent


@dataclass(frozen=True)
class Guard:
    """low, high and safe are (a,). hold in steps; relax in [0, 1)."""

    low: Tensor
    high: Tensor
    safe: Tensor
    hold: int = 3
    relax: float = 0.7

    def init(self, b: int, horizon: int) -> GuardMemory:
        safe = self.safe.expand(b, -1).clone()
        return GuardMemory(safe[:, None].expand(b, horizon, -1).clone(), torch.zeros(b, dtype=torch.int64), safe)

    def step(self, memory: GuardMemory, plan: Tensor, good: Tensor) -> tuple[Tensor, GuardMemory, Tensor]:
        """plan (b, h, a), good (b,) bool -> action (b, a), memory, event (b,) of OK, HOLD, RELAX. A good plan is kept as it is, not copied:
        do not write into it."""
        good = good & plan.isfinite().all(-1).all(-1)
        if good.all():  # what follows, in few operations
            action = torch.minimum(torch.maximum(plan[:, 0], self.low), self.high)
            return (
                action,
                GuardMemory(plan, torch.zeros_like(memory.failures), action),
                torch.full_like(memory.failures, OK),
            )
        failures = torch.where(good, 0, memory.failures + 1)
        kept = torch.where(good[:, None, None], plan, memory.plan)
        b, h, _ = kept.shape
        held = kept[torch.arange(b), failures.clamp_max(h - 1)]
        relaxed = self.safe + self.relax * (memory.action - self.safe)
        holding = (failures <= min(self.hold, h - 1))[:, None]
        action = torch.where(holding, held, relaxed)
        action = torch.minimum(torch.maximum(action, self.low), self.high)
        event = torch.where(failures == 0, OK, torch.where(holding[:, 0], HOLD, RELAX))
        return action, GuardMemory(kept, failures, action), event
