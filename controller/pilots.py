"""The quadrotor's controllers, by name: classical ones, and (a line each in PILOTS) learned ones."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from controller.baselines.baseline import Baseline, Target
from controller.baselines.geometric import Geometric
from controller.baselines.l1 import L1
from controller.baselines.nmpc import Tracker
from controller.baselines.pid import PID
from controller.config import UsageError
from controller.make_flyer import ADAPTERS, make_flyer
from robots.quadrotor import Quadrotor

Maker = Callable[
    [Quadrotor, Target, Path | None], Baseline
]  # robot, what tracks, a checkpoint or None for the shipped one


def make_pilot(name: str, robot: Quadrotor, target: Target, weights: Path | None = None) -> Baseline:
    """The controller of that name, with its tuned gains (controller.baselines.tune), for this robot: its vehicle, what it sees, and for
    the oracle the conditions it is under.

    Raises UsageError on an unknown name, and where a payload that is not seen is needed.
    """
    if name not in PILOTS:
        raise UsageError(f"unknown adapter {name!r}; valid: {', '.join(PILOTS)}")
    if name in CLASSICAL and target == "payload" and not robot.space.load:
        raise UsageError(f"adapter {name!r} cannot track with a payload that it does not see; valid: --payload-seen")
    return PILOTS[name](robot, target, weights)


def _oracle(robot: Quadrotor, target: Target, weights: Path | None) -> Tracker:
    if not robot.space.load:
        raise UsageError(
            "adapter 'nmpc-oracle' plans with the payload's state and does not see it; valid: --payload-seen"
        )

    def load_kg() -> np.ndarray:
        return robot.vehicle.mass_kg * np.array([c.payload[0] if c.payload else 0.0 for c in robot.conditions])

    return Tracker(robot.vehicle, target, load_kg)


CLASSICAL: dict[str, Maker] = {
    "pid": lambda robot, target, _: PID(robot.vehicle, target),
    "geometric": lambda robot, target, _: Geometric(robot.vehicle, target),
    "nmpc": lambda robot, target, _: Tracker(robot.vehicle, target),
    "nmpc-l1": lambda robot, target, _: L1(Tracker(robot.vehicle, target)),
    "nmpc-oracle": _oracle,
}
PILOTS: dict[str, Maker] = CLASSICAL | {name: partial(make_flyer, name) for name in ADAPTERS}
