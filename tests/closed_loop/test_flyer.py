"""The learning controller of the quadrotor on the shipped weights, in flight."""

import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from controller.baselines.nmpc import Tracker
from controller.config import UsageError, weights_of
from controller.fly import Flight, fly
from controller.flyer import ROWS, Diagnostics, Flyer, Prepared
from controller.guard import HOLD, OK
from controller.learn_quadrotor import CABLE, FRACTION, LearnConfig, learn, schedule_text
from controller.make_flyer import ADAPTERS, make_flyer
from controller.score import settle
from dynamics import checkpoint
from dynamics.checkpoint import CheckpointError
from dynamics.train import ResumeError, TrainConfig
from robots.quadrotor import Quadrotor
from robots.quadrotor_condition import parse
from robots.trajectory import Reference, make
from robots.vehicle import load

V = load("1kg")
HELD_OUT = "payload:0.45:1.1"
each_adapter = pytest.mark.parametrize("adapter", ADAPTERS)


def flown(adapter: str, condition: str, steps: int, target="vehicle", engine="mujoco", seen=True) -> Flight:
    robot = Quadrotor(V, engine, payload_seen=seen)
    controller = Tracker(V, target) if adapter == "nmpc" else make_flyer(adapter, robot, target)
    flight = fly(controller, robot, [make("figure-eight", "fast")], [parse(condition, V)], [0], steps, target)
    robot.close()
    return flight


@pytest.mark.parametrize(("target", "engine"), [("vehicle", "mujoco"), ("payload", "pybullet")])
def test_a_held_out_load_is_carried_with_a_quarter_of_the_error_of_nmpc(target, engine):
    learned, plain = (flown(x, HELD_OUT, 240, target, engine) for x in ("variational", "nmpc"))
    assert not learned.crashed.any()
    assert learned.rmse(100)[0] < 0.25 * plain.rmse(100)[0]


def test_an_unseen_load_is_carried_with_half_of_the_error_of_nmpc():
    learned, plain = (flown(x, HELD_OUT, 300, seen=False) for x in ("variational", "nmpc"))
    assert not learned.crashed.any()
    assert learned.rmse(100)[0] < 0.5 * plain.rmse(100)[0]


@each_adapter
def test_every_adapter_flies_without_a_load_and_with_one_seen_in_training(adapter):
    robot = Quadrotor(V, payload_seen=True)
    paths, schedules = [make("circle", "medium")] * 2, [parse(x, V) for x in ("none", "payload:0.2:0.6")]
    flight = fly(make_flyer(adapter, robot, "vehicle"), robot, paths, schedules, [0, 1], 160)
    assert not flight.crashed.any() and flight.rmse(80).max() < 0.03


def test_in_still_air_a_flight_without_a_load_is_the_nominal_models():
    """The network's error in still air is no error of tracking: at speed, against the same planner with the nominal model alone."""
    learned, plain = (flown(x, "none", 300) for x in ("variational", "nmpc"))
    assert learned.rmse(100)[0] < 1.1 * plain.rmse(100)[0] and learned.rmse(100)[0] < 5e-4


def test_a_drop_at_speed_is_settled_within_a_second():
    flight = flown("variational", "payload:0.3:0.8+none@100", 300)
    assert settle(flight.error[0], 100, V.dt) <= 1.0


def test_a_load_hooked_on_and_dropped_is_noticed_at_once():
    robot = Quadrotor(V, payload_seen=True)
    controller = make_flyer("variational", robot, "vehicle")
    schedule, path = parse(f"none+{HELD_OUT}@60+none@160", V), make("hover")
    s, memory = robot.reset([schedule.at(0)], [0], path.at(np.zeros(1)).p), controller.init(1)
    loads, errors = [], []
    for i in range(260):
        robot.conditions = [schedule.at(i)]
        window = Reference(*(x[None] for x in path.at((i + np.arange(controller.preview + 1)) * V.dt)))
        command, memory = controller.step(s, window, memory)
        loads.append(memory.diagnostics.load_kg[0])
        s = robot.step(V.action(command))
        errors.append(np.linalg.norm(s[0, :3] - window.p[0, 0]))
    assert loads[60] == 0 and loads[80] == pytest.approx(0.45, abs=0.08) and loads[159] == pytest.approx(0.45, abs=0.03)
    assert loads[161] == 0
    assert max(errors) < 0.1 and max(errors[140:160]) < 0.01 and max(errors[240:]) < 0.01


