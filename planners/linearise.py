"""What NMPC needs of a model: how far it misses the next node, and its Jacobians, in the state's tangent coordinates.

    gap(x, u) = local(s_{k+1}, f(retract(s_k, x), a_k + u))          at x = 0, u = 0

local(s_{k+1}, .) and not local(f(s_k, a_k), .), so that gaps add up along the horizon whatever their size. From a torch model
(`from_predict`) or a CasADi function (planners.symbolic): the planner cannot tell which.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from planners.condense import Expansion
from planners.planner import Predict

# nodes (b, n + 1, s), actions (b, n, a) -> gaps (b, n, d) and their Jacobians
Linearise = Callable[[np.ndarray, np.ndarray], Expansion]
# states (b, n, s) that follow on actions (b, n, a), -> weighted residuals (b, n, m) and their Jacobians
LeastSquares = Callable[[np.ndarray, np.ndarray], Expansion]


class Tangent(Protocol):
    """A state space's retract and local, in numpy."""

    def retract(self, s: np.ndarray, delta: np.ndarray) -> np.ndarray:
        """(b, n, s), (b, n, d) -> (b, n, s)."""
        ...

    def local(self, s: np.ndarray, s_next: np.ndarray) -> np.ndarray:
        """(b, n, s), (b, n, s) -> (b, n, d)."""
        ...


Retract = Callable[[Tensor, Tensor], Tensor]  # s (*b, s), delta (*b, d) -> (*b, s)
Local = Callable[[Tensor, Tensor], Tensor]  # s (*b, s), s_next (*b, s) -> (*b, d)


class TorchTangent(NamedTuple):
    """Of torch maps."""

    torch_retract: Retract
    torch_local: Local

    def retract(self, s: np.ndarray, delta: np.ndarray) -> np.ndarray:
        return self.torch_retract(torch.as_tensor(s), torch.as_tensor(delta)).numpy()

    def local(self, s: np.ndarray, s_next: np.ndarray) -> np.ndarray:
        return self.torch_local(torch.as_tensor(s), torch.as_tensor(s_next)).numpy()


def from_predict(
    predict: Predict, retract: Retract, local: Local, n_delta: int, dtype: torch.dtype = torch.float32
) -> Linearise:
    """Jacobians of a differentiable `predict` in reverse mode: each node d times, once for every component of its gap, through one
    forward and one backward pass. Node for node the same numbers as vmap(jacrev(predict)), without the dispatch that vmap adds to
    every operation, which at these sizes takes longer than the operations. Asks of predict what planners always do: rows of a robot
    that do not see each other."""

    def linearise(nodes: np.ndarray, actions: np.ndarray) -> Expansion:
        s, a = torch.as_tensor(nodes, dtype=dtype), torch.as_tensor(actions, dtype=dtype)
        (b, n, _), d = a.shape, n_delta
        with torch.enable_grad():
            x = torch.zeros(b, n * d, d, dtype=dtype, requires_grad=True)
            u = _repeat(a, d).requires_grad_()
            gap = local(_repeat(s[:, 1:], d), predict(retract(_repeat(s[:, :-1], d), x), u)).unflatten(1, (n, d))
            by_state, by_action = torch.autograd.grad(gap.diagonal(dim1=-2, dim2=-1).sum(), (x, u))
        parts = gap[:, :, 0].detach(), by_state.unflatten(1, (n, d)), by_action.unflatten(1, (n, d))
        return Expansion(*(part.numpy().astype(float) for part in parts))

    return linearise


def from_residual(
    residual: Callable[[Tensor, Tensor], Tensor], retract: Retract, n_delta: int, n_residual: int
) -> LeastSquares:
    """residual (b, n, s), (b, n, a) -> (b, n, m), differentiable, each row on its own but for its place along n (where the reference
    differs): it sees every row as often as there are residuals, (b, n, m, .)."""

    def expand(states: np.ndarray, actions: np.ndarray) -> Expansion:
        s, a = torch.as_tensor(states), torch.as_tensor(actions)
        (b, n, _), m = a.shape, n_residual
        with torch.enable_grad():
            x = torch.zeros(m, b, n, n_delta, dtype=s.dtype, requires_grad=True)
            u = a.expand(m, *a.shape).clone().requires_grad_()
            value = residual(retract(s.expand(m, *s.shape), x), u)
            by_state, by_action = torch.autograd.grad(value.diagonal(dim1=0, dim2=-1).sum(), (x, u), allow_unused=True)
        zero = torch.zeros_like
        parts = (zero(x) if by_state is None else by_state), (zero(u) if by_action is None else by_action)
        return Expansion(value[0].detach().numpy(), *(p.permute(1, 2, 0, 3).numpy() for p in parts))

    return expand


def _repeat(x: Tensor, times: int) -> Tensor:
    """(b, n, .) -> (b, n times, .), each row `times` times in a row."""
    return x[:, :, None].expand(-1, -1, times, -1).flatten(1, 2)
