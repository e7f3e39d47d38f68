"""Laws of the loop: controller.step is pure and replays; whatever it is fed, a safe action comes out; it drives any robot.

The robot is a point on a plane with two motors, its model exact: what goes wrong is what the test breaks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from controller.config import make_adapter
from controller.controller import Controller, Diagnostics, Memory
from controller.guard import BLIND, HOLD, OK, RELAX, THETA, Guard
from controller.run import episodes
from dynamics import data, objectives
from dynamics import train as training
from dynamics.adapt.effectiveness import Effectiveness
from dynamics.adapt.frozen import Frozen
from dynamics.adapt.gradient import GrBAL, OnlineSGD
from dynamics.adapt.last_layer import LastLayer
from dynamics.mlp import MLP
from dynamics.types import Adapter, Phi, Theta, Transitions, as_phi
from planners.icem import ICEM
from robots.ant import Ant
from robots.condition import parse
from robots.space import Euclidean

DT, B, STEPS = 0.2, 3, 12  # [s], robots, steps
SEEDS = range(B)
ADAPTERS = ("frozen", "online-sgd", "grbal", "last-layer", "effectiveness", "effectiveness+last-layer")
each_adapter = pytest.mark.parametrize("name", ADAPTERS)


def fresh_meta(model: MLP, theta: Theta, sigma: float) -> Theta:
    meta = {"effectiveness.sigma": torch.full((model.space.n_delta,), sigma)}
    for kind in (OnlineSGD, GrBAL, LastLayer, Effectiveness):
        meta |= kind(model).meta(theta)
    meta["effectiveness.precision"] = torch.full((model.space.n_action,), 0.2)
    return theta._replace(meta=meta)


def exact(ensemble: int = 1) -> tuple[MLP, Theta]:
    """The point's own dynamics: linear, so that the last layer alone expresses them. State: position (2) [m], velocity (2)."""
    model = MLP(Euclidean(4, 2), width=8, depth=1, ensemble=ensemble)
    net = model.init(torch.Generator().manual_seed(0))
    one = torch.eye(2)
    blocks = ((torch.zeros(2, 4)), torch.cat((DT * one, 0 * one), 1), torch.cat((DT**2 / 2 * one, DT * one), 1))
    net["K"] = torch.cat((torch.zeros(8, 4), *blocks, torch.zeros(1, 4))).expand(ensemble, -1, -1).clone()
    norm = {"x_mean": torch.zeros(4), "x_std": torch.ones(4), "d_mean": torch.zeros(4), "d_std": torch.full((4,), 0.1)}
    net["K"] /= 0.1
    return model, fresh_meta(model, Theta(net, norm, {}), 0.5)


