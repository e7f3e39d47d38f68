"""A small model of the ant: random weights with heads that matter, normalised for a walk."""

import pytest
import torch

from dynamics.mlp import MLP
from dynamics.types import Theta, Transitions
from robots.space import FloatingBase
from robots.symmetry import ant

SPACE = FloatingBase(8, 8)
each_ensemble = pytest.mark.parametrize("e", [1, 3])


def make_theta(model: MLP, walk: Transitions, symmetric: bool = False) -> Theta:
    """Random weights with heads that matter, float32; normalised for the walk."""
    rng = torch.Generator().manual_seed(0)
    net = model.init(rng)
    for head, scale in (("K", 1.0), ("V", 0.3)):
        net[head] = scale * torch.randn(net[head].shape, generator=rng) / model.n_psi**0.5
    s, s_next = (x.float().flatten(0, 1) for x in (walk.s, walk.s_next))
    return Theta(net, model.fit_norm(s, s_next, ant() if symmetric else ()), {})
