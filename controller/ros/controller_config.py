"""The controller node's parameters. Nothing here needs ROS."""

from dataclasses import dataclass, field
from typing import Literal

from controller.config import ControllerConfig, UsageError, at_least, make_planner


@dataclass(frozen=True)
class ControlConfig:
    """The controller node's parameters."""

    robot: Literal["ant"] = "ant"
    weights: str = ""
    """a checkpoint; empty: the shipped one"""
    seed: int = 0
    autostart: bool = False
    """configure and activate without being asked"""
    lockstep: bool = False
    """answer every state and nothing else, whatever time it takes: no watchdog"""
    slop_ms: float = 5.0
    """stamps of messages that make one state may differ by this"""
    max_delay_periods: float = 1.5
    """a state this much later than the quickest of the last is not used; 0: never late"""
    controller: ControllerConfig = field(default_factory=ControllerConfig)


def check(config: ControlConfig) -> None:
    """Raises UsageError."""
    planner = config.controller.planner
    make_planner(planner, 1)
    at_least(1, context_window_k=config.controller.k)
    if planner.std <= 0:
        raise UsageError(f"controller.planner.std is {planner.std}; valid: more than 0")
    if not planner.beta < 1:
        raise UsageError(f"controller.planner.beta is {planner.beta}; valid: 0 or more and less than 1")
