"""CasADi functions at many points at once, with numpy in and out: what NMPC needs of a model that is written in symbols."""

import threading
from collections.abc import Callable
from typing import Any

import casadi
import numpy as np

from planners.compiled import compiled

Map = Callable[[casadi.SX, casadi.SX], casadi.SX]


class Symbolic:
    """A CasADi function over many points at once, in numpy and without copies through CasADi's own matrices, which take longer
    than the function. Every thread has buffers of its own."""

    def __init__(self, function: casadi.Function):
        """All inputs are columns; outputs dense, columns or matrices. A long function is compiled, which takes seconds once on a machine."""
        self.function = compiled(function)
        self._threads = threading.local()

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Inputs (n, .) -> outputs (n, rows), or (n, rows, columns) where there is more than one column."""
        n = len(inputs[0])
        maps: dict[Any, tuple] = self._threads.__dict__
        if n not in maps:
            maps[n] = self._map(n)
        evaluate, given, got, _ = maps[n]
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
            buffer.set_arg(i, memoryview(x.data))
        for i, x in enumerate(got):
            buffer.set_res(i, memoryview(x.data))
        return evaluate, given, got, buffer


def expand_symbolic(
    f: Callable[..., casadi.SX], retract: Map, n_state: int, n_delta: int,
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


class SymbolicTangent:
    """planners.linearise.Tangent of CasADi maps: a tenth of the time of torch's."""

    def __init__(self, retract: Map, local: Map, n_state: int, n_delta: int):
        s, s_next, delta = (
            casadi.SX.sym("s", n_state),
            casadi.SX.sym("s_next", n_state),
            casadi.SX.sym("delta", n_delta),
        )
        self._retract = Symbolic(casadi.Function("retract", [s, delta], [retract(s, delta)]))
        self._local = Symbolic(casadi.Function("local", [s, s_next], [local(s, s_next)]))

    def retract(self, s: np.ndarray, delta: np.ndarray) -> np.ndarray:
        return _over(self._retract, s, delta)

    def local(self, s: np.ndarray, s_next: np.ndarray) -> np.ndarray:
        return _over(self._local, s, s_next)


def _over(f: Symbolic, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    b, n, _ = x.shape
    (out,) = f(x.reshape(b * n, -1), y.reshape(b * n, -1))
    return out.reshape(b, n, -1)
