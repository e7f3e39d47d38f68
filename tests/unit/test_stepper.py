"""`stepper` is `predict`'s mean carried out by `retract`, without the checks and copies."""

import pytest
import torch

from dynamics.mlp import MLP
from dynamics.types import Gaussian, Params, Phi
from robots.space import Euclidean, FloatingBase

SPACE = FloatingBase(n_joints=8, n_action=8)


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_phi(model: MLP, own: tuple[str, ...], gain: bool, b: int) -> Phi:
    """own: prefixes of the tensors of which each of the b robots has its own."""
    net: Params = {}
    for i, (name, w) in enumerate(model.init(torch.Generator().manual_seed(0)).items()):
        net[name] = w + 0.1 * random(*w.shape, seed=i)
        if name.startswith(own):
            net[name] = net[name] + 0.02 * random(b, *w.shape, seed=100 + i)
    x, d = model.space.n_feature, model.space.n_delta
    norm = {
        "x_mean": random(x, seed=1), "x_std": 0.5 + random(x, seed=2).abs(),
        "d_mean": 0.01 * random(d, seed=3), "d_std": 0.1 * random(d, seed=4).abs(),
    }  # fmt: skip
    return Phi(net, norm, random(b, model.n_acting, seed=5) if gain else None)


def states(model: MLP, b: int, n: int) -> torch.Tensor:
    s = random(b, n, model.space.n_state, seed=6)
    if isinstance(model.space, FloatingBase):  # a rotation, not nine numbers
        f = torch.nn.functional.normalize(s[..., 3:6], dim=-1)
        u = torch.nn.functional.normalize(torch.linalg.cross(f, s[..., 6:9]), dim=-1)
        s = torch.cat((s[..., :3], f, u, s[..., 9:]), -1)
    return s


def dealt(model: MLP, phi: Phi, s: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """predict, with candidate j given to member j mod e alone."""
    e, out = model.ensemble, torch.empty_like(s)
    for i in range(min(e, s.shape[1])):
        net = {name: w[:, i : i + 1] if w.dim() == 4 else w[i : i + 1] for name, w in phi.net.items()}
        one: Gaussian = MLP(model.space, model.width, model.depth, body=model.body).predict(
            phi._replace(net=net), s[:, i::e], a[:, i::e]
        )
        out[:, i::e] = model.space.retract(s[:, i::e], one.mean)
    return out


@pytest.mark.parametrize("b, n", [(1, 10), (3, 8), (2, 2)])
@pytest.mark.parametrize("gain", [False, True])
@pytest.mark.parametrize("own", [(), ("K",), ("W", "b", "K")], ids=["shared", "own head", "own weights"])
@pytest.mark.parametrize("ensemble, body", [(1, 0), (3, 0), (1, 4), (3, 4)])
def test_equals_predict_and_retract(ensemble, body, own, gain, b, n):
    model = MLP(SPACE, width=24, depth=3, ensemble=ensemble, body=body)
    phi, s, a = random_phi(model, own, gain, b), states(model, b, n), random(b, n, SPACE.n_action, seed=7)
    expected = dealt(model, phi, s, a)
    step, rough = model.stepper(phi), model.stepper(phi, torch.bfloat16)
    torch.testing.assert_close(step(s, a), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(step(s, a), expected, atol=1e-5, rtol=1e-5)  # buffers used a second time
    torch.testing.assert_close(step(expected, a), dealt(model, phi, expected, a), atol=2e-5, rtol=1e-5)
    moved = (expected - s).square().mean().sqrt()
    assert (rough(s, a) - expected).square().mean().sqrt() < 0.03 * moved


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("space", [SPACE, Euclidean(3, 2)], ids=["floating base", "euclidean"])
def test_any_depth_and_space(space, depth):
    model = MLP(space, width=16, depth=depth)
    phi, s, a = random_phi(model, (), False, 1), states(model, 1, 5), random(1, 5, space.n_action, seed=7)
    torch.testing.assert_close(model.stepper(phi)(s, a), dealt(model, phi, s, a), atol=1e-5, rtol=1e-5)


def test_one_state_expanded_and_many_sizes():
    model = MLP(SPACE, width=16)
    phi = random_phi(model, (), False, 1)
    step = model.stepper(phi)
    for n in (4, 9, 4):
        s, a = states(model, 1, 1).expand(1, n, -1), random(1, n, SPACE.n_action, seed=n)
        torch.testing.assert_close(step(s, a), dealt(model, phi, s, a), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("bad", ["W0", "W1", "b1", "W2", "K"])
def test_weights_that_are_not_numbers_are_seen(bad, sign, dtype):
    model = MLP(SPACE, width=16)
    phi = random_phi(model, (), False, 1)
    phi.net[bad][..., 0] = torch.copysign(torch.tensor(torch.nan), torch.tensor(sign))
    out = model.stepper(phi, dtype)(states(model, 1, 4), torch.zeros(1, 4, SPACE.n_action))
    assert out.isnan().any(-1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_state_that_is_not_a_number_stays_alone(dtype):
    model = MLP(SPACE, width=16)
    phi, s = random_phi(model, (), False, 1), states(model, 1, 4)
    s[0, 1, 20] = -torch.nan
    out = model.stepper(phi, dtype)(s, torch.zeros(1, 4, SPACE.n_action))
    assert out.isnan().any(-1).tolist() == [[False, True, False, False]]
