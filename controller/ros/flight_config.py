"""The quadrotor's settings, the same parameters of both nodes. Nothing here needs ROS."""

from dataclasses import dataclass
from typing import Literal

from controller.evaluate_quadrotor import make_path
from robots.quadrotor import Quadrotor
from robots.trajectory import Trajectory


@dataclass(frozen=True)
class FlightConfig:
    """What flies, what it is to follow, and what learns."""

    adapter: Literal["frozen", "last-layer", "grbal", "variational"] = "variational"
    """of the controller; the robot does not read it"""
    vehicle: str = "1kg"
    """1kg, 80g, or the path of a vehicle's .toml file"""
    target: Literal["vehicle", "payload"] = "vehicle"
    """what is to be on the trajectory"""
    payload_seen: bool = True
    """whether the payload's position is published, and read"""
    trajectory: Literal["hover", "circle", "figure-eight", "square", "random"] = "figure-eight"
    """it begins with the first state; the simulated robot starts at its start. The random one is drawn from the node's seed"""
    speed: str = "medium"
    """slow, medium, fast, or the largest on the path [m/s]"""


def make_robot(flight: FlightConfig, engine: str = "mujoco") -> Quadrotor:
    """Raises VehicleError."""
    return Quadrotor(flight.vehicle, engine, flight.payload_seen)


def make_trajectory(flight: FlightConfig, robot: Quadrotor, seed: int) -> Trajectory:
    """Raises TrajectoryError, also where the vehicle cannot follow it without a payload."""
    return make_path(flight.trajectory, flight.speed, robot, [], seed)


def check_flight(flight: FlightConfig, seed: int) -> None:
    """Raises VehicleError, TrajectoryError."""
    make_trajectory(flight, make_robot(flight), seed)
