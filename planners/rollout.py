"""predict + actions -> cost of every candidate: the one hot loop."""

import torch
from torch import Tensor

from planners.planner import Cost, Predict, Terminal


def evaluate(predict: Predict, cost: Cost, s: Tensor, actions: Tensor, terminal: Terminal | None = None) -> Tensor:
    """s (b, s), actions (b, n, h, a) -> total cost (b, n) over the horizon and behind it, without a gradient. A candidate whose prediction or
    cost is not finite costs +inf."""
    b, n = actions.shape[:2]
    # Where n is a few hundred, what torch does around an operation takes as long as the operation; inference mode does less.
    with torch.inference_mode():
        s = s[:, None].expand(b, n, -1)
        # Each step's actions as contiguous rows (a, b, n): the dynamics read them component by component.
        steps = actions.permute(2, 3, 0, 1).contiguous().permute(0, 2, 3, 1).unbind(0)
        states = [s]
        for a in steps:
            states.append(predict(states[-1], a))
        # Scored at once, not step by step: a cost is many small operations. Components stay rows, as predict leaves them.
        path = torch.stack([x.movedim(-1, 0) for x in states]).movedim(1, -1)
        total = cost(path[:-1], torch.stack([a.movedim(-1, 0) for a in steps]).movedim(1, -1), path[1:]).sum(0)
        if terminal is not None:
            total = total + terminal(states[-1])
    return torch.where(total.isfinite() & states[-1].isfinite().all(-1), total, torch.inf)
