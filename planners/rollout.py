"""predict + actions -> cost of every candidate: the one hot loop."""

import torch
from torch import Tensor

from planners.planner import Cost, Predict


def evaluate(predict: Predict, cost: Cost, s: Tensor, actions: Tensor) -> Tensor:
    """s (b, s), actions (b, n, h, a) -> total cost (b, n). A candidate whose prediction or cost is not finite costs +inf."""
    b, n, horizon, _ = actions.shape
    s = s[:, None].expand(b, n, -1)
    total = torch.zeros(b, n)
    # Each step's actions in rows of their own: the dynamics read them component by component.
    steps = actions.permute(2, 3, 0, 1).contiguous().permute(0, 2, 3, 1)
    for t in range(horizon):
        s_next = predict(s, steps[t])
        total += cost(s, steps[t], s_next)
        s = s_next
    return torch.where(total.isfinite(), total, torch.inf)
