"""What NMPC needs of a model that is written in symbols: a first order expansion, and the state space's tangent."""

from collections.abc import Callable

import casadi
import numpy as np

from native.symbolic import Symbolic

Map = Callable[[casadi.SX, casadi.SX], casadi.SX]


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
