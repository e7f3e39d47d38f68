"""Quadrotors that are pushed, and those that nobody commands."""

from dataclasses import replace

import numpy as np
import pytest

from controller.baselines.hold import BRAKE, Hold, Memory, braked
from controller.baselines.nmpc import Tracker, Weights
from controller.ros.flight_config import FlightConfig
from robots.quadrotor import Quadrotor
from robots.quadrotor_condition import NONE
from robots.trajectory import Reference

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


def test_braking_ends_where_it_should_without_a_jump():
    v = np.array([[2.0, 0.0, 0.0], [0.0, -1.0, 1.0], [0.0, 0.0, 0.0]])
    start = Memory(np.zeros((3, 3)), v, 0.0)
    times = np.arange(0, 1.0, 1e-3)
    p, u, a = (np.stack(x) for x in zip(*(braked(start._replace(t=t)) for t in times), strict=True))
    assert np.allclose(np.gradient(p, 1e-3, axis=0)[1:-1], u[1:-1], atol=2 * BRAKE * 1e-3)
    assert np.allclose(p[0], 0) and np.allclose(u[0], v) and np.allclose(u[-1], 0) and np.allclose(a[-1], 0)
    speed = np.linalg.norm(v, axis=1, keepdims=True)
    assert np.allclose(p[-1], v * speed / 2 / BRAKE)


@pytest.mark.parametrize("held", [True, False])
def test_a_vehicle_without_commands_stays_near_and_up(held: bool):
    robot, s = pushed(0.5, speed=1.0)
    hold, begun = Hold(robot.vehicle), s[:, :3].copy()
    memory = hold.init(s)
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
