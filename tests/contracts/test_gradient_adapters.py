"""Adapters by gradient: GrBAL is steps from theta and forgets between ticks, online SGD goes on from where it was."""

from itertools import pairwise

import torch
from small_world import (
    ADAPTERS,
    B,
    K,
    broken,
    each_ensemble,
    error,
    joined,
    live,
    make_theta,
    predict,
    relearned,
    run,
    with_meta,
)

from dynamics.adapt.gradient import GrBAL, OnlineSGD, context_loss
from dynamics.types import Phi, as_phi


@each_ensemble
def test_grbal_is_a_gradient_step_from_theta(model):
    theta = make_theta(model)
    t = live(model, broken(theta))
    t = t._replace(mask=torch.arange(K) >= torch.tensor([[0], [5], [11]]))
    phi, _ = GrBAL(model).adapt(theta, None, t)
    for i in range(B):
        net = {n: w.clone().requires_grad_() for n, w in theta.net.items()}
        kept = [x[i, t.mask[i]][None] for x in t[:3]]
        residual = model.normalised(Phi(net, theta.norm), *kept[:2]) - model.target(theta, kept[0], kept[2])[:, None]
        residual.square().mean().backward()
        for n, w in net.items():
            if n == "V":  # the variance has no part in it
                assert torch.equal(phi.net[n], theta.net[n])
                continue
            rate = theta.meta[f"grbal.log_rate.{n}"].exp()
            torch.testing.assert_close(phi.net[n][i], (w - rate * w.grad).detach(), atol=1e-6, rtol=1e-5)


@each_ensemble
def test_grbal_forgets_between_ticks_and_online_sgd_does_not(model):
    theta = make_theta(model)
    t, *others = (live(model, broken(theta), seed=seed) for seed in range(3))
    for name, remembers in (("grbal", False), ("grbal, 3 steps", False), ("last-layer", False), ("online-sgd", True)):
        adapter = ADAPTERS[name](model)
        first, second = (predict(model, run(adapter, theta, joined(other, t))[0]) for other in others)
        assert torch.equal(first, second) != remembers, name


@each_ensemble
def test_online_sgd_goes_on_from_where_it_was(model):
    theta = with_meta(make_theta(model), {"log_rate": -4.0})
    t, sgd = live(model, broken(theta)), OnlineSGD(model)
    carry, losses = sgd.init(theta, B), [context_loss(model, theta.net, theta.norm, t).mean()]
    for steps in range(1, 6):
        phi, carry = sgd.adapt(theta, carry, t)
        losses.append(context_loss(model, phi.net, theta.norm, t).mean())
        # On one context, so many ticks of it are so many steps of GrBAL.
        torch.testing.assert_close(predict(model, phi), predict(model, GrBAL(model, steps).adapt(theta, None, t)[0]))
    assert all(later < earlier for earlier, later in pairwise(losses))


@each_ensemble
def test_online_sgd_forgets_the_system_that_was(model):
    theta = with_meta(make_theta(model), {"online-sgd.log_rate": -1.0})
    old, new = relearned(model, theta, B, 0.3, seed=0), relearned(model, theta, B, 0.3, seed=1)
    first, second = live(model, old, k=80), live(model, new, k=80, seed=1)
    ahead = live(model, new, seed=2)
    before, after = (
        error(model, run(OnlineSGD(model), theta, t)[0], ahead).mean() for t in (first, joined(first, second))
    )
    assert after < 0.6 * error(model, as_phi(theta), ahead).mean() < 0.8 * before, (before, after)
