"""Quadrotors in the air, on either engine: where they are put, what they are commanded, and the states that come of it."""

from dataclasses import replace

import numpy as np

from robots import autopilot, quadrotor
from robots.quadrotor import Quadrotor
from robots.quadrotor_condition import Condition, parse
from robots.vehicle import Vehicle, load

V = load("1kg")
VACUUM = replace(V, drag_n_s_per_m=(0.0, 0.0, 0.0))
ENGINES = quadrotor.ENGINES
HIGH = np.array([0.0, 0.0, 6.0])


def condition(text: str, vehicle: Vehicle = V) -> Condition:
    return parse(text, vehicle).at(0)


def flying(conditions: list[Condition], engine: str, vehicle: Vehicle = V, seeds=None, seen: bool = True) -> Quadrotor:
    """Reset, high above the ground."""
    robot = Quadrotor(vehicle, engine, payload_seen=seen)
    b = len(conditions)
    robot.reset(conditions, list(range(b) if seeds is None else seeds), np.tile(HIGH, (b, 1)))
    return robot


def put(robot: Quadrotor, vehicle_at, load_at, vehicle_v=(0, 0, 0), load_v=(0, 0, 0), rates=(0, 0, 0)) -> None:
    """Upright vehicle and load of robot 0 at positions in the world [m], with velocities [m/s] and body rates [rad/s]."""
    robot.bodies.place(
        0,
        np.concatenate((vehicle_at, [1, 0, 0, 0], load_at, [1, 0, 0, 0])).astype(float),
        np.concatenate((vehicle_v, rates, load_v, [0, 0, 0])).astype(float),
    )
    fresh = autopilot.init(robot.vehicle, np.array([rates], float))
    for memory, start in zip(robot._memory, fresh, strict=True):
        memory[0] = start[0]


def manoeuvre(b: int, steps: int, vehicle: Vehicle = V, carried: float = 0.0, seed: int = 0) -> np.ndarray:
    """(b, t, 4): thrust between 0.6 and 1.5 of the weight, rates up to 70% of the largest for 0.2 s and back for 0.2 s."""
    rng, actions = np.random.default_rng(seed), np.zeros((b, steps, 4))
    for t in range(steps):
        if t % 40 == 0:
            thrust = (1 + carried) * vehicle.hover_thrust_n * rng.uniform(0.6, 1.5, (b, 1))
            rates = 0.7 * np.array(vehicle.rate_max_rad_s) * rng.uniform(-1, 1, (b, 3))
        sign = 1 if t % 40 < 20 else -1
        actions[:, t] = vehicle.action(np.concatenate((thrust, sign * rates), 1))
    return actions


def play(robot: Quadrotor, actions: np.ndarray) -> np.ndarray:
    """(b, t, 4) -> states (b, t, s)."""
    return np.stack([robot.step(actions[:, t]) for t in range(actions.shape[1])], 1)


def hover(robot: Quadrotor, steps: int, factor: float = 1.0) -> np.ndarray:
    """(b, t, s) under a thrust of `factor` vehicle weights and no rates."""
    command = np.array([factor * robot.vehicle.hover_thrust_n, 0, 0, 0])
    return play(robot, np.tile(robot.vehicle.action(command), (len(robot.crashed), steps, 1)))


def cut(robot: Quadrotor) -> None:
    """Rotors off, as after a crash."""
    robot.crashed[:] = True
