"""A flyer from weights: by the name of its adapter, for a robot and what is to follow the path."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from controller.baselines.baseline import Target
from controller.baselines.nmpc import Tracker
from controller.config import UsageError, weights_of
from controller.flyer import N_Z, ROWS, Flyer
from controller.guard import Guard
from dynamics import checkpoint
from dynamics.adapt.frozen import Frozen
from dynamics.adapt.gradient import GrBAL
from dynamics.adapt.last_layer import LastLayer
from dynamics.adapt.variational import Variational
from dynamics.checkpoint import CheckpointError
from dynamics.mlp import MLP
from dynamics.residual import Residual
from dynamics.swing import Swing
from dynamics.types import Theta
from robots.quadrotor import Quadrotor
from robots.vehicle import Vehicle

ADAPTERS: dict[str, Any] = {"frozen": Frozen, "last-layer": LastLayer, "grbal": GrBAL, "variational": Variational}


def _unknown() -> np.ndarray:
    raise RuntimeError("a Flyer gives the load's mass with every plan")


def make_flyer(adapter: str, robot: Quadrotor, target: Target, weights: Path | None = None) -> Flyer:
    """For a robot that sees its load or does not. Raises UsageError on an unknown adapter, CheckpointError."""
    if adapter not in ADAPTERS:
        raise UsageError(f"unknown adapter {adapter!r}; valid: {', '.join(ADAPTERS)}")
    path = weights or weights_of(robot.name, adapter)
    loaded = checkpoint.load(path, robot.name, ROWS)
    check_vehicle(path, loaded.record, robot.vehicle)
    learned = {name.split(".")[0] for name in loaded.theta.meta}
    if adapter != "frozen" and adapter not in learned:
        raise UsageError(
            f"the checkpoint has no meta parameters for adapter {adapter!r}; valid: {', '.join(sorted({'frozen'} | learned))}, "
            f"or a checkpoint made by `sealegs learn quadrotor`"
        )
    if adapter != "frozen":
        checkpoint.check_meta(path, loaded.theta, ADAPTERS[adapter](loaded.model).meta(loaded.theta))
    return assemble(adapter, robot, target, loaded.model, loaded.theta)


def check_vehicle(path: Path, record: dict[str, Any], vehicle: Vehicle) -> None:
    """Raises CheckpointError where the weights were not trained on this vehicle: what they know is one vehicle's. Its name does not matter,
    every other field of its specification does."""
    known = record.get("vehicle")
    ours = json.loads(json.dumps(asdict(vehicle)))  # tuples as JSON has them
    if not isinstance(known, dict) or known.keys() != ours.keys():
        raise CheckpointError(
            f"{path} does not say for which vehicle it is; valid: one made by `sealegs learn quadrotor`"
        )
    for field in ours:
        if field != "name" and known[field] != ours[field]:
            raise CheckpointError(
                f"{path} is for vehicle {known['name']!r}, whose {field} is {known[field]}, and vehicle {vehicle.name!r} has {ours[field]}; "
                f"valid: --vehicle {known['name']}, or --weights made by `sealegs learn quadrotor --vehicle {vehicle.name}`"
            )


def assemble(adapter: str, robot: Quadrotor, target: Target, model: MLP, theta: Theta) -> Flyer:
    one, safe = torch.ones(4), torch.as_tensor(robot.safe_action)
    tracker = Tracker(robot.vehicle, target, _unknown)
    unseen = None if robot.space.load else Swing(robot.vehicle)
    # Without a plan no thrust and no rates are safe: they keep the tilt. The last plan, which ends on the reference, is held to its end.
    guard = Guard(-one, one, safe, hold=tracker.preview)
    return Flyer(Residual(robot.vehicle, model, N_Z), theta, ADAPTERS[adapter](model), tracker, guard, unseen)
