"""The motors' gains: dead, reversed and weak motors are found, the better the longer the context; forgetting takes information alone."""

from itertools import pairwise

import torch
from small_world import broken, each_ensemble, error, gains, joined, live, make_theta, run, with_meta

from dynamics.adapt.effectiveness import Effectiveness, discounted
from dynamics.types import Phi, Transitions

SENSITIVE = {"effectiveness.precision": 0.1}


@each_ensemble
def test_effectiveness_recovers_dead_reversed_and_weak_motors(model):
    theta = with_meta(make_theta(model), SENSITIVE)
    t = live(model, Phi(theta.net, theta.norm, gains(model)), k=60)
    for ticks, within in ((30, 0.05), (60, 0.02)):
        phi, _ = run(Effectiveness(model), theta, Transitions(*(x[:, :ticks] for x in t)))
        torch.testing.assert_close(phi.gain, gains(model), atol=within, rtol=0)


@each_ensemble
def test_more_context_never_hurts_effectiveness(model):
    b = 48
    theta = make_theta(model)
    world = broken(theta, b)
    t, ahead = live(model, world, b, 64), live(model, world, b, 32, seed=1)
    errors = [
        error(model, run(Effectiveness(model), theta, Transitions(*(x[:, :n] for x in t)))[0], ahead).mean()
        for n in (0, 1, 2, 4, 8, 16, 32, 64)
    ]
    assert all(longer < shorter for shorter, longer in pairwise(errors)), errors
    assert errors[-1] < 0.01 * errors[0]


@each_ensemble
def test_effectiveness_forgets_the_system_that_was(model):
    theta = with_meta(make_theta(model), SENSITIVE)
    worlds = [Phi(theta.net, theta.norm, gain) for gain in (gains(model), gains(model).roll(1, 0))]
    t = joined(live(model, worlds[0], k=60), live(model, worlds[1], k=60, seed=1))
    phi, _ = run(Effectiveness(model), theta, t)
    torch.testing.assert_close(phi.gain, gains(model).roll(1, 0), atol=0.1, rtol=0)
    keeper = with_meta(theta, {"effectiveness.gamma": 1.0})
    stuck, _ = run(Effectiveness(model), keeper, t)
    assert (stuck.gain - gains(model).roll(1, 0)).abs().max() > 0.3


def test_forgetting_leaves_the_estimate_and_takes_information():
    rng = torch.Generator().manual_seed(0)
    j = torch.randn(3, 20, 5, generator=rng)
    h, r, g = j.mT @ j, torch.randn(3, 5, generator=rng), torch.randn(3, 5, generator=rng)
    for gamma in (
        torch.tensor(0.7),
        torch.full((5,), 0.7),
    ):  # one rate for all: plain exponential forgetting, whatever the estimate
        kept_h, kept_r = discounted(gamma, g, h, r)
        torch.testing.assert_close(kept_h, 0.7 * h)
        torch.testing.assert_close(kept_r, 0.7 * r)
    at = torch.linalg.solve(h, r)
    each = torch.tensor([1.0, 0.9, 0.5, 0.2, 1e-3])
    kept_h, kept_r = discounted(each, at, h, r)
    torch.testing.assert_close(torch.linalg.solve(kept_h, kept_r), at, atol=1e-2, rtol=1e-2)
    assert (torch.linalg.eigvalsh(kept_h) > 0).all()
    torch.testing.assert_close(kept_h.diagonal(dim1=1, dim2=2), each * h.diagonal(dim1=1, dim2=2))
