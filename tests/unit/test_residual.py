"""The learned part of the quadrotor's model: nothing at zero, invariant always; its belief about the load against a brute-force posterior;
changes noticed, and nothing else."""

import numpy as np
import pytest
import torch
from torch import Tensor

from controller.flyer import N_Z, ROWS
from dynamics.adapt.frozen import Frozen
from dynamics.adapt.gradient import GrBAL
from dynamics.adapt.last_layer import LastLayer
from dynamics.adapt.variational import Belief, Variational, explain
from dynamics.mlp import MLP
from dynamics.nominal import Nominal
from dynamics.residual import LEAST, N_OUT, N_SEEN, SHARE, SPREAD, Residual, share
from dynamics.swing import Swing
from dynamics.types import Phi, Theta, Transitions, as_phi
from planners.linearise import from_residual
from robots.space import Flying
from robots.vehicle import load

V = load("1kg")
MODEL = Residual(V, MLP(ROWS, 16, 2), N_Z)
SIGMA = 0.1


def make_theta(size: float = 1.0, seed: int = 0, latent: bool = True) -> Theta:
    rng = torch.Generator().manual_seed(seed)
    net = MODEL.mlp.init(rng)
    net["K"] = size * torch.randn(net["K"].shape, generator=rng) / MODEL.mlp.n_psi**0.5
    if not latent:
        net["W0"][:, ROWS.n_feature - N_Z : ROWS.n_feature] = 0
        net["K"][:, 16 + ROWS.n_feature - N_Z : 16 + ROWS.n_feature] = 0
    norm = {
        "x_mean": torch.zeros(ROWS.n_feature), "x_std": torch.full((ROWS.n_feature,), 6.0),
        "d_mean": torch.zeros(N_OUT), "d_std": torch.full((N_OUT,), 0.2),
    }  # fmt: skip
    theta = Theta(net, norm, {})
    for kind in (Variational, LastLayer, GrBAL):
        theta = theta._replace(meta=theta.meta | kind(MODEL.mlp).meta(theta))
    meta = {"variational.log_sigma": torch.full((N_OUT,), SIGMA).log(), "variational.inflation": torch.tensor(1.0)}
    return theta._replace(meta=theta.meta | meta | {"variational.keep": torch.ones(N_Z)})


def states(n: int, seed: int = 0, loaded: bool = True) -> np.ndarray:
    """(n, 22) in flight; the load hangs askew on 0.8 m."""
    rng = np.random.default_rng(seed)
    s = np.zeros((n, 22))
    s[:, 3] = s[:, 8] = 1
    s[:, 15] = 12.0
    s[:, 18] = -0.8 if loaded else 0.0
    delta = 0.3 * rng.standard_normal((n, 19))
    delta[:, 13:] = 0
    s = MODEL.nominal.space.retract(torch.as_tensor(s), torch.as_tensor(delta)).numpy()
    if loaded:
        r = np.array([0, 0, -1.0]) + 0.2 * rng.standard_normal((n, 3))
        s[:, 16:19] = 0.8 * r / np.linalg.norm(r, axis=1, keepdims=True)
        s[:, 19:] = np.cross(rng.standard_normal((n, 3)), s[:, 16:19])
    return s