def test_states_that_are_no_numbers_hold_the_plan_and_teach_nothing():
    robot = Quadrotor(V, payload_seen=True)
    controller = make_flyer("variational", robot, "vehicle")
    window = Reference(*(x[None] for x in make("hover").at(np.arange(controller.preview + 1) * V.dt)))
    s = robot.reset([parse("payload:0.2:0.6", V).at(0)], [0])
    command, memory = controller.step(s, window, controller.init(1))
    for _ in range(3):
        command, memory = controller.step(robot.step(V.action(command)), window, memory)
    assert memory.diagnostics.event[0] == OK
    command, broken = controller.step(np.full((1, 22), np.nan), window, memory)
    assert broken.diagnostics.event[0] == HOLD and np.isfinite(command).all()
    learned = controller.prepare(memory)
    for after in (broken, controller.prepare(broken)):
        assert all((x == y).all() for x, y in zip(after.carry, learned.carry, strict=True))
        assert all((x == y).all() for x, y in zip(after.recent, learned.recent, strict=True))
    assert np.isnan(broken.diagnostics.error_after[0])


def test_who_sees_nothing_in_the_midst_of_a_manoeuvre_follows_its_plan_to_the_end():
    """Thrust that holds the weight and no rates, the safe action, would keep the tilt, and speed would grow by half of g and more."""
    robot, b, blind = Quadrotor(V, payload_seen=True), 6, 75
    controller, path = make_flyer("variational", robot, "vehicle"), make("hover")
    window = Reference(*(x[None].repeat(b, 0) for x in path.at(np.arange(controller.preview + 1) * V.dt)))
    off = 0.4 * np.array([np.cos(x) * np.array([1.0, 0, 0]) + np.sin(x) * np.array([0, 1.0, 0.5]) for x in range(b)])
    s, memory = robot.reset([parse("none", V).at(0)] * b, list(range(b)), window.p[:, 0] + off), controller.init(b)
    for i in range(14 + blind):
        seen = s if i < 14 else np.full_like(s, np.nan)
        command, memory = controller.step(seen, window, memory)
        s = robot.step(V.action(command))
        if i == 13:
            assert (s[:, 8] < 0.9).any()  # tilted
    assert not robot.crashed.any() and (memory.diagnostics.event == HOLD).all()
    # With three periods of the plan and then the safe action: 1 to 3 m away, 2.7 to 8.8 m/s.
    assert (np.linalg.norm(s[:, :3] - window.p[:, 0], axis=1) < 1).all()
    assert (np.linalg.norm(s[:, 9:12], axis=1) < 2.5).all() and (s[:, 8] > 0.9).all()


@pytest.mark.parametrize("seen", [True, False])
def test_one_vehicles_broken_sensor_is_not_the_others(seen):
    """Speeds that overflow single precision once they are squared, for one tick; the other vehicle flies as if it were alone."""
    flights = []
    for b in (2, 1):
        robot = Quadrotor(V, payload_seen=seen)
        controller, path = make_flyer("variational", robot, "vehicle"), make("circle", "medium")
        s = robot.reset([parse("payload:0.2:0.6", V).at(0)] * b, [1, 0][-b:], np.repeat(path.at(np.zeros(1)).p, b, 0))
        memory, commands = controller.init(b), []
        for i in range(40):
            shown = s.copy()
            if b == 2 and i == 15:
                shown[0, 9] += 9e5
            window = Reference(
                *(np.repeat(x[None], b, 0) for x in path.at((i + np.arange(controller.preview + 1)) * V.dt))
            )
            command, memory = controller.step(shown, window, memory)
            commands.append(command[-1])
            assert np.isfinite(command).all()
            s = robot.step(V.action(command))
        flights.append(np.array(commands))
        if memory.swing is not None:
            assert np.isfinite(memory.swing.mean).all()
        robot.close()
    np.testing.assert_allclose(*flights, atol=1e-4)


