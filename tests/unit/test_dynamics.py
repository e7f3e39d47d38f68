"""Laws of the learned model: its normaliser, its derivatives, its losses, its ensemble, its parameters of the body."""

import numpy as np
import pytest
import torch
from small_model import SPACE, each_ensemble, make_theta
from torch import Tensor

from dynamics.adapt.effectiveness import normal_equations
from dynamics.losses import multi_step
from dynamics.mlp import LOG_STD, MLP, mul
from dynamics.types import Phi, Theta, Transitions, as_phi, map_params
from robots.symmetry import ant


def double(theta: Theta) -> Theta:
    return Theta(*(map_params(Tensor.double, group) for group in theta))


def test_normalise_then_denormalise_is_the_identity(walk):
    model = MLP(SPACE, 16, 2)
    theta = double(make_theta(model, walk))
    y = model.target(theta, walk.s, walk.s_next)
    assert y.abs().max() < 15  # nothing was clamped
    back = SPACE.retract(walk.s, theta.norm["d_mean"] + theta.norm["d_std"] * y)
    torch.testing.assert_close(back, walk.s_next, atol=1e-9, rtol=0)
    torch.testing.assert_close(y.flatten(0, 1).mean(0), torch.zeros(28).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(y.flatten(0, 1).std(0), torch.ones(28).double(), atol=1e-3, rtol=0)
    x = model.inputs(theta, walk.s, walk.a)
    assert torch.equal(x[..., 26:], walk.a)
    features = theta.norm["x_mean"] + theta.norm["x_std"] * x[..., :26]
    torch.testing.assert_close(features, SPACE.features(walk.s), atol=1e-12, rtol=0)


def test_a_normaliser_fitted_with_symmetries_is_symmetric(walk):
    norm = make_theta(MLP(SPACE, 16, 2), walk, symmetric=True).norm
    for g in ant():
        for kind, matrix in (("x", g.features), ("d", g.delta)):
            torch.testing.assert_close(matrix @ norm[f"{kind}_mean"], norm[f"{kind}_mean"], atol=1e-5, rtol=0)
            torch.testing.assert_close(matrix.abs() @ norm[f"{kind}_std"], norm[f"{kind}_std"], atol=0, rtol=1e-4)


@each_ensemble
def test_the_jacobian_of_predict_is_the_finite_difference(e, walk):
    model = MLP(SPACE, 16, 2, e)
    theta = double(make_theta(model, walk))
    phi = Phi(theta.net, theta.norm, torch.linspace(-1, 1, 8).double()[None])
    s, a = walk.s[:1, 20:21], walk.a[:1, 20:21]

    def flat(x: Tensor) -> Tensor:
        out = model.predict(phi, x[None, None, :31], x[None, None, 31:])
        return torch.cat(out, -1)[0, 0]

    at, step = torch.cat((s, a), -1)[0, 0], 1e-6
    jacobian = torch.autograd.functional.jacobian(flat, at)
    moves = step * torch.eye(39).double()
    differences = torch.stack([(flat(at + d) - flat(at - d)) / (2 * step) for d in moves], 1)
    torch.testing.assert_close(jacobian, differences, atol=1e-7, rtol=1e-6)
    assert jacobian[:, 2:3].abs().max() > 1e-3 and jacobian[:, 31:].abs().max() > 1e-3
    assert (jacobian[:, :2] == 0).all()  # the world's x and y


@pytest.mark.parametrize("body", [0, 4])
@each_ensemble
def test_normal_equations_are_those_of_the_true_jacobian(e, body, walk):
    model = MLP(SPACE, 16, 3, e, body)
    theta = double(make_theta(model, walk))
    rng = torch.Generator().manual_seed(0)
    theta.net["W0"][:, 34:] = torch.randn(e, body, 16, generator=rng, dtype=torch.float64)
    theta.net["K"][:, 50 : 50 + body] = torch.randn(e, body, 28, generator=rng, dtype=torch.float64)
    gain = torch.rand(8, 8 + body, generator=rng, dtype=torch.float64) * 3 - 1.5
    sigma = torch.rand(28, generator=rng, dtype=torch.float64) + 0.2
    mask = torch.rand(8, 40, generator=rng) < 0.8
    h, r = normal_equations(model, theta.net, theta.norm, sigma, gain, walk._replace(mask=mask))
    y = model.target(theta, walk.s, walk.s_next)
    for i, t in ((0, 0), (3, 10), (5, 31), (7, 39)):

        def f(g: Tensor, i: int = i, t: int = t) -> Tensor:
            phi = Phi(theta.net, theta.norm, g[None])
            return (
                model.normalised(phi, walk.s[i : i + 1, t : t + 1], walk.a[i : i + 1, t : t + 1]).mean(1)[0, 0] / sigma
            )

        j = torch.func.jacrev(f)(gain[i])
        residual = (y[i, t] / sigma - f(gain[i])).clamp(-3, 3)
        torch.testing.assert_close(h[i, t], mask[i, t] * j.T @ j, atol=1e-10, rtol=1e-8)
        torch.testing.assert_close(r[i, t], mask[i, t] * j.T @ (residual + j @ gain[i]), atol=1e-10, rtol=1e-8)
    assert mask[[0, 3, 5, 7], [0, 10, 31, 39]].any()
    assert (h[~mask] == 0).all() and (r[~mask] == 0).all()


@each_ensemble
def test_a_rollout_of_one_step_is_regression(e, walk):
    model = MLP(SPACE, 16, 2, e)
    theta = make_theta(model, walk)
    future = Transitions(*(x[:, 5:6].float() for x in walk[:3]), torch.tensor([[True]] * 5 + [[False]] * 3))
    phi = as_phi(theta)
    mse, nll = multi_step(model, phi, future)
    error = model.normalised(phi, future.s, future.a) - model.target(phi, future.s, future.s_next)[:, None]
    torch.testing.assert_close(mse, error[:5].square().mean())
    psi = model.psi(theta.net, model.inputs(phi, future.s, future.a))
    std = mul(psi, theta.net["V"]).clamp(*LOG_STD).exp()
    density = torch.distributions.Normal(torch.zeros(()), std).log_prob(error)[:5].mean()
    torch.testing.assert_close(nll, -density - 0.5 * np.log(2 * np.pi))


def test_a_rollout_is_the_model_on_its_own_predictions(walk):
    model = MLP(SPACE, 16, 2)
    theta = make_theta(model, walk)
    gain = torch.linspace(-1, 1, 64).view(8, 8)
    phi, future = (
        Phi(theta.net, theta.norm, gain),
        Transitions(*(x[:, 5:9].float() for x in walk[:3]), walk.mask[:, 5:9]),
    )
    s, errors = future.s[:, :1], []
    for t in range(4):
        a = future.a[:, t : t + 1]
        errors.append(model.normalised(phi, s, a)[:, 0] - model.target(phi, s, future.s_next[:, t : t + 1]))
        s = SPACE.retract(s, model.predict(phi, s, a).mean)
    torch.testing.assert_close(multi_step(model, phi, future)[0], torch.stack(errors).square().mean())


@each_ensemble
def test_the_ensembles_prediction_is_the_moments_of_its_mixture(e, walk):
    model = MLP(SPACE, 16, 2, e)
    theta = make_theta(model, walk)
    s, a = walk.s[:, :4].float(), walk.a[:, :4].float()
    members = [
        MLP(SPACE, 16, 2).predict(Phi(map_params(lambda w, i=i: w[i : i + 1], theta.net), theta.norm), s, a)
        for i in range(e)
    ]
    mean, std = (torch.stack(x) for x in zip(*members, strict=True))
    both = model.predict(as_phi(theta), s, a)
    torch.testing.assert_close(both.mean, mean.mean(0))
    second = (std.square() + mean.square()).mean(0)
    torch.testing.assert_close(both.std, (second - mean.mean(0).square()).sqrt(), atol=1e-5, rtol=1e-4)


def test_parameters_of_the_body_mean_nothing_until_they_are_learned(walk):
    plain, model = MLP(SPACE, 16, 2, 3), MLP(SPACE, 16, 2, 3, body=4)
    net, rng = plain.init(torch.Generator().manual_seed(3)), torch.Generator().manual_seed(0)
    fresh, wide = model.init(torch.Generator().manual_seed(3)), model.widened(net)
    assert fresh.keys() == wide.keys() and all(torch.equal(fresh[n], wide[n]) for n in wide)
    norm = make_theta(plain, walk).norm
    s, a = (x.float() for x in walk[:2])
    gain = torch.rand(8, 12, generator=rng)
    expected = plain.predict(Phi(net, norm, gain[:, :8]), s, a)
    for got in (
        model.predict(Phi(wide, norm, gain), s, a),
        model.predict(Phi(wide, norm, gain * model.neutral.bool()), s, a),
    ):
        torch.testing.assert_close(got.mean, expected.mean)
        torch.testing.assert_close(got.std, expected.std)
    wide["W0"][:, -1] = 1.0
    assert not torch.allclose(model.predict(Phi(wide, norm, gain), s, a).mean, expected.mean)
    torch.testing.assert_close(model.predict(Phi(wide, norm), s, a).mean, plain.predict(Phi(net, norm), s, a).mean)
