"""The controller node's parameters. Nothing here needs ROS."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from controller.config import ControllerConfig, PlannerConfig, UsageError, at_least, make_planner
from controller.ros.acting import MOST
from controller.ros.flight_config import FlightConfig, check_flight


def real_time() -> ControllerConfig:
    """Of the ant, where a command is waited for: two iterations before the state comes, two after it. What has fallen is to get up again."""
    return ControllerConfig(righting=True, planner=PlannerConfig(iterations=4, ahead=2))


MOST_REPEATS = 10


@dataclass(frozen=True)
class ControlConfig:
    """The controller node's parameters."""

    robot: Literal["ant", "quadrotor"] = "ant"
    weights: str = ""
    """a checkpoint; empty: the shipped one"""
    seed: int = 0
    autostart: bool = False
    """configure and activate without being asked"""
    lockstep: bool = False
    """answer every state and nothing else, whatever time it takes: no watchdog"""
    slop_ms: float = 5.0
    """stamps of messages that make one state may differ by this"""
    max_delay_ms: float = 75.0
    """a state this much later than the quickest of the last is not used; 0: never late"""
    delay_compensation: bool = True
    """predict the state over the measured time until the command acts, before planning; never in lockstep"""
    command_delay_ms: float = 0.0
    """a command's way until it acts, where it is known: nothing measures it"""
    repeat_commands: int = 0
    """how often each command is sent again, spread over the period: where commands get lost or overtake each other, so that the robot does not
    take that for silence; 2 where both are as bad as a period"""
    thread_priority: int = 50
    """of SCHED_FIFO while active, 1 to 99, so that other programs delay no command; 0: the ordinary priority. Only in real time, and where the
    system permits it"""
    lock_memory: bool = True
    """no page of the process (1 GB) leaves memory, so that none is fetched in the midst of a step. Likewise"""
    keep_awake: bool = False
    """no core halts while it is active, for machines on which one that halted is slow to come back. It costs power, and on a virtual machine its
    quota of processor time. Likewise"""
    marker_hz: float = 5.0
    """how often plan and reference are drawn, where somebody looks; 0: never"""
    controller: ControllerConfig = field(default_factory=real_time)
    """of the ant"""
    flight: FlightConfig = field(default_factory=FlightConfig)
    """of the quadrotor"""


# What may change while the node runs.
LIVE = ("controller.", "delay_compensation", "command_delay_ms", "max_delay_ms", "repeat_commands", "marker_hz")


def check_live(names: Iterable[str]) -> None:
    """Raises UsageError naming the first parameter that may not change while the node runs."""
    if fixed := sorted(n for n in names if not n.startswith(LIVE)):
        raise UsageError(
            f"{fixed[0]} is read when the node is configured; valid: deactivate and clean up before it is changed"
        )


def check_priority(priority: int) -> None:
    """Raises UsageError."""
    if not 0 <= priority <= 99:
        raise UsageError(f"thread_priority is {priority}; valid: 0, or 1 to 99 of SCHED_FIFO")


def check(config: ControlConfig) -> None:
    """Raises UsageError, VehicleError, TrajectoryError."""
    if config.robot == "quadrotor":
        check_flight(config.flight, config.seed)
    if not 0 <= config.command_delay_ms < 1e3 * MOST:
        raise UsageError(f"command_delay_ms is {config.command_delay_ms}; valid: 0 or more, below {1e3 * MOST:g}")
    check_priority(config.thread_priority)
    if not 0 <= config.repeat_commands <= MOST_REPEATS:
        raise UsageError(f"repeat_commands is {config.repeat_commands}; valid: 0 to {MOST_REPEATS}")
    make_planner(config.controller.planner, 1)
    at_least(1, context_window_k=config.controller.k)