def same(x: Any, y: Any) -> bool:
    """To the bit, but for times."""
    if isinstance(x, Diagnostics | Prepared):
        x, y = (m._replace(**{name: 0.0 for name in m._fields if name.endswith("_ms")}) for m in (x, y))
    if isinstance(x, tuple | list):
        return type(x) is type(y) and len(x) == len(y) and all(map(same, x, y))
    if isinstance(x, dict):
        return x.keys() == y.keys() and all(same(x[k], y[k]) for k in x)
    if isinstance(x, torch.Tensor):
        x, y = x.numpy(), y.numpy()
    return np.array_equal(x, y, equal_nan=True) if isinstance(x, np.ndarray) else x == y


@pytest.mark.parametrize("seen", [True, False])
@each_adapter
def test_a_step_that_was_prepared_is_the_same_to_the_bit(adapter, seen):
    """A load comes and goes, commands are pending or held, a state is lost, another is far from where the plan has it, and the memory is
    interrupted after it was prepared."""
    robot = Quadrotor(V, payload_seen=seen)
    controller = make_flyer(adapter, robot, "vehicle")
    schedule, path = parse("payload:0.3:0.7+none@14+payload:0.2:0.5@22", V), make("figure-eight", "fast")
    rng = np.random.default_rng(0)
    s, memory = robot.reset([schedule.at(0)], [0], path.at(np.zeros(1)).p), controller.init(1)
    for i in range(34):
        robot.conditions = [schedule.at(i)]
        window = Reference(*(x[None] for x in path.at((i + rng.uniform() + np.arange(controller.preview + 1)) * V.dt)))
        state, pending = s, [(0.4, rng.uniform(-0.1, 0.1, (1, 4)))] if i % 5 == 3 else []
        if i == 17:
            state = np.full_like(s, np.nan)
        if i in (10, 26):  # turned by half a radian
            off = torch.tensor([[0.0] * 3 + [0.5] + [0.0] * (robot.space.n_delta - 4)], dtype=torch.float64)
            state = robot.space.retract(torch.as_tensor(s), off).numpy()
        plain, prepared = memory, controller.prepare(memory)
        assert memory.prepared is None and same(controller.prepare(prepared), prepared)
        if i == 12:
            lost = {"last_s": np.full_like(memory.last_s, np.nan), "seen_s": np.full_like(memory.seen_s, np.nan)}
            plain, prepared = plain._replace(**lost), prepared._replace(**lost)
        if i == 20:
            guard = memory.guard._replace(action=torch.zeros(1, 4))
            plain, prepared = plain._replace(guard=guard), prepared._replace(guard=guard)
        (command, memory), other = (controller.step(state, window, m, pending) for m in (plain, prepared))
        assert same((command, memory), other), i
        # What is learned from the state comes after the command, or with the next preparation.
        early, bare = controller.feedback(state, window, prepared, pending)
        assert bare.newest is None and np.isnan(bare.diagnostics.error_after).all()
        assert same((early, controller.conclude(bare)), other)
        assert same(controller.prepare(bare), controller.prepare(memory))
        assert memory.prepared is None
        s = robot.step(V.action(command))
    assert not robot.crashed.any() and memory.diagnostics.event[0] == OK


