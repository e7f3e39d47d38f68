"""CasADi functions at many points at once, with numpy in and out."""

import threading
from typing import Any

import casadi
import numpy as np

from native.compiled import compiled


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
