"""Laws of the learned part: normaliser, derivatives, losses, symmetric images, datasets and checkpoints."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dynamics import checkpoint, data, objectives, scalar
from dynamics import train as training
from dynamics.adapt.effectiveness import normal_equations
from dynamics.checkpoint import CheckpointError
from dynamics.data import DataError
from dynamics.losses import multi_step
from dynamics.mlp import LOG_STD, MLP, mul
from dynamics.types import Params, Phi, Theta, Transitions, as_phi, map_params
from robots.ant import Ant
from robots.condition import HEALTHY
from robots.space import FloatingBase
from robots.symmetry import ant

SPACE = FloatingBase(8, 8)
each_ensemble = pytest.mark.parametrize("e", [1, 3])


@pytest.fixture(scope="module")
def walk() -> Transitions:
    """(b, t, .) real transitions of eight ants under random actions, float64."""
    robot, rng = Ant(threads=1), np.random.default_rng(0)
    start = robot.reset([HEALTHY] * 8, range(8))
    actions = np.repeat(rng.uniform(-1, 1, (8, 10, 8)), 4, axis=1)
    s = torch.as_tensor(np.concatenate((start[:, None], robot.rollout(actions)), 1))
    return Transitions(s[:, :-1], torch.as_tensor(actions), s[:, 1:], torch.ones(8, 40, dtype=torch.bool))


def make_theta(model: MLP, walk: Transitions, symmetric: bool = False) -> Theta:
    """Random weights with heads that matter, float32; normalised for the walk."""
    rng = torch.Generator().manual_seed(0)
    net = model.init(rng)
    for head, scale in (("K", 1.0), ("V", 0.3)):
        net[head] = scale * torch.randn(net[head].shape, generator=rng) / model.n_psi**0.5
    s, s_next = (x.float().flatten(0, 1) for x in (walk.s, walk.s_next))
    return Theta(net, model.fit_norm(s, s_next, ant() if symmetric else ()), {})


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


def test_rows_are_seen_as_images_where_all_of_the_body_is_told_and_believed(walk):
    """A loss over rows of a short leg, of which training has been told all, of a leg without torque, whose gains are inferred, and of a short leg
    to which a model is fitted that knows of no gains: only the first is seen mirrored."""
    model = MLP(SPACE, 8, 1, body=4)
    theta = make_theta(model, walk, symmetric=True)
    s, a, s_next = (x.float().flatten(0, 1) for x in walk[:3])
    short = torch.tensor(Ant.tell("leg-short:1"))
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Watched(MLP):
        def psi(self, net, x):
            seen.append((x[0].detach(), net["K"]))
            return super().psi(net, x)

    watched = Watched(SPACE, 8, 1, body=4)
    for told, gain, mirrored in (
        (short, short, True),
        (torch.tensor(Ant.tell("leg:1")), short, False),
        (short, model.neutral, False),
    ):
        n = len(s)
        rows = data.Rows(
            s, a, s_next, torch.arange(n) // 40, torch.zeros(n).long(), torch.zeros(n) > 0, told.expand(n, -1)
        )
        gains = gain.expand(8, -1)
        seen.clear()
        loss = objectives.regression(watched, theta.norm, rows, gains, objectives.Sampler.of(rows), 400, ant())
        loss(objectives.split(theta), torch.Generator().manual_seed(0))
        bodies = seen[0][0][:, -4:].unique(dim=0)
        assert len(bodies) == (4 if mirrored else 1) and (bodies.sum(1) == gain[8:].sum()).all()


def test_images_are_the_features_and_targets_of_really_transformed_states(walk):
    model = MLP(SPACE, 16, 2, body=4)
    theta = make_theta(model, walk, symmetric=True)
    s, a, s_next = (x.float().flatten(0, 1) for x in walk[:3])
    a = torch.cat((a, torch.rand(len(a), 4, generator=torch.Generator().manual_seed(2))), 1)
    x, y = model.inputs(theta, s, a), model.target(theta, s, s_next)
    allowed = torch.arange(len(s)) % 3 > 0
    at = torch.randperm(len(s), generator=torch.Generator().manual_seed(0))
    x_image, y_image = objectives.Images(ant(), allowed, 4)(at, x[at], y[at], torch.Generator().manual_seed(1))
    # The states themselves are transformed: the body axes of a turned or mirrored robot, its joints renamed.
    candidates = []
    for g in ant():
        turned = [_image(g, z[at]) for z in (s, s_next)]
        acts = torch.cat((a[at, :8] @ g.action.T, a[at, 8:] @ g.body.T), 1)
        candidates.append((model.inputs(theta, turned[0], acts), model.target(theta, *turned)))
    close = torch.stack(
        [((x_image - i).abs().amax(1) < 1e-3) & ((y_image - j).abs().amax(1) < 1e-3) for i, j in candidates]
    )
    assert (close.sum(0) == 1).all()  # each is an image, and of one symmetry alone
    assert close[0, ~allowed[at]].all()  # a row that is not of the healthy robot stays as it is
    share = close[:, allowed[at]].float().mean(1)
    assert (share > 0.06).all() and (share < 0.2).all()  # all eight are drawn, 1/8 each


def _image(g, s: Tensor) -> Tensor:
    """(n, 31) -> (n, 31). The mirror image of a robot that moves to its left moves to its right."""
    x = SPACE.features(s) @ g.features.T
    f = s[:, 3:6] @ g.features[1:4, 1:4].T
    y = s[:, 1:2] * torch.linalg.det(g.features[1:4, 1:4])
    return torch.cat((s[:, :1], y, x[:, :1], f, x[:, 1:]), -1)


def shard(folder, b: int, t: int, seed: int, episode: Tensor | None = None, **meta) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    columns = {
        "s": torch.randn(b, t, 31, generator=rng), "a": torch.rand(b, t, 8, generator=rng) * 2 - 1,
        "s_next": torch.randn(b, t, 31, generator=rng), "episode": torch.zeros(b, t) if episode is None else episode,
    }  # fmt: skip
    data.append(folder, **columns, meta={"robot": "ant", **meta})
    return columns


def load(folder) -> data.Rows:
    return data.load(folder, "ant", 31, 8)


def test_what_is_appended_is_loaded(tmp_path):
    first = shard(tmp_path, 3, 5, 0, conditions=["healthy", "leg:0", "healthy"])
    second = shard(tmp_path, 2, 4, 1)
    assert [p.name for p in data.shards(tmp_path)] == ["shard-00000.safetensors", "shard-00001.safetensors"]
    assert not list(tmp_path.glob("*.partial"))
    rows = load(tmp_path)
    for name in ("s", "a", "s_next"):
        assert torch.equal(getattr(rows, name), torch.cat([c[name].flatten(0, 1) for c in (first, second)]))
    assert rows.episode.tolist() == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 4 + [4] * 4
    assert rows.shard.tolist() == [0] * 15 + [1] * 8
    assert rows.healthy.tolist() == [True] * 5 + [False] * 5 + [True] * 5 + [False] * 8  # unknown is not healthy
    assert (
        torch.equal(rows.told.isfinite(), rows.healthy[:, None].expand(-1, 8)) and (rows.told[rows.healthy] == 1).all()
    )
    loaded, meta = data.read_shard(data.shards(tmp_path)[0], "ant", 31, 8)
    assert meta["conditions"][1] == "leg:0" and all(torch.equal(loaded[n], first[n]) for n in first)


def test_windows_never_cross_episodes(tmp_path):
    # Rows of several episodes, some a single transition long; s counts the rows.
    episode = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2, 3, 3], [0] * 10, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]])
    shard(tmp_path, 3, 10, 0, episode)
    shard(tmp_path, 3, 10, 1, episode.flip(0))
    rows = load(tmp_path)
    rows = data.Rows(torch.arange(60.0)[:, None].expand(-1, 31), *tuple(rows)[1:])
    assert rows.episode.unique_consecutive().tolist() == list(range(2 * (4 + 1 + 10)))
    before, ahead = data.window(rows, torch.arange(60), 6, 4)
    for at in range(60):
        same = (rows.episode == rows.episode[at]).nonzero()[:, 0]
        past, future = same[(same < at) & (same >= at - 6)], same[(same >= at) & (same < at + 4)]
        assert before.s[at, before.mask[at], 0].long().tolist() == past.tolist()
        assert ahead.s[at, ahead.mask[at], 0].long().tolist() == future.tolist()
        assert before.mask[at].tolist() == sorted(before.mask[at].tolist())  # padding comes first
        assert ahead.mask[at, 0]
    assert all(x.isfinite().all() for x in (*before[:3], *ahead[:3]))


def test_every_eighth_episode_is_held_out(tmp_path):
    for seed in range(4):
        shard(tmp_path, 8, 6, seed)
    rows = load(tmp_path)
    sampler = objectives.Sampler.of(rows)
    assert set((rows.episode[sampler.held_out] % 8).tolist()) == {7}
    drawn = sampler.draw(4000, torch.Generator().manual_seed(0))
    assert len(drawn) == 4000 and not set(drawn.tolist()) & set(sampler.held_out.tolist())
    assert set(rows.shard[drawn[2000:]].tolist()) == {3}  # the newer half comes from the newest quarter
    assert set(rows.shard[drawn[:2000]].tolist()) == {0, 1, 2, 3}
    assert sorted(torch.cat((sampler.train, sampler.held_out)).tolist()) == list(range(rows.n))


@each_ensemble
def test_save_then_load_is_bit_equal_but_for_value_and_risk_which_are_kept_in_half_precision(e, tmp_path, walk):
    model = MLP(SPACE, 16, 2, e)
    theta = make_theta(model, walk)._replace(meta={"grbal.log_rate.W0": torch.tensor(-3.0), "x.y": torch.randn(3)})
    value, risk = (scalar.init(torch.randn(9, 29), 5, torch.Generator().manual_seed(i)) for i in range(2))
    theta = theta._replace(value=value, risk=risk)
    path, record = tmp_path / "new" / "model.safetensors", {"seed": 3, "config": {"lr": 1e-3}}
    checkpoint.save(path, "ant", model, theta, record)
    loaded = checkpoint.load(path, "ant", SPACE)
    assert loaded.model == model and loaded.record == record
    for name, group, other in zip(theta._fields, theta, loaded.theta, strict=True):
        assert group.keys() == other.keys()
        halved = {n: w.half().float() if name in ("value", "risk") else w for n, w in group.items()}
        assert all(torch.equal(w, other[n]) and w.dtype == other[n].dtype for n, w in halved.items())
    first = path.read_bytes()
    checkpoint.save(path, "ant", loaded.model, loaded.theta, loaded.record)
    assert path.read_bytes() == first and not list(path.parent.glob("*.partial"))


@pytest.mark.parametrize("at", range(0, 100, 7))
def test_a_checkpoint_cut_anywhere_is_refused(at, tmp_path, walk):
    model = MLP(SPACE, 16, 2)
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, "ant", model, make_theta(model, walk), {})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * at // 100])
    with pytest.raises(CheckpointError, match="truncated"):
        checkpoint.load(path, "ant", SPACE)


def test_a_checkpoint_with_another_tensor_missing_misshapen_or_not_finite_is_refused(tmp_path, walk):
    model = MLP(SPACE, 16, 2)
    path = tmp_path / "model.safetensors"
    behind = scalar.init(torch.randn(9, 29), 5, torch.Generator().manual_seed(1))
    checkpoint.save(path, "ant", model, make_theta(model, walk)._replace(value=behind, risk=behind), {})
    good = load_file(path)
    header = {"format": 1, "robot": "ant", "model": {"width": 16, "depth": 2, "ensemble": 1}, "record": {}}

    def refused(tensors: Params, match: str, **changed) -> None:
        save_file(tensors, path, {"sealegs": json.dumps(header | changed)})
        with pytest.raises(CheckpointError, match=match):
            checkpoint.load(path, "ant", SPACE)

    nan = good["net.K"].clone()
    nan[0, 3, 5] = torch.nan
    refused(good | {"net.K": nan}, r"net\.K is not finite")
    refused(good | {"weights.K": nan}, r"weights\.K")
    refused(good | {"net.K": good["net.K"][:, 1:].clone()}, r"net\.K has shape")
    refused({n: w for n, w in good.items() if n != "norm.d_std"}, r"norm\.d_std has shape None")
    refused({n: w for n, w in good.items() if n != "value.b1"}, r"value\.b1 has shape None")
    refused({n: w for n, w in good.items() if n != "value.W0"}, r"value\.W0 has shape None")
    refused(good | {"value.W0": good["value.W0"][1:].clone()}, r"value\.W0 has shape")
    refused(good | {"value.W2": good["value.W2"][:, 0].clone()}, r"value\.W2 has shape")
    refused(good | {"risk.b1": good["risk.b1"][1:].clone()}, r"risk\.b1 has shape")
    refused(good, "wanted", model={"width": 17, "depth": 2, "ensemble": 1})
    refused(good, "bad model header", model={"width": 16})
    refused(good, "bad model header", model=None)
    refused(good, "for robot 'cheetah', wanted 'ant'", robot="cheetah")
    refused(good, "format 1", format=2)
    save_file(good, path, {"sealegs": json.dumps(header)})
    checkpoint.load(path, "ant", SPACE)  # and the same without a fault is taken


def test_training_in_two_parts_ends_at_the_same_bits(tmp_path):
    target = torch.linspace(-1, 1, 12).view(3, 4)

    batches = []

    def loss(params: Params, rng: torch.Generator) -> Tensor:
        batches.append(torch.randn(3, 4, generator=rng))
        return (params["net.w"] - target + 0.1 * batches[-1]).square().sum()

    def validate(params: Params) -> float:
        return float((params["net.w"] - target).square().sum())

    config = training.TrainConfig(steps=40, lr=0.1, validate_every=5, save_every=10)
    start = training.fresh({"net.w": torch.zeros(3, 4)})
    whole = training.fit(loss, start, config, validate)
    assert validate(whole.params) < 0.1 * validate(start.params) and whole.step == 40
    assert len(torch.stack(batches).unique(dim=0)) == 40
    path = tmp_path / "state.safetensors"

    class Killed(Exception):
        pass

    def kill(p: training.Progress) -> None:
        if p.step == 27:
            raise Killed

    with pytest.raises(Killed):
        training.fit(loss, start, config, validate, path, kill)
    resumed = training.resume(path, config)
    assert resumed.step == 20
    finished = training.fit(loss, resumed, config, validate)
    for group, other in zip(whole[:3], finished[:3], strict=True):
        assert group.keys() == other.keys() and all(torch.equal(w, other[n]) for n, w in group.items())
    assert whole[3:] == finished[3:]


def test_training_stops_early_once(tmp_path):
    # A run that has stopped does not go on when it is resumed.
    config = training.TrainConfig(steps=100, lr=0.1, validate_every=1, patience=4)
    scores = iter([5.0, 4.0, 3.0, *[6.0] * 97])

    def loss(params: Params, rng: torch.Generator) -> Tensor:
        return params["net.w"].sum()

    stopped = training.fit(loss, training.fresh({"net.w": torch.zeros(2)}), config, lambda _: next(scores))
    assert stopped.step == 7 and stopped.best_loss == 3.0
    torch.testing.assert_close(stopped.best["net.w"], torch.full((2,), -0.3))  # Adam's steps are lr long here
    path = tmp_path / "state.safetensors"
    training.save(path, stopped, config)
    again = training.fit(loss, training.resume(path, config), config, lambda _: 0.0)
    assert again.step == 7 and again.best_loss == 3.0
    assert torch.equal(again.params["net.w"], stopped.params["net.w"])


def test_a_shard_that_is_bad_is_refused(tmp_path):
    good = shard(tmp_path, 2, 4, 0)
    path = data.shards(tmp_path)[0]
    meta = {"robot": "ant"}

    def refused(match: str, meta: dict | None = meta, **changed: Tensor) -> None:
        tensors = {k: v.contiguous().clone() for k, v in (good | changed).items()}
        save_file(tensors | {"episode": tensors["episode"].int()}, path, meta and {"sealegs": json.dumps(meta)})
        with pytest.raises(DataError, match=match):
            load(tmp_path)

    nan = good["s_next"].clone()
    nan[1, 2, 7] = torch.inf
    refused(r"s_next\[1, 2, 7\] is inf", s_next=nan)
    refused(r"action of 1\.5 is out of bounds", a=torch.full((2, 4, 8), 1.5))
    refused(r"a has shape \(2, 4, 6\)", a=good["a"][..., :6])
    refused(r"s_next has shape \(2, 3, 31\)", s_next=good["s_next"][:, :3])
    refused(r"s has shape \(4, 31\)", s=good["s"][0])
    refused("'cheetah', wanted 'ant'", {"robot": "cheetah"})
    refused("None, wanted 'ant'", None)
    refused("s has shape", **{n: w[:, :0] for n, w in good.items()})
    refused("conditions", {"robot": "ant", "conditions": ["healthy"]})
