"""A small network from what a task may depend on (StateSpace.directed) to one number: what values and risks are made of."""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dynamics import fused
from dynamics.mlp import CLIP
from dynamics.types import Params
from robots.space import StateSpace
from robots.symmetry import Symmetry

DISTIL_STEPS, DISTIL_BATCH = 8000, 1024


def images(symmetries: Sequence[Symmetry], n: int) -> Tensor:
    """(g, n, n) of what is seen; the identity alone where there are none."""
    return torch.stack([g.directed for g in symmetries]) if symmetries else torch.eye(n)[None]


def imaged(x: Tensor, images: Tensor, allowed: Tensor, rng: torch.Generator) -> Tensor:
    """(n, i), (g, i, i), (n,) bool -> (n, i): a random image of each row for which that is allowed."""
    image = torch.randint(len(images), (len(x),), generator=rng)
    return torch.einsum("bij,bj->bi", images[torch.where(allowed, image, 0)], x)


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


def distilled(nets: Sequence[Params], x: Tensor, images: Tensor, allowed: Tensor, rng: torch.Generator) -> Params:
    """One network, as wide as those of `nets`, for their mean, fitted where they were: to rows x (n, i) and those of their images that are allowed
    (n,) bool. What each of them learned of noise differs from fit to fit, and a planner looks for the largest error (cf. Hinton, Vinyals, Dean
    2015, Distilling the Knowledge in a Neural Network). A single one is itself."""
    if len(nets) == 1:
        return nets[0]
    net = init(torch.cat([x @ g.T for g in images]), nets[0]["W0"].shape[1], rng)
    optimiser = torch.optim.Adam(trained(net), lr=1e-3)
    for step in range(DISTIL_STEPS):
        optimiser.param_groups[0]["lr"] = 1e-3 * (1 - 0.98 * step / DISTIL_STEPS)
        at = torch.randint(len(x), (DISTIL_BATCH,), generator=rng)
        seen = imaged(x[at], images, allowed[at], rng)
        with torch.no_grad():
            goal = torch.stack([apply(n, seen) for n in nets]).mean(0)
        loss = (apply(net, seen) - goal).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {n: w.detach() for n, w in net.items()}


def of(space: StateSpace, net: Params) -> Callable[[Tensor], Tensor]:
    """-> f(s (*b, s)) -> (*b), for planning: one function in C (dynamics.fused), where the machine can compile it, and then without a gradient."""

    def slow(s: Tensor) -> Tensor:
        return apply(net, space.directed(s).reshape(s.shape[:-1].numel(), -1)).view(s.shape[:-1])

    return fused.scalar(space, net, CLIP) or slow
