"""Laws of the loop: controller.step is pure and replays to the bit, and each robot of a batch is on its own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from point import SEEDS, START, B, drive, each_adapter, fresh_meta, leaves, make, same

from controller.config import make_adapter
from controller.controller import Controller
from controller.guard import HOLD, Guard
from controller.run import episodes
from dynamics.mlp import MLP
from dynamics.types import Theta, as_phi
from planners.icem import ICEM
from robots.ant import Ant
from robots.condition import parse


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
