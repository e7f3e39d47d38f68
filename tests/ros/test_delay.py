"""The state predicted over the time until its command acts: what it predicts, and what that is worth."""

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; valid: pip install 'sealegs[ros]'")

from lockstep import CONFIG

from controller.config import make_controller
from controller.flyer import N_Z
from controller.make_flyer import make_flyer
from controller.ros.acting import Acting
from controller.ros.brains import BRAINS
from controller.ros.controller_config import ControlConfig
from controller.ros.delays import DelaysConfig, run
from controller.ros.flight_config import FlightConfig, make_robot, make_trajectory
from controller.ros.loop import MISS, STATE, Loop
from dynamics.types import as_phi
from robots.ant import Ant
from robots.condition import HEALTHY
from robots.quadrotor_condition import Condition
from robots.trajectory import Reference

MS = 1_000_000
PERIOD = 50 * MS


def acting(*sent: tuple[int, int, float]) -> Acting:
    """(seq, ms, command)"""
    found = Acting(PERIOD)
    for seq, at, command in sent:
        found.add(seq, at * MS, np.array([command]))
    return found


def test_windows_are_whole_periods_and_a_rest_and_weigh_commands_by_their_time():
    a = acting((1, 0, 1.0), (2, 60, 3.0), (3, 110, 5.0))
    windows = list(a.windows(20 * MS, 145 * MS, 3))
    assert [share for share, _ in windows] == pytest.approx([1.0, 1.0, 0.5])
    assert [float(c[0]) for _, c in windows] == pytest.approx([(40 * 1 + 10 * 3) / 50, (40 * 3 + 10 * 5) / 50, 5.0])


def test_windows_know_nothing_of_later_commands_and_nothing_before_the_first():
    a = acting((1, 30, 1.0), (2, 60, 3.0))
    assert list(a.windows(0, 30 * MS, 9)) == []
    ((share, command),) = a.windows(20 * MS, 60 * MS, 9)
    assert share == pytest.approx(0.6) and command[0] == 1.0
    ((share, command),) = a.windows(60 * MS, 100 * MS, 1)  # the second was not known then
    assert share == pytest.approx(0.8) and command[0] == 1.0


def test_an_ant_is_planned_from_where_its_model_expects_it():
    ant = Ant(threads=1)
    s = ant.reset([HEALTHY], [3])
    controller = make_controller(ant, CONFIG)
    memory = controller.init([0])
    actions = np.random.default_rng(0).uniform(-1, 1, (2, 1, 8))
    pending = ((1.0, actions[0]), (0.4, actions[1]))
    got, after, _ = controller.step(memory, s, pending=pending)
    phi = as_phi(controller.theta)
    predict = controller.model.stepper(phi)
    now = torch.as_tensor(s, dtype=torch.float32)
    for share, a in pending:
        then = predict(now[:, None], torch.as_tensor(a, dtype=torch.float32)[:, None])[:, 0].clone()
        now = ant.space.retract(now, share * ant.space.local(now, then))
    wanted = controller.step(memory, now.numpy())[0]
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    assert np.array_equal(after.last_s.numpy(), s.astype(np.float32))  # what is learned from is what was measured


def test_a_quadrotor_is_planned_from_where_its_model_expects_it():
    flight = FlightConfig(trajectory="hover")
    robot = make_robot(flight)
    path = make_trajectory(flight, robot, 0)
    s = robot.reset([Condition(payload=(0.3, 0.8))], [1], path.at(np.zeros(1)).p)
    flyer = make_flyer("variational", robot, "vehicle")
    reference = Reference(*(x[None] for x in path.at(np.arange(flyer.preview + 1) * robot.dt)))
    a = np.array([[0.3, 0.5, -0.5, 0.2]])
    got, memory = flyer.step(s, reference, flyer.init(1), pending=((1.0, a),))
    z = memory.phi.z if memory.phi.z is not None else torch.zeros(1, N_Z)
    x, act = torch.as_tensor(s)[:, None].float(), torch.as_tensor(a)[:, None].float()
    then = flyer.model.predict(memory.phi, x, act, z[:, None])[:, 0].double().numpy()
    wanted, _ = flyer.step(then, reference, flyer.init(1))
    plain, _ = flyer.step(s, reference, flyer.init(1))
    assert np.abs(got - wanted).max() < 0.02 * np.abs(plain - wanted).max() + 1e-3
    assert np.array_equal(memory.last_s, s)