def actions(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(100 + seed).uniform(-0.3, 0.3, (n, 4))


def world(fraction: np.ndarray | float, n: int, seed: int = 0, loaded: bool = True) -> Transitions:
    """(1, n, .) noiseless rows of the nominal vehicle with a load of that fraction of its mass."""
    s, a = states(n, seed, loaded), actions(n, seed)
    mass = torch.as_tensor(np.broadcast_to(fraction, n).copy())[:, None] * V.mass_kg
    s_next = MODEL.nominal.predict(torch.as_tensor(s), torch.as_tensor(a), mass).numpy()
    before, after, good = MODEL.rows(s, a, s_next)
    assert good.all()
    return Transitions(before[None], torch.as_tensor(a).float()[None], after[None], torch.ones(1, n, dtype=torch.bool))


def noisy(t: Transitions, seed: int = 0) -> Transitions:
    noise = torch.zeros_like(t.s_next)
    rng = torch.Generator().manual_seed(seed)
    noise[..., ROWS.n_feature : ROWS.n_feature + N_OUT] = SIGMA * torch.randn(*t.mask.shape, N_OUT, generator=rng)
    return t._replace(s_next=t.s_next + noise)


def follow(theta: Theta, t: Transitions, belief: Belief | None = None) -> tuple[Belief, Tensor]:
    """Tick by tick -> the last belief, and the restarts after every tick (b, k)."""
    adapter = Variational(MODEL.mlp)
    belief = adapter.init(theta, t.mask.shape[0]) if belief is None else belief
    restarts = []
    for i in range(t.mask.shape[1]):
        _, belief = adapter.adapt(theta, belief, Transitions(*(x[:, i : i + 1] for x in t)))
        restarts.append(belief.restarts)
    return belief, torch.stack(restarts, 1)


@pytest.mark.parametrize("loaded", [True, False])
def test_at_zero_the_model_is_the_nominal_one_exactly(loaded):
    theta = make_theta(0.0)
    s, a = torch.as_tensor(states(20, loaded=loaded)).float()[None], torch.as_tensor(actions(20)).float()[None]
    z = torch.randn(1, 20, N_Z, generator=torch.Generator().manual_seed(3))
    nominal = Nominal(V, load=True).predict(s, a, MODEL.mass(z))
    assert torch.equal(MODEL.predict(as_phi(theta), s, a, z), nominal)
    assert not torch.equal(MODEL.predict(as_phi(make_theta()), s, a, z), nominal)


def test_the_residual_sees_neither_place_nor_heading():
    s = torch.as_tensor(states(5))
    moved = s.clone()
    moved[:, :3] += torch.tensor([3.0, -2.0, 1.0])
    f, u = s[:, 3:6], s[:, 6:9]
    moved[:, 3:6] = 0.6 * f + 0.8 * torch.linalg.cross(u, f)  # turned about the world's z axis
    z = torch.zeros(5, N_Z)
    assert torch.equal(MODEL.features(s, z), MODEL.features(moved, z))


def test_the_link_is_positive_and_the_rows_are_linear_in_it():
    z = torch.linspace(-20, 20, 9)[:, None]
    assert (share(z) >= LEAST).all() and (MODEL.mass(z) > 0).all()
    true = 0.25
    t = world(true / (1 - true), 30)
    z = torch.tensor([[(true - SHARE) / SPREAD, 0.0, 0.0, 0.0]])
    assert MODEL.error(as_phi(make_theta(0.0)), t, 0 * z).abs().max() > 0.5
    assert MODEL.error(as_phi(make_theta(0.0)), t, z).abs().max() < 2e-3


def test_errors_and_their_derivative_agree_with_autograd():
    theta, t = make_theta(), world(0.4, 12)
    z = torch.tensor([[0.3, -0.5, 0.2, 0.8]])
    error, jac = (torch.as_tensor(x) for x in explain(MODEL.mlp, theta, t, z.numpy()))
    torch.testing.assert_close(error, MODEL.error(as_phi(theta), t, z), atol=2e-5, rtol=1e-4)
    wanted = torch.func.jacrev(lambda z: MODEL.error(as_phi(theta), t, z))(z)[0, :, :, 0]
    torch.testing.assert_close(jac[0].mT, -wanted, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("ensemble", [1, 2])
@pytest.mark.parametrize("own", [False, True], ids=["shared weights", "own weights"])
def test_what_lacks_to_first_order_agrees_with_autograd(ensemble, own):
    """With loads and without, with features beyond what is believed, with weights shared by all robots and of each robot's own."""
    model = Residual(V, MLP(ROWS, 16, 2, ensemble), N_Z)
    rng = torch.Generator().manual_seed(1)
    net = model.mlp.init(rng)
    net["K"] = torch.randn(net["K"].shape, generator=rng)
    if own:
        net = {n: w + 0.1 * torch.randn(2, *w.shape, generator=rng) for n, w in net.items()}
    phi = Phi(net, make_theta().norm)
    s = np.stack((np.concatenate((states(9), states(3, loaded=False))), states(12, 7)))
    s[0, 0, 9:12] = 60.0  # m/s, 20 deviations: clipped
    a, z = np.stack((actions(12), actions(12, 1))), torch.randn(2, N_Z, generator=rng)

    def lacking(s: Tensor, a: Tensor) -> Tensor:
        m, b, n, _ = s.shape
        s, a = (x.movedim(1, 0).reshape(b, m * n, -1) for x in (s, a))
        out = model.lacking(phi, s.float(), a.float(), z[:, None].expand(-1, m * n, -1))
        return out.view(b, m, n, N_OUT).movedim(1, 0).double()

    wanted = from_residual(lacking, Flying(load=True).retract, 19, N_OUT)(s, a)
    for got, value in zip(model.expand(phi, s, a, z.numpy()), wanted, strict=True):
        np.testing.assert_allclose(got, value, atol=1e-4, rtol=1e-3)
    assert np.abs(wanted.by_state).max() > 0.5 and np.abs(wanted.by_action).max() > 0.1


def test_rows_hold_the_features_that_training_differentiates():
    s, a = states(6), actions(6)
    before, _, _ = MODEL.rows(s, a, s)
    features = MODEL.features(torch.as_tensor(s), torch.zeros(6, N_Z))
    torch.testing.assert_close(before[:, : ROWS.n_feature], features.float())


def test_a_row_alone_is_what_it_is_among_others():
    s = np.concatenate((states(20, 3), states(20, 4, loaded=False)))
    rng = np.random.default_rng(5)
    a, s_next = rng.uniform(-1, 1, (40, 4)), s + 1e-3 * rng.standard_normal(s.shape)
    together = MODEL.rows(s, a, s_next)
    for i in range(40):
        for x, y in zip(MODEL.rows(s[i : i + 1], a[i : i + 1], s_next[i : i + 1]), together, strict=True):
            np.testing.assert_allclose(x[0].numpy(), y[i].numpy(), rtol=1e-6, atol=1e-6)


def test_the_belief_is_the_posterior_of_all_transitions_by_brute_force():
    """Where only the load is uncertain, one dimension: a grid over z_0, prior times likelihood."""
    theta = make_theta(latent=False)
    t = noisy(world(0.35, 6))
    belief, restarts = follow(theta, t)
    grid = torch.linspace(-1.4, 3.4, 60001, dtype=torch.float64)  # where the link is linear
    at = torch.stack((grid[::2000], *[torch.zeros(31, dtype=torch.float64)] * 3), 1).float()
    errors = torch.stack([MODEL.error(as_phi(theta), t, z[None])[0] for z in at]).double()
    square = (errors**2).sum((1, 2)) / SIGMA**2
    # The error is linear in z_0, so its square is a parabola, which few points give everywhere.
    x = grid[::2000]
    system = torch.stack((x**2, x, torch.ones_like(x)), 1)
    parabola = torch.linalg.lstsq(system, square[:, None]).solution[:, 0]
    log = -0.5 * (parabola[0] * grid**2 + parabola[1] * grid + grid**2)
    weight = (log - log.max()).exp()
    mean = (weight * grid).sum() / weight.sum()
    var = (weight * (grid - mean) ** 2).sum() / weight.sum()
    assert restarts.sum() == 0
    assert float(belief.mean[0, 0]) == pytest.approx(float(mean), abs=2e-3)
    assert float(belief.cov[0, 0, 0]) == pytest.approx(float(var), rel=0.02)
    assert float(var) < 0.05


def test_the_belief_does_not_depend_on_batch_mates_and_ignores_masked_rows():
    theta = make_theta()
    one, two = noisy(world(0.2, 8), 1), noisy(world(0.5, 8, 5), 2)
    both = Transitions(*(torch.cat(x) for x in zip(one, two, strict=True)))
    together, _ = follow(theta, both)
    alone, _ = follow(theta, two)
    torch.testing.assert_close(together.mean[1], alone.mean[0])
    masked, _ = follow(theta, one._replace(mask=torch.zeros_like(one.mask)), alone)
    assert all(torch.equal(x, y) for x, y in zip(masked, alone, strict=True))


@pytest.mark.parametrize(("was", "now"), [(0.4, 0.05), (0.1, 0.4)])
def test_a_change_is_noticed_within_four_ticks_and_never_in_twenty_steady_seconds(was, now):
    """A load swapped for another one out of sight; the noise is what the model expects."""
    theta = make_theta(0.0)
    steady, restarts = follow(theta, noisy(world(was, 2000), 7))
    assert restarts[0, -1] == 0
    after, restarts = follow(theta, noisy(world(now, 20, 3), 8), steady)
    assert restarts[0, 3] >= 1
    assert float(share(after.mean)[0]) == pytest.approx(now / (1 + now), abs=0.02)


def test_after_a_change_both_models_are_judged_by_the_same_belief():
    """A network that says nothing is the nominal model: neither has an advantage when both start anew."""
    theta = make_theta(0.0)
    steady, _ = follow(theta, noisy(world(0.4, 100), 7))
    t, belief = noisy(world(0.05, 6, 3), 8), steady
    for i in range(6):
        before = int(belief.restarts[0])
        belief, _ = follow(theta, Transitions(*(x[:, i : i + 1] for x in t)), belief)
        if belief.restarts[0] > before:
            break
    assert belief.restarts[0] == steady.restarts[0] + 1
    torch.testing.assert_close(belief.scores[0, 1], belief.scores[0, 0], rtol=1e-3, atol=1e-3)


def test_a_load_that_comes_into_sight_is_a_new_one():
    theta = make_theta(0.0)
    steady, _ = follow(theta, noisy(world(0.4, 50), 1))
    gone, _ = follow(theta, noisy(world(0.0, 50, 2, loaded=False), 2), steady)
    assert float(steady.cov[0, 0, 0]) < 0.01
    assert float(gone.mean[0, 0]) == 0 and float(gone.cov[0, 0, 0]) == pytest.approx(1)  # nothing is known of the next
    back, restarts = follow(theta, noisy(world(0.1, 3, 3), 3), gone)
    assert restarts[0, -1] == 0
    assert float(share(back.mean)[0]) == pytest.approx(0.1 / 1.1, abs=0.03)


def test_beyond_what_training_saw_the_network_fades_and_the_nominal_model_stays():
    theta = make_theta()
    s, a = states(6), actions(6)
    sizes = []
    for speed in (0.0, 30.0, 100.0, 1000.0):  # of the load, 6 is a deviation and 4 deviations are trusted
        s[:, 19] = speed
        e, _, _ = MODEL.expand(as_phi(theta), s[None], a[None], np.zeros((1, N_Z)))
        sizes.append(np.abs(e).max())
    assert sizes[0] > 0.05 and sizes[2] < 0.2 * sizes[0] and sizes[3] < 1e-3 * sizes[0]


def test_a_model_that_is_wrong_beyond_training_is_no_change_of_load():
    """The same unexplained acceleration, in flight as trained and in a swing far beyond."""
    theta = make_theta(0.0)
    t = noisy(world(0.3, 40), 4)
    off = torch.zeros_like(t.s_next)
    off[:, 20:, ROWS.n_feature] = 8 * SIGMA
    wrong = t._replace(s_next=t.s_next + off)
    _, restarts = follow(theta, wrong)
    assert restarts[0, 19] == 0 and restarts[0, -1] > 0
    wide = wrong.s.clone()
    wide[:, 20:, 13:16] = 50.0  # the load's velocity, 8 deviations
    _, restarts = follow(theta, wrong._replace(s=wide))
    assert restarts[0, -1] == 0


def test_the_network_speaks_where_it_is_right_and_is_silent_where_the_nominal_model_is():
    """The same network, with a load that it was not told of: thirty rows of the nominal world, thirty to which what the network says is added, as
    wind adds to flights, and thirty of the first again."""
    theta, adapter = make_theta(2.5, latent=False), Variational(MODEL.mlp)
    n, there = 30, slice(ROWS.n_feature, ROWS.n_feature + N_OUT)
    t = world(0.4, 3 * n)
    true = torch.tensor([[(0.4 / 1.4 - SHARE) / SPREAD, 0.0, 0.0, 0.0]])
    said = -MODEL.error(as_phi(theta), t, true)  # of rows that the nominal model explains, what the network is wrong by
    after = t.s_next.clone()
    after[:, n : 2 * n, there] += said[:, n : 2 * n]
    t, belief, phis = t._replace(s_next=after), adapter.init(theta, 1), []
    for i in range(3 * n):
        phi, belief = adapter.adapt(theta, belief, Transitions(*(x[:, i : i + 1] for x in t)))
        phis.append(phi)
    speaks = torch.cat([phi.speaks for phi in phis])
    assert said.square().mean().sqrt() > 1.5 * SIGMA and belief.restarts[0] == 0
    for part, wanted in ((slice(5, n), 0.0), (slice(n + 5, 2 * n), 1.0), (slice(2 * n + 25, 3 * n), 0.0)):
        assert (speaks[part] == wanted).float().mean() > 0.9, (part, speaks)
    s, a = states(4)[None], actions(4)[None]
    silent, loud = phis[n - 1], phis[2 * n - 1]
    assert all((x == 0).all() for x in MODEL.expand(silent, s, a, silent.z.numpy()))
    assert np.abs(MODEL.expand(loud, s, a, loud.z.numpy())[0]).max() > 0.1
    for phi in (silent, loud):
        assert float(share(phi.z)[0]) == pytest.approx(0.4 / 1.4, abs=0.02)
        torch.testing.assert_close(
            MODEL.lacking(phi, *(torch.as_tensor(x).float() for x in (s, a)), phi.z[:, None].expand(-1, 4, -1)),
            torch.as_tensor(MODEL.expand(phi, s, a, phi.z.numpy())[0]), atol=1e-5, rtol=1e-4,
        )  # fmt: skip


def test_where_no_load_hangs_the_belief_about_the_next_one_stays_finite():
    theta = make_theta()
    belief, _ = follow(theta, world(0.3, 30))
    bare = world(0.0, 1, 2, loaded=False)
    for _ in range(6000):  # a minute
        _, belief = Variational(MODEL.mlp).adapt(theta, belief, bare)
    assert float(belief.plain[0, 1]) == 1.0 and all(x.isfinite().all() for x in belief)


@pytest.mark.parametrize("kind", [Frozen, LastLayer, GrBAL, Variational])
def test_adapters_take_rows_and_leave_theta_alone(kind):
    theta, adapter = make_theta(), kind(MODEL.mlp)
    kept = {n: w.clone() for n, w in theta.net.items()}
    t = noisy(world(0.4, 32))
    carry, phi = adapter.init(theta, 1), as_phi(theta)
    for i in range(1, 33):
        phi, carry = adapter.adapt(theta, carry, Transitions(*(x[:, :i] for x in t)))
    assert all(torch.equal(theta.net[n], w) for n, w in kept.items())
    z = torch.zeros(1, N_Z) if phi.z is None else phi.z
    left = MODEL.error(phi, t, z).square().mean()
    before = MODEL.error(as_phi(theta), t, torch.zeros(1, N_Z)).square().mean()
    assert left == before if kind is Frozen else left < 0.7 * before


def test_what_lacks_is_nothing_for_a_load_that_is_not_there():
    theta = make_theta()
    s, a = torch.as_tensor(states(4, loaded=False)).float()[None], torch.as_tensor(actions(4)).float()[None]
    e = MODEL.lacking(as_phi(theta), s, a, torch.zeros(1, 4, N_Z))
    assert (e[..., 3:] == 0).all() and (e[..., :3] != 0).any()
    assert ROWS.n_feature == N_SEEN + N_Z


def test_an_unseen_load_is_found_by_its_swing():
    """The nominal vehicle with a load of 30% on 0.8 m that swings, the controller's commands random: mass, cable and swing from the vehicle's
    velocity alone."""
    rng = np.random.default_rng(0)
    s = np.zeros((1, 22))
    s[:, 3] = s[:, 8] = 1
    s[:, 15], s[:, 18], s[:, 19] = 1.3 * V.hover_thrust_n, -0.8, 0.05
    hover = V.action(np.array([1.3 * V.hover_thrust_n, 0, 0, 0]))
    swing = Swing(V)
    memory = swing.init(1)
    for i in range(500):
        push = np.array([0.0, 0.35 * np.sin(i / 25), 0.0, 0.0]) + 0.02 * rng.standard_normal(4)
        tilt = s[0, 6:9]
        level = np.array([0.0, -0.5 * tilt[1], 0.5 * tilt[0], 0.0])
        a = (hover + 0.3 * push + level)[None]
        s_next = MODEL.nominal.predict(torch.as_tensor(s), torch.as_tensor(a), 0.3 * V.mass_kg).numpy()
        memory = swing.step(memory, s[:, :16], a, s_next[:, :16])
        s = s_next
    z = torch.as_tensor(memory.mean[:, 6:7])
    assert float(share(z)[0]) == pytest.approx(0.3 / 1.3, abs=0.01)
    believed = swing.augment(memory, s[:, :16])
    np.testing.assert_allclose(believed[:, 16:19], s[:, 16:19], atol=0.1)
    assert memory.restarts[0] == 0


def test_phi_carries_the_latent():
    theta = make_theta()
    phi, _ = Variational(MODEL.mlp).adapt(theta, Variational(MODEL.mlp).init(theta, 2), _two())
    assert isinstance(phi, Phi) and phi.z is not None and phi.z.shape == (2, N_Z)


def _two() -> Transitions:
    return Transitions(*(torch.cat((x, x)) for x in world(0.3, 1)))
