"""MLP.stepper and scalar.of as a function each in C, compiled for this processor and these sizes: layers.c, step.c, scalar.c, and the space's maps.

torch multiplies large matrices about as fast as can be; but with a hundred candidates what is between the products takes as long as they do, and
with thousands their layers' outputs leave the cache.
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from dynamics.types import Params, Phi
from native.build import NATIVE, library
from robots.space import StateSpace

FLAGS = ("-O3", NATIVE, "-ffp-contract=fast", "-fno-math-errno")
POINTER, NUMBER = ctypes.c_void_p, ctypes.c_long
PANEL = 8  # outputs that weights are padded to: a multiple of every R below
# Numbers in a register; outputs whose sums are kept in registers together, R x B / LANES of these; candidates in a block.
TILES = """#include <math.h>
#if defined(__AVX512F__)
enum { LANES = 16, R = 8, B = 32 };
#elif defined(__AVX2__) && defined(__FMA__)
enum { LANES = 8, R = 4, B = 24 };
#else
#error "not tried on this processor"
#endif
"""


def stepper(
    space: StateSpace, width: int, depth: int, phi: Phi, neutral: Tensor, clip: float
) -> Callable[[Tensor, Tensor], Tensor] | None:
    """What MLP.stepper returns, in float32 and of an ensemble of one; None where it cannot be compiled. neutral (n_acting,): the gain where phi has
    none. Several threads may call it at once. It raises ValueError on wrong shapes."""
    compiled = _step(space, width, depth, len(neutral) - space.n_action, clip)
    if compiled is None:
        return None
    own = max((w.shape[0] for w in phi.net.values() if w.dim() == 4), default=1)  # robots with weights of their own
    nets = [{n: w[i, 0] if w.dim() == 4 else w[0] for n, w in phi.net.items()} for i in range(own)]
    norm = (phi.norm["x_mean"], 1 / phi.norm["x_std"], phi.norm["d_mean"], phi.norm["d_std"])
    packed = [_packed(compiled, norm, _layers(net, depth)) for net in nets]
    acting = (neutral[None] if phi.gain is None else phi.gain).expand(-1, len(neutral)).float().contiguous()
    n_state, n_action = space.n_state, space.n_action

    def predict(s: Tensor, a: Tensor) -> Tensor:
        b, n, _ = s.shape
        # C would read on beyond the end of what is too small.
        if s.shape[2] != n_state or a.shape != (b, n, n_action) or own not in (1, b) or len(acting) not in (1, b):
            raise ValueError(
                f"states {tuple(s.shape)} and actions {tuple(a.shape)} for the weights of {own} robots and the gains of {len(acting)}; "
                f"wanted (b, n, {n_state}) and (b, n, {n_action}), and of these b or 1"
            )
        gain = acting if len(acting) == b else acting.expand(b, -1).contiguous()
        s, a = s.permute(2, 0, 1).float().contiguous(), a.permute(2, 0, 1).float().contiguous()
        out, share = torch.empty_like(s), b * n // own
        for i, weights in enumerate(packed):
            data = weights.data_ptr(), gain.data_ptr(), s.data_ptr(), a.data_ptr(), out.data_ptr()
            compiled.step(*data, b * n, n, i * share, (i + 1) * share)
        return out.permute(1, 2, 0)

    return predict


def scalar(space: StateSpace, net: Params, clip: float) -> Callable[[Tensor], Tensor] | None:
    """What scalar.of returns; None where it cannot be compiled. It raises RuntimeError on a wrong shape."""
    compiled = _scalar(space, *net["W0"].shape, clip)
    if compiled is None:
        return None
    weights = _packed(compiled, (net["mean"], 1 / net["std"]), [(net[f"W{i}"], net[f"b{i}"]) for i in range(3)])

    def predict(s: Tensor) -> Tensor:
        s = s.expand(*s.shape[:-1], space.n_state).movedim(-1, 0).float().contiguous()
        out = torch.empty(s.shape[1:])
        compiled.scalar(weights.data_ptr(), s.data_ptr(), out.data_ptr(), out.numel())
        return out

    return predict


def _layers(net: Params, depth: int) -> list[tuple[Tensor, Tensor]]:
    """W{i} (in, out), b{i} (1, out), K (n_psi, d) -> weights and bias of each layer."""
    layers = [(net[f"W{i}"], net[f"b{i}"]) for i in range(depth)]
    # The 1 of psi. NaN or infinite weights make it NaN, and so reach the delta whatever is in between.
    one = 1 + 0 * sum((w.sum() for layer in layers for w in layer), torch.zeros(()))
    return [*layers, (net["K"][:-1], net["K"][-1] * one)]


def _packed(compiled: ctypes.CDLL, norm: Sequence[Tensor], layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """As C reads them: normalisers, then each layer's weights (in, out) and bias. Raises ValueError on a wrong shape."""
    panels = [(len(w) + 1) * -(-w.shape[1] // PANEL) * PANEL for w, _ in layers]
    out = torch.cat((*(x.float() for x in norm), torch.empty(sum(panels))))
    at = len(out) - sum(panels)
    for pair in layers:
        w, bias = (x.float().contiguous() for x in pair)
        at += compiled.pack(w.data_ptr(), bias.data_ptr(), *w.shape, out[at:].data_ptr())
    if at != compiled.numbers():
        raise ValueError(f"weights of shapes {[tuple(w.shape) for w, _ in layers]} are not this model's")
    return out


@cache
def _step(space: StateSpace, width: int, depth: int, body: int, clip: float) -> ctypes.CDLL | None:
    sizes = {"N_ACTION": space.n_action, "N_BODY": body, "N_DELTA": space.n_delta, "WIDTH": width, "DEPTH": depth}
    compiled = _compiled(space, "step.c", clip, sizes)
    if compiled is not None:
        compiled.step.argtypes, compiled.step.restype = [POINTER] * 5 + [NUMBER] * 4, None
    return compiled


@cache
def _scalar(space: StateSpace, seen: int, width: int, clip: float) -> ctypes.CDLL | None:
    compiled = _compiled(space, "scalar.c", clip, {"N_SEEN": seen, "WIDTH": width})
    if compiled is not None:
        compiled.scalar.argtypes, compiled.scalar.restype = [POINTER] * 3 + [NUMBER], None
    return compiled


def _compiled(space: StateSpace, file: str, clip: float, sizes: dict[str, int]) -> ctypes.CDLL | None:
    """None where native.build makes none, or the space has no C."""
    if space.native is None:
        return None
    sizes = {"N_STATE": space.n_state, "N_FEATURE": space.n_feature} | sizes
    macros = "".join(f"#define {name} {value}\n" for name, value in sizes.items()) + f"#define CLIP {clip}f\n"
    here = Path(__file__).parent
    sources = (path.read_text() for path in (space.native, here / "layers.c", here / file))
    try:
        path = library("\n".join((macros, TILES, *sources)), FLAGS)
        compiled = None if path is None else ctypes.CDLL(str(path))
    except OSError:  # in a folder that nothing may be run from
        return None
    if compiled is not None:
        compiled.numbers.argtypes, compiled.numbers.restype = [], NUMBER
        compiled.pack.argtypes, compiled.pack.restype = [POINTER, POINTER, NUMBER, NUMBER, POINTER], NUMBER
    return compiled
