"""The last layer by least squares: it finds the layer that the world has, forgets the one before, and can always be solved."""

from itertools import pairwise

import pytest
import torch
from small_world import (
    ADAPTERS,
    MODELS,
    B,
    K,
    broken,
    each_ensemble,
    error,
    gains,
    joined,
    live,
    make_theta,
    relearned,
    run,
    with_meta,
)
from torch import Tensor

from dynamics.adapt.frozen import Frozen
from dynamics.adapt.last_layer import LastLayer
from dynamics.mlp import MLP
from dynamics.types import Phi, Theta, Transitions, as_phi
from robots.space import Euclidean, FloatingBase

SMALL = {e: MLP(Euclidean(3, 2), width=16, depth=2, ensemble=e) for e in (1, 3)}
TRUSTING = {"last-layer.log_prior": 2.0, "last-layer.log_noise": -6.0, "last-layer.logit_gamma": 20.0}
each_small = pytest.mark.parametrize("model", SMALL.values(), ids=lambda m: f"e={m.ensemble}")


def make_linear(model: MLP) -> Theta:
    """theta whose members share their features: a change of the last layer is then linear in those of each."""
    theta = make_theta(model)
    net = {n: w[:1].expand_as(w).clone() if n.startswith(("W", "b")) else w for n, w in theta.net.items()}
    return with_meta(theta._replace(net=net), TRUSTING)


@each_small
def test_the_last_layer_recovers_a_linear_system(model):
    theta = make_linear(model)
    world = relearned(model, theta, B, 0.5)
    t, ahead = live(model, world, k=100), live(model, world, seed=1)
    phi, _ = LastLayer(model).adapt(theta, None, t)
    assert (error(model, phi, ahead) < 1e-4 * error(model, as_phi(theta), ahead)).all()


@each_ensemble
def test_the_last_layer_explains_what_gains_leave(model):
    theta = with_meta(make_theta(model), {"last-layer.log_prior": -3.0, "last-layer.log_noise": -4.0})
    change = torch.randn(B, 1, model.n_psi, model.space.n_delta, generator=torch.Generator().manual_seed(0)) * 0.05
    world = Phi(theta.net | {"K": theta.net["K"] + change}, theta.norm, gains(model))
    t, ahead = live(model, world, k=60), live(model, world, seed=1)
    both, motors, layer = (
        error(model, run(ADAPTERS[n](model), theta, t, k=32)[0], ahead).mean()
        for n in ("effectiveness+last-layer", "effectiveness", "last-layer")
    )
    assert both < 0.9 * min(motors, layer), (both, motors, layer)


@each_ensemble
def test_the_leave_one_out_error_is_that_of_fits_that_left_one_out(model):
    theta = with_meta(
        make_theta(model), {"last-layer.log_prior": -3.0, "last-layer.log_noise": -2.0, "logit_gamma": 2.0}
    )
    layer, t = LastLayer(model), live(model, broken(theta))
    phi = as_phi(theta)
    _, share = layer.solve(theta, phi, t)
    weight = theta.meta["last-layer.logit_gamma"].sigmoid() ** torch.arange(K - 1, -1, -1)
    y = model.target(theta, t.s, t.s_next)[:, None]

    def wrong(fitted: Phi) -> Tensor:
        """(b, k)"""
        return (model.normalised(fitted, t.s, t.a) - y).square().sum((1, 3)) * weight

    kept = ~torch.eye(K, dtype=torch.bool)
    left_out = torch.stack(
        [wrong(layer.fit(theta, phi, t._replace(mask=kept[i].expand(B, -1))))[:, i] for i in range(K)]
    )
    torch.testing.assert_close(share, left_out.sum(0) / wrong(phi).sum(1), rtol=1e-3, atol=1e-5)


def test_behind_another_adapter_the_last_layer_explains_a_change_and_leaves_noise_alone():
    model = MODELS["e=1"]  # of an ensemble each member leaves more than noise: what its mean does not
    theta = with_meta(make_theta(model), {"last-layer.log_prior": -3.0, "last-layer.log_noise": -4.0})
    rng = torch.Generator().manual_seed(0)
    change = torch.randn(B, 1, model.n_psi, model.space.n_delta, generator=rng) * 0.05
    noisy = live(model, as_phi(theta), k=40)
    moved = model.space.local(noisy.s, noisy.s_next)
    moved = moved + 0.02 * torch.randn(moved.shape, generator=rng)
    noisy = noisy._replace(s_next=model.space.retract(noisy.s, moved))
    changed = live(model, Phi(theta.net | {"K": theta.net["K"] + change}, theta.norm), k=40)
    both = LastLayer(model, after=Frozen(model))
    for t, stays in ((noisy, True), (changed, False)):
        layer = run(both, theta, t, k=32)[0].net["K"]
        same = (layer == theta.net["K"]).flatten(1).all(1)
        assert same.all() if stays else not same.any()


@each_small
def test_more_context_never_hurts_the_last_layer(model):
    # Worlds drawn from the prior, and no forgetting: here the posterior mean cannot lose on average.
    b, std = 64, 0.3
    theta = with_meta(make_linear(model), {"last-layer.log_prior": 2 * torch.tensor(std).log()})
    world = relearned(model, theta, b, std)
    t, ahead = live(model, world, b, 64), live(model, world, b, 64, seed=1)
    masks = [(torch.arange(64) >= 64 - n).expand(b, -1) for n in (0, 1, 2, 4, 8, 16, 32, 64)]
    fitted = (LastLayer(model).adapt(theta, None, t._replace(mask=mask))[0] for mask in masks)
    errors = [error(model, phi, ahead).mean() for phi in fitted]
    assert all(longer < shorter for shorter, longer in pairwise(errors)), errors
    assert errors[-1] < 0.01 * errors[0]


@each_small
def test_the_last_layer_forgets_the_system_that_was(model):
    theta = make_linear(model)
    forgetful = with_meta(theta, {"last-layer.logit_gamma": 1.0})
    old, new = relearned(model, theta, B, 0.5, seed=0), relearned(model, theta, B, 0.5, seed=1)
    t, ahead = joined(live(model, old, k=60), live(model, new, k=60, seed=1)), live(model, new, seed=2)
    moved, stuck = (error(model, LastLayer(model).adapt(th, None, t)[0], ahead).mean() for th in (forgetful, theta))
    unmoved = error(model, as_phi(theta), ahead).mean()
    assert moved < 0.02 * unmoved and moved < 0.05 * stuck, (moved, stuck, unmoved)


@pytest.mark.parametrize("prior", [-7.0, 5.0])
@pytest.mark.parametrize("noise", [-1.5, -20.0])
def test_the_last_layer_can_always_be_solved(prior, noise):
    # A robot that stands still repeats one transition: the system is then singular but for the noise.
    model = MLP(FloatingBase(8, 8), width=64, depth=2)
    settings = {"last-layer.log_prior": prior, "last-layer.log_noise": noise, "last-layer.logit_gamma": 20.0}
    theta = with_meta(make_theta(model), settings)
    t = live(model, broken(theta), k=64)
    still = Transitions(*(x[:, :1].expand_as(x) for x in t[:3]), t.mask)
    for context in (t, still, t._replace(s=100 * t.s)):
        phi, _ = LastLayer(model).adapt(theta, None, context)
        assert phi.net["K"].isfinite().all()
        assert (error(model, phi, context) <= error(model, as_phi(theta), context)).all()
