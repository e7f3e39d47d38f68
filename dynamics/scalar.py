"""A small network from what a task may depend on (StateSpace.directed) to one number: what values and risks are made of."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from dynamics import fused
from dynamics.mlp import CLIP
from dynamics.types import Params
from robots.space import StateSpace


def init(x: Tensor, width: int, rng: torch.Generator) -> Params:
    """x (n, i) sets the normaliser. W{i} (in, out), b{i} (out), mean and std (i)."""
    sizes = (x.shape[1], width, width, 1)
    net: Params = {"mean": x.mean(0), "std": x.std(0).clamp_min(0.05)}
    for i, (n, m) in enumerate(itertools.pairwise(sizes)):
        net[f"W{i}"] = torch.randn(n, m, generator=rng) * (2.0 / n) ** 0.5 * (0.1 if m == 1 else 1.0)
        net[f"b{i}"] = torch.zeros(m)
    return net


def trained(net: Params) -> list[Tensor]:
    """The tensors an optimiser moves, their gradients asked for."""
    return [w.requires_grad_() for n, w in net.items() if n not in ("mean", "std")]


def shapes(space: StateSpace, net: Params) -> dict[str, torch.Size]:
    """What the tensors must look like, the width being what the first layer says."""
    n = space.directed(torch.zeros(space.n_state)).shape[0]
    width = net["W0"].shape[-1] if "W0" in net and net["W0"].dim() == 2 else 0
    sizes = {
        "mean": (n,),
        "std": (n,),
        "W0": (n, width),
        "b0": (width,),
        "W1": (width, width),
        "b1": (width,),
        "W2": (width, 1),
        "b2": (1,),
    }
    return {name: torch.Size(size) for name, size in sizes.items()}


def apply(net: Params, x: Tensor) -> Tensor:
    """(n, i) -> (n,)"""
    h = ((x - net["mean"]) / net["std"]).clamp(-CLIP, CLIP)
    h = torch.addmm(net["b0"], h, net["W0"]).relu_()
    h = torch.addmm(net["b1"], h, net["W1"]).relu_()
    return torch.addmm(net["b2"], h, net["W2"])[:, 0]


def of(space: StateSpace, net: Params) -> Callable[[Tensor], Tensor]:
    """-> f(s (*b, s)) -> (*b), for planning: one function in C (dynamics.fused), where the machine can compile it, and then without a gradient."""

    def slow(s: Tensor) -> Tensor:
        return apply(net, space.directed(s).reshape(s.shape[:-1].numel(), -1)).view(s.shape[:-1])

    return fused.scalar(space, net, CLIP) or slow
