"""Laws of every adapter, on a small random network that is the true physics too: the world is theta with other motor gains
or another last layer, so that what an adapter ought to find is known."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from dynamics.adapt.effectiveness import Effectiveness, discounted
from dynamics.adapt.frozen import Frozen
from dynamics.adapt.gradient import GrBAL, OnlineSGD, context_loss
from dynamics.adapt.last_layer import LastLayer
from dynamics.mlp import MLP
from dynamics.types import Adapter, Phi, Theta, Transitions, as_phi
from robots.space import Euclidean, FloatingBase

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


SMALL = {e: MLP(Euclidean(3, 2), width=16, depth=2, ensemble=e) for e in (1, 3)}
TRUSTING = {"last-layer.log_prior": 2.0, "last-layer.log_noise": -6.0, "last-layer.logit_gamma": 20.0}
each_small = pytest.mark.parametrize("model", SMALL.values(), ids=lambda m: f"e={m.ensemble}")


def make_linear(model: MLP) -> Theta:
    """theta whose members share their features: a change of the last layer is then linear in those of each."""
    theta = make_theta(model)
    net = {n: w[:1].expand_as(w).clone() if n.startswith(("W", "b")) else w for n, w in theta.net.items()}
    return with_meta(theta._replace(net=net), TRUSTING)


def relearned(model: MLP, theta: Theta, b: int, std: float, seed: int = 0) -> Phi:
    """Worlds with another last layer, of std around theta's, the same change in every member. K is (b, e, n_psi, d)."""
    rng = torch.Generator().manual_seed(seed)
    change = torch.randn(b, 1, model.n_psi, model.space.n_delta, generator=rng) * std
    return Phi(theta.net | {"K": theta.net["K"] + change}, theta.norm)


@each_small
def test_the_last_layer_recovers_a_linear_system(model):
    theta = make_linear(model)
    world = relearned(model, theta, B, 0.5)
    t, ahead = live(model, world, k=100), live(model, world, seed=1)
    phi, _ = LastLayer(model).adapt(theta, None, t)
    assert (error(model, phi, ahead) < 1e-4 * error(model, as_phi(theta), ahead)).all()


GAINS = torch.tensor([[1, 1, 0, 0, 1, 1, 1, 1], [1, -1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0.3, 0.3, 1, 1]])


BODY = torch.tensor([[0, 0.5, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]])
SENSITIVE = {"effectiveness.precision": 0.1}


def gains(model: MLP) -> Tensor:
    return torch.cat((GAINS, BODY[:, : model.body]), 1)


@each_ensemble
def test_effectiveness_recovers_dead_reversed_and_weak_motors(model):
    theta = with_meta(make_theta(model), SENSITIVE)
    t = live(model, Phi(theta.net, theta.norm, gains(model)), k=60)
    for ticks, within in ((30, 0.05), (60, 0.02)):
        phi, _ = run(Effectiveness(model), theta, Transitions(*(x[:, :ticks] for x in t)))
        torch.testing.assert_close(phi.gain, gains(model), atol=within, rtol=0)


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


@each_small
def test_the_last_layer_forgets_the_system_that_was(model):
    theta = make_linear(model)
    forgetful = with_meta(theta, {"last-layer.logit_gamma": 1.0})
    old, new = relearned(model, theta, B, 0.5, seed=0), relearned(model, theta, B, 0.5, seed=1)
    t, ahead = joined(live(model, old, k=60), live(model, new, k=60, seed=1)), live(model, new, seed=2)
    moved, stuck = (error(model, LastLayer(model).adapt(th, None, t)[0], ahead).mean() for th in (forgetful, theta))
    unmoved = error(model, as_phi(theta), ahead).mean()
    assert moved < 0.02 * unmoved and moved < 0.05 * stuck, (moved, stuck, unmoved)


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
