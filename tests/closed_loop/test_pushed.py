"""Quadrotors that are pushed, and those that nobody commands."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from controller.baselines.geometric import Geometric
from controller.baselines.hold import BRAKE, MOST, Hold, Memory, braked, velocity
from controller.baselines.nmpc import Tracker, Weights
from controller.ros.flight_config import FlightConfig, make_trajectory
from robots.quadrotor import Quadrotor
from robots.quadrotor_condition import NONE
from robots.trajectory import Reference
from robots.vehicle import GRAVITY

PUSHED = 24


def pushed(std: float, speed: float = 0.0) -> tuple[Quadrotor, np.ndarray]:
    """Hovering vehicles, pushed by so much in every axis, and along x. -> robot, state."""
    robot = Quadrotor()
    robot.reset([NONE] * PUSHED, range(PUSHED))
    rng = np.random.default_rng(0)
    for i in range(PUSHED):
        qpos, qvel = robot.bodies.qpos[i].copy(), robot.bodies.qvel[i].copy()
        qvel[:6] += std * rng.standard_normal(6)
        qvel[0] += speed
        robot.bodies.place(i, qpos, qvel)
    return robot, robot.state()


def track(robot: Quadrotor, s: np.ndarray, tracker: Tracker, seconds: float) -> np.ndarray:
    home = np.tile(s[:, None, :3], (1, tracker.preview + 1, 1))
    rest = np.zeros_like(home)
    memory = tracker.init(len(s))
    for _ in range(round(seconds / robot.dt)):
        command, memory = tracker.step(s, Reference(home, rest, rest, rest), memory)
        s = robot.step(robot.vehicle.action(command))
    return np.linalg.norm(s[:, :3] - home[:, 0], axis=1)


def test_a_vehicle_that_is_pushed_does_not_turn_over():
    robot, s = pushed(1.5)
    off = track(robot, s, Tracker(robot.vehicle), 3.0)
    assert not robot.crashed.any() and off.max() < 0.1
    robot, s = pushed(1.5)
    track(robot, s, Tracker(robot.vehicle, weights=replace(Weights(), tilt=0.0)), 1.0)
    assert robot.crashed.sum() >= 3  # what the price prevents


def test_the_price_of_tilt_changes_nothing_where_no_plan_tilts_far():
    robot, s = pushed(0.1)
    trackers = [Tracker(robot.vehicle, weights=replace(Weights(), tilt=w)) for w in (0.0, Weights().tilt)]
    home = np.tile(s[:, None, :3], (1, trackers[0].preview + 1, 1))
    still = Reference(home, *[np.zeros_like(home)] * 3)
    free, priced = (tracker.step(s, still, tracker.init(len(s)))[0] for tracker in trackers)
    assert np.allclose(free, priced, atol=1e-9, rtol=0)


def test_braking_goes_on_as_the_vehicle_flew_and_ends_where_it_should():
    v = np.array([[2.0, 0.0, 0.0], [0.0, -1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    a = np.array([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0], [-2.0, 0.0, 2.0]])
    j = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 8.0], [0.0, 0.0, 0.0], [-5.0, 0.0, 0.0]])
    start, times = Memory(np.ones((4, 3)), v, a, j, 0.0), np.arange(0, 8.0, 1e-3)
    of = [np.stack(x) for x in zip(*(braked(start._replace(t=t)) for t in times), strict=True)]
    for x, slope in itertools.pairwise(of):
        assert np.allclose(np.gradient(x, 1e-3, axis=0)[1:-1], slope[1:-1], atol=5e-3)
    end = 1 + 3 * v / BRAKE + 3 * a / BRAKE**2 + j / BRAKE**3
    for x, first, last in zip(of, (1.0, v, a, j), (end, 0.0, 0.0, 0.0), strict=True):
        assert np.allclose(x[0], first) and np.allclose(x[-1], last, atol=1e-6)
    assert np.isclose(np.linalg.norm(of[2][:, 0], axis=1).max(), 2 * BRAKE * 2.0 / np.e**2, rtol=1e-3)


def test_what_falls_does_not_go_on_falling():
    robot, s = pushed(0.0)
    memory = Hold(robot.vehicle).init(s, np.tile([0.0, 0.0, -GRAVITY], (PUSHED, 1)))
    assert np.allclose(memory.a, [0.0, 0.0, -MOST])


def test_a_gap_of_a_period_in_the_commands_is_hardly_felt():
    """Every fifth period nobody commands."""
    off = {}
    for gaps in (False, True):
        robot = Quadrotor()
        hold, tracker = Hold(robot.vehicle), Geometric(robot.vehicle)
        path = make_trajectory(FlightConfig(trajectory="circle", speed="fast"), robot, 0)
        robot.reset([NONE], [0], path.at(np.zeros(1)).p)
        s, before, errors = robot.state(), np.zeros((1, 3)), []
        for i in range(600):
            now = path.at(np.array([i * robot.dt]))
            command, _ = tracker.step(s, Reference(*(x[:, None] for x in now)))
            if gaps and i % 5 == 0:
                command, _ = hold.step(s, hold.init(s, (velocity(s) - before) / robot.dt), robot.dt)
            before = velocity(s)
            s = robot.step(robot.vehicle.action(command))
            errors.append(np.linalg.norm(s[0, :3] - path.at(np.array([(i + 1) * robot.dt])).p[0]))
        off[gaps] = float(np.sqrt(np.mean(np.square(errors[300:]))))
    assert off[True] < off[False] + 2e-3


@pytest.mark.parametrize("held", [True, False])
def test_a_vehicle_without_commands_stays_near_and_up(held: bool):
    robot, s = pushed(0.5, speed=1.0)
    hold, begun = Hold(robot.vehicle), s[:, :3].copy()
    memory = hold.init(s, np.zeros_like(begun))
    for _ in range(500):
        command, memory = hold.step(s, memory, robot.dt)
        s = robot.step(robot.vehicle.action(command) if held else np.tile(robot.safe_action, (PUSHED, 1)))
    if held:
        assert not robot.crashed.any() and np.linalg.norm(s[:, 9:12], axis=1).max() < 0.02
        assert np.linalg.norm(s[:, :3] - begun, axis=1).max() < 1.5
    else:
        assert robot.crashed.any()  # thrust and rates alone keep the tilt


def test_the_simulated_robot_holds_itself_until_it_is_commanded():
    pytest.importorskip("rclpy")
    from controller.ros.quadrotor_plant import QuadrotorPlant
    from controller.ros.robot_config import RobotConfig

    plant = QuadrotorPlant(RobotConfig(robot="quadrotor", flight=FlightConfig(trajectory="hover")))
    plant.reset(NONE, 3)

    def where() -> np.ndarray:
        return plant._robot.state()[0, :3]  # pyright: ignore[reportPrivateUsage]

    begun = where()
    for _ in range(5000):
        plant.substep(None, NONE)
    assert not plant.trouble() and np.linalg.norm(where() - begun) < 0.05
    for _ in range(200):
        plant.substep(plant._robot.vehicle.action(np.array([10.5, 0.0, 1.0, 0.0])), NONE)  # pyright: ignore[reportPrivateUsage]
    moved = where()
    for _ in range(2500):
        plant.substep(None, NONE)
    assert np.linalg.norm(where() - begun) > 0.1 and np.linalg.norm(where() - moved) < 0.5 and not plant.trouble()