@each_adapter
def test_what_a_phi_is_judged_by_it_was_not_fitted_to(adapter):
    """The newest transition is learned from by the next preparation, not by the step that sees it."""
    robot = Quadrotor(V, payload_seen=True)
    controller = make_flyer(adapter, robot, "vehicle")
    path, memory, learned = make("circle", "fast"), controller.init(1), 0
    s = robot.reset([parse("payload:0.3:0.7", V).at(0)], [0], path.at(np.zeros(1)).p)
    for i in range(12):
        window = Reference(*(x[None] for x in path.at((i + np.arange(controller.preview + 1)) * V.dt)))
        ready = controller.prepare(memory)
        command, memory = controller.step(s, window, ready)
        assert same(memory.phi, ready.phi) and same(memory.recent, ready.recent)
        assert int(ready.recent.mask.sum()) == learned
        d = memory.diagnostics
        learned += int(np.isfinite(d.error_after[0]))
        assert 0 < d.feedback_ms <= d.plan_ms
        s = robot.step(V.action(command))
    assert learned >= 8


def test_a_step_takes_less_than_six_times_the_oracles():
    robot = Quadrotor(V, payload_seen=True)
    window = Reference(*(x[None] for x in make("figure-eight", "fast").at(2 + np.arange(101) * V.dt)))
    s = robot.reset([parse("payload:0.2:0.6", V).at(0)], [0], window.p[:, 0])
    median = {}
    for name, controller in (
        ("oracle", Tracker(V, "vehicle", lambda: np.array([0.2]))),
        ("learned", make_flyer("variational", robot, "vehicle")),
    ):
        memory, times = controller.init(1), [time.process_time()]
        for _ in range(40):
            _, memory = controller.step(s, window, memory)
            times.append(time.process_time())
        median[name] = np.median([y - x for x, y in pairwise(times[10:])])
    assert median["learned"] < 6 * median["oracle"]


def test_the_shipped_weights_are_small_and_whole():
    robot = Quadrotor(V, payload_seen=True)
    for adapter in ADAPTERS:
        assert weights_of(robot.name, adapter).stat().st_size <= 2_000_000
        assert isinstance(make_flyer(adapter, robot, "vehicle"), Flyer)


def test_an_unknown_adapter_is_one_sentence():
    with pytest.raises(UsageError, match="unknown adapter 'nonsense'; valid: frozen, last-layer, grbal, variational"):
        make_flyer("nonsense", Quadrotor(V, payload_seen=True), "vehicle")


def test_thrust_that_the_rotors_do_not_give_is_not_taken_for_weight():
    """A payload of training's range, hooked on while it is to track at speed: a step of 0.8 m, which asks more of the rotors than they have.
    How much they miss is known from the commands, the load's mass is found all the same, and no change is noticed that never was."""
    robot = Quadrotor(V, payload_seen=True)
    controller = make_flyer("variational", robot, "payload")
    schedule, path = parse("none+payload:0.3:0.8@10", V), make("figure-eight", "fast")
    s, memory = robot.reset([schedule.at(0)], [1], path.at(np.zeros(1)).p), controller.init(1)
    given, lost = [], []
    for i in range(70):
        robot.conditions = [schedule.at(i)]
        window = Reference(*(x[None] for x in path.at((i + np.arange(controller.preview + 1)) * V.dt)))
        command, memory = controller.step(s, window, memory)
        given.append(s[0, 15] - robot._memory.thrust.sum())
        lost.append(memory.lost[0])
        s = robot.step(V.action(command))
    assert max(given) > 1.5 and np.abs(np.array(lost) - given).max() < 0.02 * max(given)
    assert memory.diagnostics.restarts[0] == 0 and memory.diagnostics.load_kg[0] == pytest.approx(0.3, abs=0.04)


