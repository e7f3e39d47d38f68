"""Every baseline flies, as well as stated here; a load is felt; what knows of it, or learns of it, does better."""

from dataclasses import replace

import numpy as np
import pytest

from controller.baselines.baseline import attitude, feedforward, hang
from controller.baselines.geometric import Geometric
from controller.baselines.l1 import L1
from controller.baselines.nmpc import Tracker
from controller.baselines.pid import PID
from controller.fly import Flight, fly
from robots.quadrotor import Quadrotor
from robots.quadrotor_condition import parse
from robots.trajectory import Reference, make
from robots.vehicle import load

V = load("1kg")
LOAD = "payload:0.3:0.6"
CONTROLLERS = {
    "pid": lambda target: PID(V, target),
    "geometric": lambda target: Geometric(V, target),
    "nmpc": lambda target: Tracker(V, target),
    "nmpc-l1": lambda target: L1(Tracker(V, target)),
}
each_controller = pytest.mark.parametrize("name", CONTROLLERS)
# Largest RMSE [m] over a slow circle of the vehicle alone, and with the load.
STATED = {"pid": (0.01, 0.06), "geometric": (0.01, 0.2), "nmpc": (0.002, 0.06), "nmpc-l1": (0.002, 0.01)}


def flown(controller, conditions, paths, steps, target="vehicle", seen=False) -> Flight:
    robot = Quadrotor(V, payload_seen=seen)
    flight = fly(
        controller, robot, paths, [parse(c, V) for c in conditions], list(range(len(conditions))), steps, target
    )
    robot.close()
    return flight


@each_controller
def test_it_hovers_and_circles_and_feels_a_load(name):
    controller = CONTROLLERS[name]("vehicle")
    paths = [make("hover"), make("circle", "slow"), make("circle", "slow")]
    flight = flown(controller, ["none", "none", LOAD], paths, 350)
    assert not flight.crashed.any()
    hover, circle, loaded = flight.rmse(200)
    assert hover < STATED[name][0] and circle < STATED[name][0] and loaded < STATED[name][1]
    assert loaded > 2 * circle
    most = np.array([V.thrust_max_n, *V.rate_max_rad_s])
    assert (np.abs(flight.commands) <= most + 1e-9).all() and (flight.commands[..., 0] >= 0).all()


@pytest.mark.parametrize("target", ["vehicle", "payload"])
def test_the_oracle_beats_the_nominal_nmpc_with_a_load(target):
    robot = Quadrotor(V, payload_seen=True)

    def load_kg() -> np.ndarray:
        return V.mass_kg * np.array([c.payload[0] if c.payload else 0.0 for c in robot.conditions])

    paths, schedules = [make("figure-eight", "fast")], [parse("payload:0.4:1.0", V)]
    oracle, nominal = (
        fly(c, robot, paths, schedules, [0], 400, target) for c in (Tracker(V, target, load_kg), Tracker(V, target))
    )
    assert not oracle.crashed.any() and not nominal.crashed.any()
    assert oracle.rmse(100)[0] < 0.02 and oracle.rmse(100)[0] < 0.25 * nominal.rmse(100)[0]


@each_controller
def test_it_carries_what_it_sees_along_the_payloads_path(name):
    flight = flown(CONTROLLERS[name]("payload"), [LOAD], [make("circle", "medium")], 300, "payload", seen=True)
    assert not flight.crashed.any()
    assert flight.rmse(150)[0] < 2.5 * STATED[name][1]


def test_l1_finds_the_acceleration_that_the_load_takes():
    """At rest under a load of 30%, the model lacks -0.3 g: the thrust that hovers, over the mass, exceeds g by 0.3 g.
    The piecewise-constant law finds the part of it that its gain at rest gives."""
    controller = L1(Tracker(V))
    robot = Quadrotor(V)
    path = make("hover")
    s, memory = robot.reset([parse(LOAD, V).at(0)], [0], path.at(np.zeros(1)).p), controller.init(1)
    window = Reference(*(x[None] for x in path.at(np.arange(controller.preview + 1) * V.dt)))
    step = controller.a[0] * V.dt
    gain = step * np.exp(-step) / (1 - np.exp(-step))
    for _ in range(300):
        command, memory = controller.step(s, window, memory)
        s = robot.step(V.action(command))
    np.testing.assert_allclose(memory.filtered[0, :3], [0, 0, -0.3 * 9.81 * gain], atol=0.05)
    assert np.abs(memory.filtered[0, 3:]).max() < 0.5


def test_an_episode_does_not_depend_on_its_batch_mates():
    paths = [make("hover"), make("circle", "fast")]
    for name in ("pid", "nmpc-l1"):
        controller = CONTROLLERS[name]("vehicle")
        both = flown(controller, ["none", LOAD], paths, 30)
        robot = Quadrotor(V)
        alone = fly(controller, robot, paths[1:], [parse(LOAD, V)], [1], 30)
        np.testing.assert_allclose(both.states[1], alone.states[0], atol=1e-8)


def test_a_drop_in_mid_air_and_an_attach_are_flown():
    flight = flown(CONTROLLERS["nmpc-l1"]("vehicle"), [f"{LOAD}+none@150", f"{LOAD}@150"], [make("hover")] * 2, 350)
    assert not flight.crashed.any()
    # It shows, and after a second it is over.
    assert (flight.error[:, 150:250].max(1) > 0.003).all() and (flight.error[0, 250:] < 0.001).all()
    assert (flight.error[1, 250:] < 0.01).all()  # what the law leaves of a load


def test_feedforward_is_the_motion_it_is_made_of():
    """Rates turn the attitude along the path, by finite differences; the heading stays 0."""
    path, dt = make("figure-eight", "fast"), 1e-5
    ref = path.at(np.linspace(3, 8, 20))
    force, rates = feedforward(ref)
    later, _ = feedforward(path.at(np.linspace(3, 8, 20) + dt))
    rot, turned = attitude(force), attitude(later)
    moved = rot.swapaxes(1, 2) @ turned
    vee = np.stack((moved[:, 2, 1], moved[:, 0, 2], moved[:, 1, 0]), 1) / dt
    np.testing.assert_allclose(rates, vee, atol=1e-3)
    np.testing.assert_allclose(rot[:, 0, 1], 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rot), 1)


def test_the_vehicles_path_above_a_load_keeps_the_cables_length():
    ref = Reference(*(x[None] for x in make("circle", "fast").at(3 + np.arange(40) * V.dt)))
    state = np.zeros((1, 22))
    state[:, 18] = -0.7
    above = hang(ref, state, V.dt)
    np.testing.assert_allclose(np.linalg.norm(above.p - ref.p, axis=-1), 0.7)
    np.testing.assert_allclose(np.gradient(above.p, V.dt, axis=1)[:, 1:-1], above.v[:, 1:-1], atol=2e-3)
    np.testing.assert_allclose(np.gradient(above.v, V.dt, axis=1)[:, 2:-2], above.a[:, 2:-2], atol=2e-3)
    assert hang(ref, state[:, :16], V.dt) is ref


@pytest.mark.parametrize("target", ["vehicle", "payload"])
def test_a_tracker_that_cannot_solve_still_commands(target):
    tracker = replace(Tracker(V, target), horizon=6)
    ref = Reference(*(x[None] for x in make("hover").at(np.arange(tracker.preview + 1) * V.dt)))
    command, memory = tracker.step(np.full((1, 22), np.nan), ref, tracker.init(1))
    np.testing.assert_allclose(command, [[V.hover_thrust_n, 0, 0, 0]], atol=1e-5)
    assert np.isnan(memory.nodes).all()
