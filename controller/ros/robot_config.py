"""The robot node's parameters. Nothing here needs ROS."""

from dataclasses import dataclass, field
from typing import Literal

from controller.ros.controller_config import ControlConfig
from controller.ros.convert import Label
from controller.ros.flight_config import FlightConfig

Fault = Literal["none", "nan", "names", "order", "repeat", "reorder", "late", "missing", "clock"]

SILENCE = 2.0  # periods without a command, after which the safe action acts
OVERTAKEN = 5  # a command that less than so many newer ones have overtaken tells that the controller lives, for as many periods after the newest
LATE_MS = 2 * ControlConfig.max_delay_ms  # of the fault `late`: whatever the period, such a state is thrown away


def overtaken(label: Label | None, newest: Label | None, since: float) -> bool:
    """Whether a command comes after a newer one, `newest`, which was obeyed `since` periods ago: it is not to be obeyed. An older run's is not
    while the newer run lives: a controller that starts anew, also with other settings, leaves commands of its last run on their way."""
    if label is None or newest is None:
        return False
    return label.seq <= newest.seq if label.run == newest.run else label.run < newest.run and since < OVERTAKEN


def tells_of_life(label: Label | None, newest: Label | None, since: float) -> bool:
    """Of an overtaken command: whether it ends a silence, since who sent it lived a moment ago. Not for long: what goes on sending one old
    command, a relay say, is not the controller."""
    if label is None or newest is None or label.run != newest.run:
        return False
    return newest.seq - label.seq < OVERTAKEN and since < OVERTAKEN


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
    thread_priority: int = 50
    """as the controller node's, in mode real: what stands in for hardware is as punctual"""
    lock_memory: bool = True
    """likewise"""
    marker_hz: float = 10.0
    engine: Literal["mujoco", "pybullet"] = "mujoco"
    """of the quadrotor"""
    flight: FlightConfig = field(default_factory=FlightConfig)
    """of the quadrotor"""
