"""The robot node's parameters. Nothing here needs ROS."""

from dataclasses import dataclass, field
from typing import Literal

from controller.ros.controller_config import ControlConfig
from controller.ros.flight_config import FlightConfig

Fault = Literal["none", "nan", "names", "order", "repeat", "reorder", "late", "missing", "clock"]

SILENCE = 2.0  # periods without a command, after which the safe action acts
OVERTAKEN = 5  # a command that less than so many newer ones have overtaken tells that the controller lives, for as many periods after the newest
LATE_MS = 2 * ControlConfig.max_delay_ms  # of the fault `late`: whatever the period, such a state is thrown away


@dataclass(frozen=True)
class Quantities:
    """One number for each kind of reading; 0: none."""

    position: float = 0.0
    """[m]"""
    orientation: float = 0.0
    """[rad]"""
    velocity: float = 0.0
    """[m/s]"""
    rates: float = 0.0
    """[rad/s]"""
    joint_position: float = 0.0
    """[rad]"""
    joint_velocity: float = 0.0
    """[rad/s]"""


@dataclass(frozen=True)
class RobotConfig:
    """The robot node's parameters."""

    robot: Literal["ant", "quadrotor"] = "ant"
    condition: str = ""
    """see robots.condition and robots.quadrotor_condition, empty: healthy, or none; an @STEP counts from when it is set"""
    seed: int = 0
    mode: Literal["real", "fast", "lockstep"] = "real"
    speed: float = 5.0
    """of `fast`, in multiples of real time"""
    steps: int = 0
    """control periods after which it ends; 0: never"""
    listeners: int = 0
    """wait until the state has this many subscribers"""
    stand: bool = True
    """stay put until the first command comes"""
    noise: Quantities = field(default_factory=Quantities)
    """standard deviations"""
    resolution: Quantities = field(default_factory=Quantities)
    """readings are multiples of this"""
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    """standard deviation of the delay; it stays 0 or more"""
    drop: float = 0.0
    """probability that a message is lost"""
    reorder: float = 0.0
    """probability that a state arrives after the one that follows it"""
    relay_commands: bool = False
    """commands are delayed and lost on their way, too"""
    fault: Fault = "none"
    marker_hz: float = 10.0
    engine: Literal["mujoco", "pybullet"] = "mujoco"
    """of the quadrotor"""
    flight: FlightConfig = field(default_factory=FlightConfig)
    """of the quadrotor"""
