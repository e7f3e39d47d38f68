"""Laws of every adapter: a batch is its robots, padding is nothing, without freedom it is frozen, and with it the next
transitions are explained."""

import pytest
import torch
from small_world import (
    ADAPTERS,
    MODELS,
    B,
    K,
    broken,
    each_adapter,
    each_ensemble,
    error,
    live,
    make_theta,
    predict,
    run,
    tick,
    with_meta,
)
from torch import Tensor

from dynamics.adapt.frozen import Frozen
from dynamics.adapt.gradient import GrBAL
from dynamics.types import Theta, Transitions, as_phi


def leaves(x: object) -> list[Tensor]:
    if x is None or isinstance(x, Tensor):
        return [] if x is None else [x]
    return [leaf for part in (x.values() if isinstance(x, dict) else x) for leaf in leaves(part)]


def assert_same(xs: list[Tensor], ys: list[Tensor]) -> None:
    assert len(xs) == len(ys) and all(torch.equal(x, y) for x, y in zip(xs, ys, strict=True))


@each_ensemble
@each_adapter
def test_a_batch_is_its_robots_one_by_one(name, model):
    adapter, theta = ADAPTERS[name](model), make_theta(model)
    t = live(model, broken(theta))
    t = t._replace(mask=torch.arange(K) >= torch.tensor([[0], [5], [11]]))  # histories of different lengths
    together, carry = run(adapter, theta, t)
    for i in range(B):
        alone, carry_alone = run(adapter, theta, Transitions(*(x[i : i + 1] for x in t)))
        torch.testing.assert_close(predict(model, alone, 1)[0], predict(model, together)[i], atol=1e-4, rtol=1e-4)
        for x, y in zip(leaves(carry_alone), leaves(carry), strict=True):
            torch.testing.assert_close(x[0], y[i], atol=1e-4, rtol=1e-4)


@each_ensemble
@each_adapter
def test_adapting_is_pure(name, model):
    adapter, theta = ADAPTERS[name](model), make_theta(model)
    t = live(model, broken(theta))
    _, carry = run(adapter, theta, t)
    given = theta, carry, t
    before = [x.clone() for x in leaves(given)]
    first, again = adapter.adapt(theta, carry, t), adapter.adapt(theta, carry, t)
    assert_same(leaves(given), before)
    assert_same(leaves(first), leaves(again))
    # Nobody is handed theta's own memory to write on, but for what phi leaves as it is.
    assert not any(x.requires_grad for x in leaves(first))


@each_ensemble
@each_adapter
def test_masked_padding_changes_nothing(name, model):
    adapter, theta = ADAPTERS[name](model), make_theta(model)
    t = live(model, broken(theta))
    t = t._replace(mask=torch.arange(K) >= torch.tensor([[3], [7], [12]]))
    rng = torch.Generator().manual_seed(1)
    phi, carry = run(adapter, theta, t)
    for scale in (0.0, 1.0, 1e4, 1e6):
        noise = [torch.randn(x.shape, generator=rng) * scale for x in t[:3]]
        dirty = [torch.where(t.mask[..., None], x, n) for x, n in zip(t[:3], noise, strict=True)]
        phi_dirty, carry_dirty = run(adapter, theta, Transitions(*dirty, t.mask))
        torch.testing.assert_close(predict(model, phi_dirty), predict(model, phi), atol=1e-5, rtol=1e-5)
        for x, y in zip(leaves(carry_dirty), leaves(carry), strict=True):
            torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)


@each_ensemble
@each_adapter
def test_padding_is_a_shorter_context(name, model):
    adapter, theta = ADAPTERS[name](model), make_theta(model)
    t = live(model, broken(theta), k=5)
    carry = adapter.init(theta, B)
    short, _ = adapter.adapt(theta, carry, t)
    padded, _ = adapter.adapt(theta, carry, tick(t, 4, K))
    torch.testing.assert_close(predict(model, padded), predict(model, short), atol=1e-5, rtol=1e-5)


@each_ensemble
@each_adapter
def test_an_empty_context_is_theta(name, model):
    adapter, theta = ADAPTERS[name](model), make_theta(model)
    t = live(model, broken(theta))
    nothing = t._replace(mask=torch.zeros_like(t.mask))
    phi, _ = run(adapter, theta, nothing)
    torch.testing.assert_close(predict(model, phi), predict(model, as_phi(theta)).expand(B, -1, -1), atol=1e-6, rtol=0)
    # Nor does it take back what was carried.
    _, carry = run(adapter, theta, t)
    assert_same(leaves(adapter.adapt(theta, carry, nothing)[1]), leaves(carry))


@each_ensemble
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("grbal", {"grbal.log_rate": -torch.inf}),
        ("grbal", {"grbal.log_rate": -40.0}),
        ("grbal, 3 steps", {"grbal.log_rate": -40.0}),
        ("online-sgd", {"online-sgd.log_rate": -torch.inf}),
        ("online-sgd", {"online-sgd.log_rate": -40.0}),
        ("last-layer", {"last-layer.log_prior": -torch.inf}),
        ("last-layer", {"last-layer.log_prior": -40.0}),
        ("effectiveness", {"effectiveness.precision": 1e12}),
        ("effectiveness+last-layer", {"effectiveness.precision": 1e12, "last-layer.log_prior": -40.0}),
    ],
    ids=lambda x: x if isinstance(x, str) else next(iter(x.values())),
)
def test_without_freedom_it_is_frozen(name, settings, model):
    adapter, theta = ADAPTERS[name](model), make_theta(model)
    t = live(model, broken(theta))
    still, free = (run(adapter, th, t)[0] for th in (with_meta(theta, settings), theta))
    frozen = predict(model, run(Frozen(model), theta, t)[0])
    torch.testing.assert_close(predict(model, still), frozen.expand(B, -1, -1), atol=1e-5, rtol=0)
    assert (predict(model, free) - frozen).abs().max() > 1e-3  # with it, it is not


@each_ensemble
@pytest.mark.parametrize("name", [n for n in ADAPTERS if n != "frozen"])
def test_adapting_explains_what_theta_does_not(name, model):
    # The next transitions, not the ones adapted to.
    adapter, theta = ADAPTERS[name](model), with_meta(make_theta(model), {"log_rate": 0.0})
    world = broken(theta, b=24)
    t, ahead = live(model, world, b=24, k=30), live(model, world, b=24, seed=1)
    after = error(model, run(adapter, theta, t, k=30)[0], ahead)
    assert after.mean() < 0.98 * error(model, as_phi(theta), ahead).mean()


@pytest.mark.parametrize("name", ["grbal", "grbal, 3 steps", "last-layer"])
def test_what_meta_training_differentiates_is_what_runs(name):
    model = MODELS["e=1"]
    adapter, theta = ADAPTERS[name](model), make_theta(model)
    t = live(model, broken(theta))
    ran, _ = adapter.adapt(theta, None, t)
    free = Theta(*({n: w.clone().requires_grad_() for n, w in group.items()} for group in theta))
    rest = {"differentiable": True} if isinstance(adapter, GrBAL) else {"phi": as_phi(free)}
    phi = adapter.fit(free, recent=t, **rest)
    torch.testing.assert_close(predict(model, phi).detach(), predict(model, ran))
    predict(model, phi).square().sum().backward()
    prefix = name.split(",")[0]
    for n, w in free.meta.items():
        assert (w.grad is not None and w.grad.abs().max() > 0) == n.startswith(prefix), n
