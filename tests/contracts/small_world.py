"""A small random network that is the true physics too: the world is theta with other motor gains or another last layer,
so that what an adapter ought to find is known."""

import pytest
import torch
from torch import Tensor

from dynamics.adapt.effectiveness import Effectiveness
from dynamics.adapt.frozen import Frozen
from dynamics.adapt.gradient import GrBAL, OnlineSGD
from dynamics.adapt.last_layer import LastLayer
from dynamics.mlp import MLP
from dynamics.types import Adapter, Phi, Theta, Transitions, as_phi
from robots.space import FloatingBase

B, K = 3, 12  # robots, context
MODELS = {
    "e=1": MLP(FloatingBase(8, 8), width=16, depth=2),
    "e=3": MLP(FloatingBase(8, 8), width=16, depth=2, ensemble=3),
    "a body": MLP(FloatingBase(8, 8), width=16, depth=2, body=4),
}
ADAPTERS = {
    "frozen": Frozen,
    "online-sgd": OnlineSGD,
    "grbal": GrBAL,
    "grbal, 3 steps": lambda model: GrBAL(model, steps=3),
    "last-layer": LastLayer,
    "effectiveness": Effectiveness,
    "effectiveness+last-layer": lambda model: LastLayer(model, after=Effectiveness(model)),
}
each_adapter = pytest.mark.parametrize("name", ADAPTERS)
each_ensemble = pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))


def make_theta(model: MLP, seed: int = 0) -> Theta:
    """Random weights whose outputs have unit variance, and every adapter's fresh meta parameters."""
    rng, space = torch.Generator().manual_seed(seed), model.space
    net = model.init(rng)
    net["K"] = torch.randn(net["K"].shape, generator=rng) / model.n_psi**0.5
    if model.body:  # they mean something
        net["W0"][:, -model.body :] = torch.randn(1, model.body, model.width, generator=rng) * (2 / model.n_in) ** 0.5
    norm = {
        "x_mean": torch.zeros(space.n_feature), "x_std": torch.ones(space.n_feature),
        "d_mean": torch.full((space.n_delta,), 0.01), "d_std": torch.full((space.n_delta,), 0.1),
    }  # fmt: skip
    theta = Theta(net, norm, {"effectiveness.sigma": torch.full((space.n_delta,), 0.05)})
    for kind in (OnlineSGD, GrBAL, LastLayer, Effectiveness):
        theta = theta._replace(meta=theta.meta | kind(model).meta(theta))
    return theta


def with_meta(theta: Theta, values: dict[str, float | Tensor]) -> Theta:
    """theta with meta parameters set: all those whose name contains the key."""
    meta = dict(theta.meta)
    for key, value in values.items():
        names = [n for n in meta if key in n]
        assert names, key
        meta |= {n: torch.as_tensor(value).expand_as(meta[n]).clone() for n in names}
    return theta._replace(meta=meta)


def states(model: MLP, b: int, k: int, rng: torch.Generator) -> Tensor:
    """(b, k, s), unrelated to each other, rotations included."""
    s = torch.zeros(b, k, model.space.n_state)
    if isinstance(model.space, FloatingBase):
        s[..., 3] = s[..., 8] = 1
    return model.space.retract(s, 0.7 * torch.randn(b, k, model.space.n_delta, generator=rng))


def live(model: MLP, world: Phi, b: int = B, k: int = K, seed: int = 0) -> Transitions:
    """(b, k, .) transitions of the world, noiseless; a world's own tensors may lead with b."""
    rng = torch.Generator().manual_seed(1000 + seed)
    s = states(model, b, k, rng)
    a = torch.rand(b, k, model.space.n_action, generator=rng) * 2 - 1
    s_next = model.space.retract(s, model.predict(world, s, a).mean)
    return Transitions(s, a, s_next, torch.ones(b, k, dtype=torch.bool))


def broken(theta: Theta, b: int = B, seed: int = 0) -> Phi:
    """A world of weak and reversed motors, and of other bodies, another for every robot."""
    rng = torch.Generator().manual_seed(seed)
    gain, body = torch.rand(b, 8, generator=rng) * 2 - 1, theta.net["W0"].shape[-2] - 34
    return Phi(theta.net, theta.norm, torch.cat((gain, torch.rand(b, body, generator=rng)), 1))


def tick(t: Transitions, last: int, k: int = K) -> Transitions:
    """What a robot remembers once transition number `last` is over: the k newest, padded with zeros at the front."""
    cut = [x[:, max(0, last + 1 - k) : last + 1] for x in t]
    return Transitions(*(torch.cat((x.new_zeros(x.shape[0], k - x.shape[1], *x.shape[2:]), x), 1) for x in cut))


def run(adapter: Adapter, theta: Theta, t: Transitions, k: int = K) -> tuple[Phi, object]:
    """Adapt after every transition, as the controller does."""
    carry, phi = adapter.init(theta, t.mask.shape[0]), as_phi(theta)
    for last in range(t.mask.shape[1]):
        phi, carry = adapter.adapt(theta, carry, tick(t, last, k))
    return phi, carry


def joined(*parts: Transitions) -> Transitions:
    return Transitions(*(torch.cat(x, 1) for x in zip(*parts, strict=True)))


def predict(model: MLP, phi: Phi, b: int = B) -> Tensor:
    """(b, 20, d) what phi says of the normalised delta, at the same 20 states and actions whatever phi is."""
    rng = torch.Generator().manual_seed(99)
    s = states(model, 1, 20, rng).expand(b, -1, -1)
    a = (torch.rand(1, 20, model.space.n_action, generator=rng) * 2 - 1).expand(b, -1, -1)
    return model.normalised(phi, s, a).mean(1)


def error(model: MLP, phi: Phi, t: Transitions) -> Tensor:
    """(b,) mean squared normalised error."""
    return (model.normalised(phi, t.s, t.a).mean(1) - model.target(phi, t.s, t.s_next)).square().mean((1, 2))


def relearned(model: MLP, theta: Theta, b: int, std: float, seed: int = 0) -> Phi:
    """Worlds with another last layer, of std around theta's, the same change in every member. K is (b, e, n_psi, d)."""
    rng = torch.Generator().manual_seed(seed)
    change = torch.randn(b, 1, model.n_psi, model.space.n_delta, generator=rng) * std
    return Phi(theta.net | {"K": theta.net["K"] + change}, theta.norm)


GAINS = torch.tensor([[1, 1, 0, 0, 1, 1, 1, 1], [1, -1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0.3, 0.3, 1, 1]])
BODY = torch.tensor([[0, 0.5, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]])


def gains(model: MLP) -> Tensor:
    return torch.cat((GAINS, BODY[:, : model.body]), 1)