def test_the_whole_plan_knows_at_once_that_a_load_has_come_or_gone():
    """Left alone, a plan whose nodes have no load learns of one knot by knot, and one whose nodes have a load that is gone fails."""
    robot = Quadrotor(V, payload_seen=True)
    controller = make_flyer("variational", robot, "vehicle")
    schedule, path = parse("payload:0.3:0.8+none@60+payload:0.2:0.5@70", V), make("figure-eight", "fast")
    s, memory = robot.reset([schedule.at(0)], [2], path.at(np.zeros(1)).p), controller.init(1)
    events, lengths = [], []
    for i in range(73):
        robot.conditions = [schedule.at(i)]
        window = Reference(*(x[None] for x in path.at((i + np.arange(controller.preview + 1)) * V.dt)))
        command, memory = controller.step(s, window, memory)
        s = robot.step(V.action(command))
        events.append(int(memory.diagnostics.event[0]))
        lengths.append(np.linalg.norm(memory.planner.nodes[0, :, 16:19], axis=1))
    assert events == [OK] * 73
    np.testing.assert_allclose(lengths[60], 0.8, atol=0.01)  # the step before the drop is seen
    assert (lengths[61] == 0).all()
    np.testing.assert_allclose(lengths[72], 0.5, atol=0.01)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_weights_of_another_vehicle_are_refused(adapter):
    with pytest.raises(
        CheckpointError,
        match=r"is for vehicle '1kg', whose mass_kg is 1\.0, and vehicle '80g' has 0\.08; valid: --vehicle 1kg",
    ):
        make_flyer(adapter, Quadrotor("80g", payload_seen=True), "vehicle")


def test_a_vehicle_of_the_same_name_that_differs_is_refused_and_one_of_another_name_is_not():
    make_flyer("variational", Quadrotor(replace(V, name="mine"), payload_seen=True), "vehicle")
    with pytest.raises(CheckpointError, match=r"whose arm_m is .*; valid"):
        make_flyer("variational", Quadrotor(replace(V, arm_m=2 * V.arm_m), payload_seen=True), "vehicle")


@pytest.mark.parametrize("known", [None, {"name": "1kg"}])
def test_weights_that_do_not_say_their_vehicle_are_refused(known, tmp_path):
    loaded = checkpoint.load(weights_of("quadrotor", "variational"), "quadrotor", ROWS)
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, "quadrotor", loaded.model, loaded.theta, {"vehicle": known})
    with pytest.raises(
        CheckpointError, match="does not say for which vehicle it is; valid: one made by `sealegs learn quadrotor`"
    ):
        make_flyer("variational", Quadrotor(V, payload_seen=True), "vehicle", path)


def test_training_flights_stay_within_what_may_be_trained_on():
    rng = np.random.default_rng(0)
    drawn = [parse(schedule_text(rng, 400), V) for _ in range(60)]
    loads = [c.payload for schedule in drawn for c in (schedule.at(i) for i in range(400)) if c.payload]
    fractions, cables = np.array(loads).T
    assert FRACTION[0] <= fractions.min() and fractions.max() <= FRACTION[1] == 0.35
    assert CABLE[0] <= cables.min() and cables.max() <= CABLE[1] == 0.9
    changes = [{schedule.at(i).payload for i in range(400)} for schedule in drawn]
    assert any(None in x and len(x) > 1 for x in changes)


def test_learning_makes_weights_that_fly_and_goes_on_where_it_was(tmp_path):
    config = LearnConfig(
        flights=16, batches=1, steps=120, train=TrainConfig(steps=60, lr=3e-3),
        meta=TrainConfig(steps=4, validate_every=2), windows=8,
    )  # fmt: skip
    lines: list[str] = []
    paths = learn(config, tmp_path, lines.append)
    gathered, used, *trained = lines
    assert gathered.startswith("flights 1/1") and "transitions teach something" in used
    assert len(trained) == 3 and all(line.startswith("trained") for line in trained)
    assert all(path.exists() for path in paths)
    first = [path.read_bytes() for path in paths]
    again: list[str] = []
    paths[1].unlink()
    assert learn(config, tmp_path, again.append) == paths and len(again) == 1
    assert [path.read_bytes() for path in paths] == first
    with pytest.raises(ResumeError, match="seed"):
        learn(replace(config, seed=1), tmp_path, again.append)
    robot = Quadrotor(V, payload_seen=True)
    controller = make_flyer("variational", robot, "vehicle", paths[0])
    flight = fly(controller, robot, [make("hover")], [parse("payload:0.3:0.6", V)], [0], 100)
    assert not flight.crashed.any()