def cost(s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
    return s_next[..., :2].square().sum(-1) + 0.1 * s_next[..., 2:].square().sum(-1)


GAINS = np.array(
    [[1.0, 1.0], [-1.0, 1.0], [0.3, 0.5]]
)  # what the motors make of an action: the second robot's is reversed


def move(s: np.ndarray, a: np.ndarray, gains: np.ndarray = GAINS) -> np.ndarray:
    u = a * gains
    return np.concatenate((s[:, :2] + DT * s[:, 2:] + DT**2 / 2 * u, s[:, 2:] + DT * u), 1)


START = np.array([[1.0, 0.5, 0.0, 0.0], [0.5, -1.0, 0.2, 0.0], [-1.0, 1.0, 0.0, 0.3]])


def make(name: str | Adapter = "effectiveness", ensemble: int = 1, **settings: Any) -> Controller:
    model, theta = exact(ensemble)
    adapter = make_adapter(name, model) if isinstance(name, str) else name
    one = torch.ones(2)
    guard = Guard(-one, one, torch.zeros(2))
    planner = ICEM(n_action=2, horizon=7, samples=24, elites=6)
    return Controller(
        **{"model": model, "theta": theta, "adapter": adapter, "planner": planner, "cost": cost, "guard": guard, "k": 6}
        | settings
    )


class Run:
    """A recorded run: what the controller saw, did, said and remembered."""

    def __init__(self) -> None:
        self.s: list[np.ndarray] = []
        self.a: list[np.ndarray] = []
        self.said: list[Diagnostics] = []
        self.memory: list[Memory] = []


def drive(controller: Controller, steps: int = STEPS, memory: Memory | None = None, s: np.ndarray = START) -> Run:
    run, memory = Run(), memory or controller.init(SEEDS)
    for _ in range(steps):
        run.s.append(s)
        a, memory, said = controller.step(memory, s)
        run.a.append(a)
        run.said.append(said)
        run.memory.append(memory)
        s = move(s, a)
    return run


EARLY = ICEM(n_action=2, horizon=7, samples=24, elites=6, iterations=3, ahead=2)


@each_adapter
def test_a_step_is_the_same_whether_or_not_it_was_prepared(name):
    controller = make(name, planner=EARLY)
    plain = prepared = controller.init(SEEDS)
    s = START
    for t in range(STEPS):
        if t == 7:  # a new episode: expected nowhere
            which = np.array([True, False, False])
            plain, prepared = controller.restart(plain, which), controller.restart(prepared, which)
            s = np.where(which[:, None], START, s)
        seen = s.copy()
        if t == 5:
            seen[1] = np.nan
        ready = controller.prepare(prepared)
        assert (ready.ready is None) == (t == 0) and controller.prepare(ready) is ready
        a, plain, said = controller.step(plain, seen)
        b, prepared, told = controller.step(ready, seen)
        assert np.array_equal(a, b) and same(plain, prepared)
        for x, y in zip(said[:4], told[:4], strict=True):
            assert x.shape == (B,) and np.array_equal(x, y, equal_nan=True)
        s = move(s, a)
    assert prepared.ready is None


def test_what_is_prepared_shows_in_the_plan_and_depends_on_no_mate():
    controller = make("frozen", planner=EARLY)
    together, alone = controller.init(SEEDS), [controller.init([seed]) for seed in SEEDS]
    s = START
    for t in range(8):
        seen = s.copy()
        seen[2] = np.nan if t == 4 else seen[2]
        a, together, _ = controller.step(together, seen)
        for i in SEEDS:
            one, alone[i], _ = controller.step(alone[i], seen[i : i + 1])
            np.testing.assert_allclose(one[0], a[i], atol=1e-5)
        s = move(s, a)
    # Expected elsewhere than it is: the same step begins with another search.
    elsewhere = together._replace(expected=together.expected + 1.0)
    assert not np.array_equal(controller.step(together, s)[0], controller.step(elsewhere, s)[0])
    # The model is exact and nothing is damaged in the first robot: it is expected where it comes.
    np.testing.assert_allclose(together.expected[0].numpy(), s[0], atol=1e-4)


def test_where_no_state_comes_the_plan_from_where_it_was_expected_is_sent():
    """It is the plan that the state makes where it comes as expected, and the guard goes on with it."""
    controller = make("frozen", planner=EARLY)
    s, memory = START, controller.init(SEEDS)
    for _ in range(3):
        a, memory, _ = controller.step(memory, s)
        s = move(s, a)
    held = controller.miss(controller.prepare(memory))
    assert (held[2] == HOLD).all() and np.array_equal(held[0], memory.guard.plan[:, 1].numpy())
    ready = controller.foresee(controller.prepare(memory))
    assert controller.foresee(ready) is ready and controller.foresee(memory) is memory
    expected = memory.expected.numpy()
    planned, after, _ = controller.step(ready, expected)
    sent, missed, event = controller.miss(ready)
    assert (event == BLIND).all() and not np.array_equal(sent, held[0])
    np.testing.assert_allclose(sent, planned, atol=1e-5)
    assert missed.ready is None and missed.last_s.isnan().all() and (missed.guard.failures == 1).all()
    again, missed, event = controller.miss(missed)
    assert (event == HOLD).all()
    np.testing.assert_allclose(again, after.guard.plan[:, 1].numpy(), atol=1e-5)
    events = []
    for _ in range(4):
        _, missed, event = controller.miss(missed)
        events.append(int(event[0]))
    assert events == [HOLD, RELAX, RELAX, RELAX]


def test_a_period_without_a_plan_moves_the_expectation_and_the_warm_start():
    controller = make("frozen", planner=EARLY)
    one = np.array([1.0, 1.0])
    s, memory = START, controller.init(SEEDS)
    for _ in range(3):
        a, memory, _ = controller.step(memory, s)
        s = move(s, a, one)
    held = np.full((B, 2), 0.3, np.float32)
    late = controller.skip(controller.prepare(memory), held)
    np.testing.assert_allclose(late.expected.numpy(), move(s, held, one), atol=1e-4)
    assert torch.equal(late.warm.mean[:, :-1], memory.warm.mean[:, 1:]) and late.ready is None
    # It is the next plan's: no transition leads to it, and nothing is learned.
    _, after, _ = controller.step(late, move(s, held, one))
    assert same(after.recent, memory.recent)


def leaves(x: object) -> list[Tensor]:
    if x is None or isinstance(x, Tensor):
        return [] if x is None else [x]
    return [leaf for part in (x.values() if isinstance(x, dict) else x) for leaf in leaves(part)]


def same(x: object, y: object) -> bool:
    """Bit for bit; NaN equals NaN."""
    pairs = zip(leaves(x), leaves(y), strict=True)
    return all(p.shape == q.shape and torch.equal(p.nan_to_num(nan=7.25e9), q.nan_to_num(nan=7.25e9)) for p, q in pairs)


@each_adapter
def test_a_step_is_pure(name):
    controller = make(name)
    memory, s = drive(controller).memory[-1], START.astype(np.float32)
    given = controller.theta, memory
    before = [x.clone() for x in leaves(given)]
    a, after, said = controller.step(memory, s)
    assert same(leaves(given), before) and np.array_equal(s, START.astype(np.float32))
    b, again, said_again = controller.step(memory, s)
    assert np.array_equal(a, b) and same(after, again)
    for x, y in zip(said[:4], said_again[:4], strict=True):
        np.testing.assert_array_equal(x, y)
    a[:], s[:] = 9, 9  # what is handed out is the caller's to change
    assert np.array_equal(controller.step(after, START)[0], controller.step(again, START)[0])


@each_adapter
def test_a_recorded_run_replays_bit_identically(name):
    controller = make(name)
    run = drive(controller)
    fresh, memory = make(name), make(name).init(SEEDS)
    for s, a, remembered in zip(run.s, run.a, run.memory, strict=True):
        b, memory, _ = fresh.step(memory, s)
        assert np.array_equal(a, b) and same(remembered, memory)


def test_a_real_time_run_replays_by_what_was_late():
    quick = make()
    typical = float(np.median([said.total_ms for said in drive(quick).said]))
    run = drive(replace(quick, deadline_ms=typical), 30)
    memory = quick.init(SEEDS)
    for s, a, said in zip(run.s, run.a, run.said, strict=True):
        b, memory, _ = quick.step(memory, s, late=bool((said.event >= HOLD).all()))
        assert np.array_equal(a, b)


@pytest.mark.parametrize("name", ["frozen", "effectiveness"])
def test_an_episode_of_ants_replays_bit_identically(name):
    robot, rng = Ant(threads=1), torch.Generator().manual_seed(0)
    model = MLP(robot.space, width=16, depth=2)
    s = torch.as_tensor(robot.reset([parse("healthy").at(0)] * 16, range(16))).float()
    s_next = torch.as_tensor(robot.step(np.random.default_rng(0).uniform(-1, 1, (16, 8)))).float()
    theta = fresh_meta(model, Theta(model.init(rng), model.fit_norm(s, s_next), {}), 1.0)
    one = torch.ones(8)
    controller = Controller(
        model, theta, make_adapter(name, model), ICEM(horizon=4, samples=24), robot.cost, Guard(-one, one, 0 * one), k=4
    )
    schedules = [parse(c) for c in ("healthy", "leg:3@5", "reverse:2")]
    first, again = (episodes(controller, robot, schedules, [5, 6, 7], 10, threads=2) for _ in range(2))
    assert np.array_equal(first.s, again.s) and np.array_equal(first.a, again.a)
    assert np.abs(first.a).max() > 0.1
    memory = controller.init([5])  # the first thread's slice
    for t in range(10):
        a, memory, _ = controller.step(memory, first.s[:1, t])
        assert np.array_equal(a, first.a[:1, t])


@each_adapter
def test_a_batch_is_its_robots_one_by_one(name):
    controller = make(name)
    run = drive(controller)
    for i in SEEDS:
        memory = controller.init([i])
        for s, a, said in zip(run.s, run.a, run.said, strict=True):
            alone, memory, says = controller.step(memory, s[i : i + 1])
            # float32 rounds a product of another shape differently, and adaptation and planning pass that on.
            np.testing.assert_allclose(alone[0], a[i], atol=1e-3)
            assert says.event[0] == said.event[i]
            np.testing.assert_allclose(says.error_after[0], said.error_after[i], atol=1e-3)


@pytest.mark.parametrize("ensemble", [1, 3])
@each_adapter
def test_a_restarted_robot_forgets_everything_and_its_mates_nothing(name, ensemble):
    controller = make(name, ensemble)
    memory = drive(controller).memory[-1]
    restarted = controller.restart(memory, np.array([False, True, False]))
    assert restarted.rng is memory.rng
    fresh = controller.init(SEEDS)
    parts = [(m.recent, m.carry, m.warm, m.guard, m.last_s) for m in (restarted, memory, fresh)]
    for new, old, first in zip(*map(leaves, parts), strict=True):
        assert new.shape == old.shape
        assert same([new[0], new[2]], [old[0], old[2]]) and same(new[1], first[1])
    s = torch.as_tensor(START).float()[:, None]
    a = torch.ones(B, 1, 2)
    theirs, ours = (controller.model.normalised(m.phi, s, a) for m in (memory, restarted))
    frozen = controller.model.normalised(as_phi(controller.theta), s, a)
    torch.testing.assert_close(ours, torch.stack((theirs[0], frozen[1], theirs[2])))
    after, _, said = controller.step(restarted, START)
    assert np.isfinite(after).all() and np.isnan(said.error_before).tolist() == [False, True, False]


GARBAGE = (np.nan, [np.nan, 0, 0, 0], -np.inf, 1e39, [1e30, 1, -3e38, 0], 1e20, 1e5)  # 1e39 is infinite in float32


@each_adapter
def test_garbage_gives_a_safe_action_and_leaves_no_trace(name):
    # A robot for each kind, all with a reversed motor, is fed it on and off; the last is not.
    n = len(GARBAGE) + 1
    controller, gains, s = make(name), GAINS[1], np.tile(START[1], (n, 1))
    memory, memory_alone, alone = controller.init(range(n)), controller.init([n - 1]), s[-1:]
    for t in range(30):
        seen, broken = s.copy(), t in (0, 5, 6, 7, 8, 9, 10, 14)
        if broken:
            for i, garbage in enumerate(GARBAGE):
                seen[i] = garbage
        a, memory, said = controller.step(memory, seen)
        assert np.isfinite(a).all() and (np.abs(a) <= 1).all()
        assert ((said.event[:-2] >= HOLD) == broken).all()
        assert np.isin(said.event[-2:], (OK, THETA)).all()  # 1e5 is a state like any other
        assert all(x.abs().max() < 1e6 for x in memory.recent[:3])  # not a word of it is remembered
        s = move(s, a, gains)
        a, memory_alone, _ = controller.step(memory_alone, alone)
        alone = move(alone, a, gains)
    np.testing.assert_allclose(s[-1], alone[0], atol=1e-3)  # it has not noticed the others
    assert memory.recent.mask.all()
    assert all(x.isfinite().all() for x in leaves((memory.phi, memory.carry, memory.recent, memory.warm)))
    if memory.phi.gain is not None:  # adaptation has gone on
        np.testing.assert_allclose(memory.phi.gain, np.tile(gains, (n, 1)), atol=0.4)


def test_relaxing_ends_at_the_safe_action():
    controller = make()
    memory = drive(controller, 3).memory[-1]
    events = []
    for _ in range(30):
        a, memory, said = controller.step(memory, np.full((B, 4), np.nan))
        events.append(said.event[0])
    assert events == [HOLD] * 3 + [RELAX] * 27
    np.testing.assert_allclose(a, 0, atol=1e-3)


@each_adapter
def test_nothing_is_learned_from_an_outage(name):
    controller = make(name)
    memory = drive(controller).memory[-1]
    blind = memory
    for _ in range(5):
        _, blind, said = controller.step(blind, np.full((B, 4), np.nan))
        assert np.isnan(said.error_before).all() and np.isnan(said.error_after).all()
    assert same((blind.recent, blind.carry), (memory.recent, memory.carry))
    _, seeing, said = controller.step(blind, START)  # from nowhere to here: not a transition
    assert same((seeing.recent, seeing.carry), (memory.recent, memory.carry)) and np.isnan(said.error_before).all()
    _, seeing, said = controller.step(seeing, move(START, seeing.guard.action.numpy()))
    assert not same(seeing.recent, memory.recent) and np.isfinite(said.error_before).all()


def test_what_is_remembered_is_what_was_sent_and_what_it_led_to():
    # Also while the guard holds, when the plan's action is not what was sent.
    controller, s = make("frozen"), START
    memory = controller.init(SEEDS)
    for t in range(STEPS):
        a, memory, _ = controller.step(memory, s, late=t % 4 > 1)
        s_next = move(s, a)
        _, seen, _ = controller.step(memory, s_next)
        for remembered, true in zip(seen.recent, (s, a, s_next), strict=False):
            np.testing.assert_array_equal(remembered[:, -1], true.astype(np.float32))
        assert seen.recent.mask.sum(1).tolist() == [min(t + 1, controller.k)] * B
        s = s_next


def test_a_carry_that_diverges_starts_again():
    model, theta = exact()
    wild = theta._replace(meta=theta.meta | {"online-sgd.log_rate": torch.tensor(6.0)})
    controller = make(OnlineSGD(model), theta=wild)
    run = drive(controller, 30)
    fresh = controller.adapter.init(wild, B)
    diverged = 0
    for memory, said in zip(run.memory, run.said, strict=True):
        assert all(x.isfinite().all() for x in leaves((memory.carry, memory.phi)))
        diverged += int((said.event == THETA).sum())
    again = [all(torch.equal(m.carry[n][i], w[i]) for n, w in fresh.items()) for m in run.memory[1:] for i in SEEDS]
    assert diverged > STEPS and any(again) and not all(again)


@dataclass(frozen=True)
class Worse:
    """An adapter that is wrong about the robots in `whom`."""

    model: MLP
    how: str
    whom: Sequence[int]

    def init(self, theta: Theta, b: int) -> None:
        return None

    def adapt(self, theta: Theta, carry: None, recent: Transitions) -> tuple[Phi, None]:
        b = recent.mask.shape[0]
        wrong = torch.zeros(b, dtype=torch.bool)
        wrong[list(self.whom)] = True
        wrong &= recent.mask.any(1)  # without a context there is nothing to judge it by
        if self.how == "gain":
            return Phi(theta.net, theta.norm, torch.where(wrong[:, None], -2.0, 1.0).expand(b, 2)), None
        w = theta.net["K"].expand(b, -1, -1, -1)
        bad = {"reversed": -w, "nan": w * torch.nan, "inf": w / 0}[self.how]
        return Phi(theta.net | {"K": torch.where(wrong[:, None, None, None], bad, w)}, theta.norm), None


@pytest.mark.parametrize("how", ["gain", "reversed", "nan", "inf"])
def test_where_phi_is_worse_than_theta_theta_plans(how):
    healthy = np.ones((B, 2))
    model, _ = exact()
    bad, frozen = make(Worse(model, how, (0, 2))), make(Frozen(model))
    memory, memory_frozen, s = bad.init(SEEDS), frozen.init(SEEDS), START
    for t in range(STEPS):
        a, memory, said = bad.step(memory, s)
        b, memory_frozen, _ = frozen.step(memory_frozen, s)
        np.testing.assert_allclose(a, b, atol=1e-4)
        if t > 0:
            assert said.event.tolist() == [THETA, OK, THETA]
            assert all(x.isfinite().all() for x in leaves(memory.phi))
        s = move(s, b, healthy)


def test_where_phi_is_better_phi_plans():
    run = drive(make("effectiveness"), 30)
    assert (run.said[-1].event[1:] == OK).all()
    np.testing.assert_allclose(run.memory[-1].phi.gain, GAINS, atol=0.3)
    # The reversed motor: adapted, the robot stands at the origin; frozen, it flees from it.
    frozen = drive(make("frozen"), 30)
    assert np.abs(run.s[-1][1, 0]) < 0.3 and np.abs(frozen.s[-1][1, 0]) > 1


def test_errors_are_those_of_the_model_in_force_on_what_came_next():
    controller = make("effectiveness")
    run = drive(controller)
    assert np.isnan(run.said[0].error_before).all() and np.isnan(run.said[0].error_after).all()
    for t in range(1, STEPS):
        s, a, s_next = (torch.as_tensor(x).float()[:, None] for x in (run.s[t - 1], run.a[t - 1], run.s[t]))
        for phi, said in (
            (as_phi(controller.theta), run.said[t].error_before), (run.memory[t - 1].phi, run.said[t].error_after),
        ):  # fmt: skip
            error = controller.model.normalised(phi, s, a)[:, 0, 0] - controller.model.target(phi, s, s_next)[:, 0]
            np.testing.assert_allclose(said, error.square().mean(-1).sqrt(), atol=1e-5)


@pytest.mark.parametrize("how", ["late", "deadline"])
def test_a_late_step_holds(how):
    controller = make("frozen", deadline_ms=1e-6 if how == "deadline" else None)
    memory = drive(make("frozen"), 3).memory[-1]
    plan, s, events = memory.guard.plan, START, []
    for t in range(5):
        a, memory, said = controller.step(memory, s, late=True if how == "late" else None)
        events.append(said.event.tolist())
        if t < 3:
            np.testing.assert_array_equal(a, plan[:, t + 1])
        s = move(s, a)
    assert events == [[HOLD] * B] * 3 + [[RELAX] * B] * 2
    _, _, said = controller.step(memory, s, late=False)  # in time again
    assert said.event.tolist() == [OK] * B


def test_a_state_of_another_shape_is_refused_by_name():
    controller = make("frozen")
    for wrong in (START[0], START[:2], START[:, :3]):
        with pytest.raises(ValueError, match=r"state has shape \(.*\), wanted \(3, 4\)"):
            controller.step(controller.init(SEEDS), wrong)


class Pendulum:
    """Gymnasium's Pendulum-v1: (cos, sin, angular velocity) [rad/s], a torque of +-2 [N m]. gain: what becomes of the torque."""

    space = Euclidean(3, 1)

    def __init__(self, gain: float = 1.0):
        self.env, self.gain = gymnasium.make("Pendulum-v1"), gain

    def reset(self, seed: int) -> np.ndarray:
        return self.env.reset(seed=seed)[0]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float]:
        s, reward, *_ = self.env.step(2 * self.gain * action)
        return s, float(reward)

    @staticmethod
    def cost(s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
        return torch.atan2(s_next[..., 1], s_next[..., 0]).square() + 0.1 * s_next[..., 2].square()


@pytest.fixture(scope="module")
def pendulum() -> tuple[MLP, Theta]:
    """A model learned from 16 episodes of random torque."""
    robot, rng = Pendulum(), np.random.default_rng(0)
    rows = []
    for episode in range(16):
        s = robot.reset(episode)
        for _ in range(150):
            a = rng.uniform(-1, 1, 1).astype(np.float32)
            s_next, _ = robot.step(a)
            rows.append((s, a, s_next, episode))
            s = s_next
    s, a, s_next, episode = (torch.as_tensor(np.stack(x)) for x in zip(*rows, strict=True))
    dataset = data.Rows(s, a, s_next, episode, torch.zeros_like(episode), episode >= 0, torch.ones(len(s), 1))
    model = MLP(robot.space, width=32, depth=2)
    net, norm = model.init(torch.Generator().manual_seed(0)), model.fit_norm(s, s_next)
    loss, _ = objectives.plain(model, norm, dataset, objectives.Sampler.of(dataset), batch=128, horizon=1)
    config = training.TrainConfig(steps=1000, lr=3e-3)
    net = objectives.join(
        training.fit(loss, training.fresh(objectives.split(Theta(net, norm, {}))), config).params, norm
    ).net
    return model, fresh_meta(model, Theta(net, norm, {}), 0.05)


def swing(controller: Controller, gain: float, steps: int = 120) -> tuple[list[float], Memory]:
    """-> rewards, the last memory. Nothing is known of the robot but states and actions."""
    robot, memory = Pendulum(gain), controller.init([0])
    s, rewards = robot.reset(seed=100), []
    for _ in range(steps):
        a, memory, _ = controller.step(memory, s[None])
        s, reward = robot.step(a[0])
        rewards.append(reward)
    return rewards, memory


@pytest.mark.parametrize(("name", "gain"), [("frozen", 1.0), ("effectiveness", 1.0), ("effectiveness", -1.0)])
def test_any_gymnasium_robot_can_be_driven(name, gain, pendulum):
    model, theta = pendulum
    one = torch.ones(1)
    controller = Controller(
        model, theta, make_adapter(name, model), ICEM(n_action=1, horizon=15, samples=64, std=0.8), Pendulum.cost,
        Guard(-one, one, 0 * one),
    )  # fmt: skip
    rewards, memory = swing(controller, gain)
    assert np.mean(rewards[-30:]) > -0.5  # upright and still is 0, hanging -10
    if name == "effectiveness":
        assert memory.phi.gain.item() == pytest.approx(gain, abs=0.3)