def test_the_model_sees_what_acted_and_the_plan_what_will():
    """Half the period the old command acts: without its times the model is told the new one. With the shipped planner: a robot that hardly
    moves commands the same from step to step."""
    told = [run(DelaysConfig(steps=60), 50.0, compensated, 1) for compensated in (False, True)]
    assert told[1]["error_after"] < 0.7 * told[0]["error_after"], told
    assert told[1]["score"] > 1.5 * told[0]["score"], told


def test_a_quadrotor_flies_better_where_its_delay_is_predicted():
    flight = FlightConfig(payload_seen=False)
    told = [run(DelaysConfig("quadrotor", steps=130, flight=flight), 20.0, c, 1) for c in (False, True)]
    assert told[1]["score"] < 0.5 * told[0]["score"] and not told[1]["trouble"], told


def test_the_time_of_a_missed_plan_is_on_the_same_clock():
    brain = BRAINS["ant"](ControlConfig(controller=CONFIG), None)
    loop, s = Loop(brain, 0, 1), brain.rest()
    for k in range(3):
        job = loop.begin(s, k * PERIOD, k * PERIOD, 20 * MS)
        assert job.timing is not None and (k == 0) == (not job.timing.acted)
        _, row = loop.finish(job, loop.plan(job), k * PERIOD + 20 * MS)
        assert row is not None and (row.acts_us, row.lead_us) == (20_000, 20_000)
    _, row = loop.miss(STATE, now=2 * PERIOD + 70 * MS)
    assert row.kind == MISS and row.acts_us == 70_000 and np.isnan(row.lead_us)
    job = loop.begin(s, 3 * PERIOD, 3 * PERIOD, 20 * MS)
    assert job.timing is not None and sum(share for share, _ in job.timing.acted) == pytest.approx(1.0)
    assert job.timing.lead == pytest.approx(0.4) and len(job.timing.pending) == 1


def test_a_command_on_its_way_does_not_act_yet():
    brain = BRAINS["ant"](ControlConfig(controller=CONFIG), None)
    loop, s, sent = Loop(brain, 0, 1, command_way=30 * MS), brain.rest(), []
    for k in range(4):  # sent 20 ms after its state, acts another 30 ms, and so a period, later
        job = loop.begin(s, k * PERIOD, k * PERIOD, 50 * MS)
        assert job.timing is not None
        if k >= 2:
            ((share, acting),) = job.timing.acted
            assert share == pytest.approx(1.0) and np.array_equal(acting, sent[-2])
            ((share, waiting),) = job.timing.pending
            assert share == pytest.approx(1.0) and np.array_equal(waiting, sent[-1])
        action, row = loop.finish(job, loop.plan(job), k * PERIOD + 20 * MS)
        assert action is not None and row is not None
        assert (row.acts_us, row.latency_ms) == (50_000, 20.0)
        sent.append(action)


def test_a_quadrotor_learns_where_it_knows_what_acted():
    """Not before its first command acts; across a command without a plan only where the times are known."""
    brain = BRAINS["quadrotor"](ControlConfig(robot="quadrotor"), None)
    loop, s, period = Loop(brain, 0, 1), brain.rest(), 10 * MS
    fresh = []

    def state(k: int, lead: int | None = 25 * MS) -> bool:
        job = loop.begin(s, k * period, k * period, lead)
        _, row = loop.finish(job, loop.plan(job), k * period + 25 * MS)
        assert row is not None and np.isnan(row.error_after)  # the command does not wait for it
        told = loop.conclude(row)
        fresh.append(bool(loop.memory.pilot.newest.fresh.all()))
        assert np.isfinite(told.error_after) == fresh[-1] and np.isfinite(told.error_before) == fresh[-1]
        return job.broken

    hover = loop.memory.thrust
    for k in range(3):  # the first command acts from 25 ms on
        state(k)
        assert loop.memory.thrust == hover and not loop.memory.pilot.lost.any()
    for k in (3, 4):
        state(k)
    assert fresh == [False] * 4 + [True]
    loop.miss(STATE, now=70 * MS)
    assert not state(5) and fresh[-1]
    loop.miss(STATE, now=80 * MS)
    state(6, None)
    assert not fresh[-1]
