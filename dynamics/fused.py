"""MLP.stepper as one function in C, compiled for this processor and this network: see fused.c.

torch multiplies matrices as fast as can be done, but what is around the products takes as long as they do where candidates are a hundred.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from dynamics.types import Params, Phi
from native.build import NATIVE, library
from robots.space import StateSpace

FLAGS = ("-O3", NATIVE, "-ffp-contract=fast", "-fno-math-errno")
# Candidates a block, numbers a register, and outputs whose sums stay in registers together: R * B / LANES of them, and a few more.
MOST = 8  # outputs
TILES = """#include <math.h>
#if defined(__AVX512F__)
enum { LANES = 16, R = 8, B = 32 };
#elif defined(__AVX2__) && defined(__FMA__)
enum { LANES = 8, R = 4, B = 24 };
#else
#error "no fused multiply-add, or not tried on this processor"
#endif
"""

def stepper(
    space: StateSpace, width: int, depth: int, phi: Phi, neutral: Tensor, clip: float
) -> Callable[[Tensor, Tensor], Tensor] | None:
    """What MLP.stepper returns, in float32, of an ensemble of one; None where it cannot be compiled. neutral (n_acting,): gains of motors and
    parameters of the body where phi has none. Several threads may call it at once."""
    compiled = _compiled(space, width, depth, len(neutral) - space.n_action, clip)
    if compiled is None:
        return None
    own = [w.shape[0] for w in phi.net.values() if w.dim() == 4]
    each = [{n: w[i, 0] if w.dim() == 4 else w[0] for n, w in phi.net.items()} for i in range(max(own, default=1))]
    packed = [_pack(compiled, net, phi.norm, depth) for net in each]
    acting = (neutral[None] if phi.gain is None else phi.gain).float()

    def predict(s: Tensor, a: Tensor) -> Tensor:
        b, n, _ = s.shape
        # What does not fit is refused here: C would read on beyond its end.
        s, a = s.expand(b, n, space.n_state), a.expand(b, n, space.n_action)
        s, a = (x.movedim(-1, 0).float().contiguous() for x in (s, a))
        gain, out, columns = acting.expand(b, -1).contiguous(), torch.empty_like(s), b * n
        share = columns // len(packed)  # candidates for each set of weights: all, or those of a robot
        for i, weights in enumerate(packed):
            compiled.step(
                *(x.data_ptr() for x in (weights, gain, s, a, out)), columns, n, i * share, (i + 1) * share
            )
        return out.movedim(0, -1)

    return predict


def _pack(compiled: ctypes.CDLL, net: Params, norm: Params, depth: int) -> Tensor:
    """One network's weights, W (in, out), b (1, out), K (n_psi, d), as fused.c reads them."""
    layers = [(net[f"W{i}"], net[f"b{i}"]) for i in range(depth)]
    # The 1 of psi. NaN or infinite weights make it NaN, and so reach the delta whatever lies between.
    one = 1 + 0 * sum((w.sum() for layer in layers for w in layer), torch.zeros(()))
    layers.append((net["K"][:-1], net["K"][-1] * one))
    head = torch.cat([norm["x_mean"], 1 / norm["x_std"], norm["d_mean"], norm["d_std"]])
    out = torch.empty(len(head) + sum((w.shape[0] + 1) * -(-w.shape[1] // MOST) * MOST for w, _ in layers))
    out[: len(head)] = head
    at = len(head)
    for w, bias in layers:
        w, bias = w.float().contiguous(), bias.float().contiguous()
        at += compiled.pack(w.data_ptr(), bias.data_ptr(), *w.shape, out[at:].data_ptr())
    return out


@cache
def _compiled(space: StateSpace, width: int, depth: int, body: int, clip: float) -> ctypes.CDLL | None:
    """None where there is none: see native.build, or the space has no C."""
    if space.native is None:
        return None
    sizes = {
        "N_STATE": space.n_state, "N_FEATURE": space.n_feature, "N_ACTION": space.n_action, "N_BODY": body,
        "N_DELTA": space.n_delta, "WIDTH": width, "DEPTH": depth, "CLIP": f"{clip}f",
    }  # fmt: skip
    macros = "".join(f"#define {name} {value}\n" for name, value in sizes.items())
    kernel = Path(__file__).with_name("fused.c")
    path = library("\n".join((macros + TILES, space.native.read_text(), kernel.read_text())), FLAGS)
    if path is None:
        return None
    compiled = ctypes.CDLL(str(path))
    pointer, number = ctypes.c_void_p, ctypes.c_long
    compiled.pack.argtypes, compiled.pack.restype = [pointer, pointer, number, number, pointer], number
    compiled.step.argtypes, compiled.step.restype = [pointer] * 5 + [number] * 4, None
    return compiled
