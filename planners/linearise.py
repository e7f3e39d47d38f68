"""What NMPC needs of a model: how far it misses the next node, and its Jacobians, in the state's tangent coordinates.

    gap(x, u) = local(s_{k+1}, f(retract(s_k, x), a_k + u))          at x = 0, u = 0

local(s_{k+1}, .) and not local(f(s_k, a_k), .), so that gaps add up along the horizon whatever their size. From a torch model
(`from_predict`) or a CasADi function (`Symbolic`): the planner cannot tell which.
"""

from collections.abc import Callable

import casadi
import numpy as np
import torch
from torch import Tensor

from planners.condense import Expansion
from planners.planner import Predict

# nodes (b, n + 1, s), actions (b, n, a) -> gaps (b, n, d) and their Jacobians
Linearise = Callable[[np.ndarray, np.ndarray], Expansion]
# states (b, n, s) that follow on actions (b, n, a), -> weighted residuals (b, n, m) and their Jacobians
LeastSquares = Callable[[np.ndarray, np.ndarray], Expansion]

Retract = Callable[[Tensor, Tensor], Tensor]  # s (*b, s), delta (*b, d) -> (*b, s)
Local = Callable[[Tensor, Tensor], Tensor]  # s (*b, s), s_next (*b, s) -> (*b, d)


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


class Symbolic:
    """A CasADi function over many points at once, in numpy and without copies through CasADi's own matrices, which take longer
    than the function. Calls share buffers, so one object belongs to one thread."""

    def __init__(self, function: casadi.Function):
        """All inputs are columns; outputs dense, columns or matrices."""
        self.function = function
        self._maps: dict[int, tuple] = {}

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Inputs (n, .) -> outputs (n, rows), or (n, rows, columns) where there is more than one column."""
        n = len(inputs[0])
        if n not in self._maps:
            self._maps[n] = self._map(n)
        evaluate, given, got, _ = self._maps[n]
        for place, x in zip(given, inputs, strict=True):
            place[:] = x
        evaluate()
        return [x[:, 0].copy() if x.shape[1] == 1 else x.swapaxes(1, 2).copy() for x in got]

    def _map(self, n: int) -> tuple:
        f = self.function
        buffer, evaluate = f.map(n).buffer()
        given = [np.zeros((n, f.size1_in(i))) for i in range(f.n_in())]
        got = [np.zeros((n, f.size2_out(i), f.size1_out(i))) for i in range(f.n_out())]  # CasADi's order: columns first
        for i, x in enumerate(given):
            buffer.set_arg(i, memoryview(x))
        for i, x in enumerate(got):
            buffer.set_res(i, memoryview(x))
        return evaluate, given, got, buffer


def expand_symbolic(
    f: Callable[..., casadi.SX], retract: Callable[[casadi.SX, casadi.SX], casadi.SX], n_state: int, n_delta: int,
    n_action: int, *parameters: int,
) -> Symbolic:  # fmt: skip
    """f(s, a, *parameters) -> value. The Symbolic maps s, a and the parameters to the value, its Jacobian by the tangent of s, and its
    Jacobian by a."""
    s, a, x = casadi.SX.sym("s", n_state), casadi.SX.sym("a", n_action), casadi.SX.sym("x", n_delta)
    p = [casadi.SX.sym(f"p{i}", size) for i, size in enumerate(parameters)]
    moved = f(retract(s, x), a, *p)
    out = [moved, casadi.jacobian(moved, x), casadi.jacobian(moved, a)]
    out = [casadi.densify(y) for y in casadi.substitute(out, [x], [casadi.SX.zeros(n_delta)])]
    return Symbolic(casadi.Function("expansion", [s, a, *p], out, {"cse": True}))
