"""Settings, as frozen dataclasses: the command line and the ROS parameters are both read off them, so a default exists once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from controller.controller import Controller
from controller.guard import Guard
from controller.righting import load as load_righting
from dynamics import checkpoint, risk, value
from dynamics.adapt.effectiveness import Effectiveness
from dynamics.adapt.frozen import Frozen
from dynamics.adapt.gradient import INNER_STEPS, GrBAL, OnlineSGD
from dynamics.adapt.last_layer import LastLayer
from dynamics.checkpoint import Checkpoint
from dynamics.mlp import MLP
from dynamics.train import TrainConfig
from dynamics.types import Adapter, Theta, as_phi
from planners.cem import CEM, Weighting
from planners.icem import ICEM
from planners.mppi import MPPI
from planners.planner import Cost
from planners.random_shooting import RandomShooting
from planners.shooting import Shooting
from robots.ant import Ant
from robots.schedule import Schedule

WEIGHTS = Path(__file__).parent / "weights"

AdapterName = Literal["frozen", "online-sgd", "grbal", "last-layer", "effectiveness", "effectiveness+last-layer"]
PlannerName = Literal["random-shooting", "cem", "icem", "mppi"]
RobotName = Literal["ant"]
# Where several robots have the command; the name chooses the dataclass before anything is parsed (`controller.cli.chosen`).
AnyRobot = Annotated[
    Literal["ant", "quadrotor"],
    tyro.conf.Positional,
    tyro.conf.arg(help="comes first; each robot has options of its own, e.g. `sealegs evaluate quadrotor --help`"),
]

PLANNERS: dict[str, type[Shooting]] = {"random-shooting": RandomShooting, "cem": CEM, "icem": ICEM, "mppi": MPPI}
ROBOTS = {"ant": Ant}


class UsageError(ValueError):
    """Something a user asked for that cannot be done. One sentence, naming the value and the valid ones."""


def at_least(minimum: int, **settings: int) -> None:
    """Raises UsageError naming the first setting below the minimum."""
    for name, got in settings.items():
        if got < minimum:
            raise UsageError(f"{name.replace('_', ' ')} is {got}; valid: {minimum} or more")


# What training draws its batches from, (seed * 1000 + round) * 1_000_003 + step, then fits into 64 bits.
LARGEST_SEED = 2**32 - 1


def check_seeds(*seeds: int) -> None:
    """Raises UsageError naming the first that is none."""
    for seed in seeds:
        if not 0 <= seed <= LARGEST_SEED:
            raise UsageError(f"seed is {seed}; valid: 0 to {LARGEST_SEED}")


def each_once(**lists: Sequence[object]) -> None:
    """Raises UsageError naming the first option without a value, or with one twice: its episodes would count as independent ones."""
    for name, values in lists.items():
        if not values:
            raise UsageError(f"nothing to evaluate: --{name} is empty; valid: one value or more")
        for i, given in enumerate(values):
            if given in values[:i]:
                raise UsageError(f"--{name} has {given!r} twice; valid: each value once")


def late_onsets(schedules: Sequence[Schedule[Any]], steps: int) -> list[str]:
    """A sentence for each condition that changes after the episode's end: it is scored under a name that it never had."""
    return [
        f"condition {schedule.text!r} changes at step {schedule.onsets[-1]} of an episode of {steps}"
        for schedule in schedules
        if schedule.onsets and schedule.onsets[-1] >= steps
    ]


def check_onsets(schedule: Schedule[Any], steps: int) -> None:
    """Raises UsageError where what is to be shown would never come."""
    for late in late_onsets([schedule], steps):
        raise UsageError(f"{late}; valid: a step below {steps}, or more --steps")


@dataclass(frozen=True)
class Training(TrainConfig):
    """A training as options: what is here hidden from the command line would make no difference. --seed is of everything."""

    seed: tyro.conf.Suppress[int] = 0


@dataclass(frozen=True)
class BlindTraining(Training):
    """One in which nothing is validated."""

    validate_every: tyro.conf.Suppress[int] = 0
    patience: tyro.conf.Suppress[int] = 10


@dataclass(frozen=True)
class RoundTraining(BlindTraining):
    """One that is short: its state is saved when it is over."""

    save_every: tyro.conf.Suppress[int] = 500


def check_training(name: str, config: TrainConfig) -> None:
    """name: of the option, as `train` in --train.steps. Raises UsageError."""
    least = {"steps": 1, "validate_every": 0, "patience": 1, "save_every": 1}
    for field_, minimum in least.items():
        at_least(minimum, **{f"--{name}.{field_.replace('_', '-')}": getattr(config, field_)})
    for field_ in ("lr", "clip"):
        positive(f"--{name}.{field_}", getattr(config, field_))
    for field_ in ("decay_from", "decay_to"):
        if not 0 <= (got := getattr(config, field_)) <= 1:
            raise UsageError(f"--{name}.{field_.replace('_', '-')} is {got:g}; valid: 0 to 1")


def check_share(share: float) -> None:
    """Of a batch, beside what else is in it. Raises UsageError."""
    if not 0 <= share < 1:
        raise UsageError(f"--share is {share:g}; valid: 0 or more and less than 1")


def positive(name: str, value: float) -> None:
    """Raises UsageError."""
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"{name} is {value:g}; valid: a finite number above 0")


@dataclass(frozen=True)
class PlannerConfig:
    """How actions are chosen."""

    kind: PlannerName = "icem"
    samples: int = 96
    """candidates an iteration"""
    horizon: int = 8
    """steps of dt; what follows is the checkpoint's learned value"""
    iterations: int = 5
    std: float = 1.0
    """initial standard deviation of the candidates' noise; chosen, as beta is, for icem"""
    beta: float = 0.3
    """correlation of the noise from one step to the next"""
    elites: float = 0.25
    """the cheapest candidates that the next iteration is drawn like, as a share of all (cem, icem)"""
    weighting: Weighting = "rank"
    """of the elites: even, or by rank, the best one most (cem, icem)"""
    ahead: int = 0
    """iterations made while the next state is awaited, from where it is expected, one less than all at most: over ROS commands then come sooner"""


@dataclass(frozen=True)
class ControllerConfig:
    """The loop: what adapts, what plans, in which precision."""

    adapter: AdapterName = "effectiveness"
    k: int = 32
    """context window: the last k transitions"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """of the network inside the planner; states and costs are float32 always. bfloat16 is for processors with AMX: the C of float32 is quicker on
    others, by far where there is no AVX-512 either"""
    fall_price: float = 240.0
    """what a step of a plan costs where a fall has happened or is certain to follow, by the checkpoint's learned chance of one; in the unit of
    the robot's cost"""
    righting: bool = False
    """a robot that has lain for a second makes a motion that turns it over, where one was found for it (`sealegs right`)"""
    deadline_ms: float | None = None
    """a step slower than this is late and the guard holds the last plan; None: time does not matter"""
    planner: PlannerConfig = field(default_factory=PlannerConfig)


@dataclass(frozen=True)
class AnyController(ControllerConfig):
    """The loop of several adapters, which are named elsewhere."""

    adapter: tyro.conf.Suppress[AdapterName] = "effectiveness"


def make_adapter(name: str, model: MLP, inner_steps: int = 1) -> Adapter:
    """The adapter of that name. inner_steps: GrBAL's. Raises UsageError."""
    makers = {
        "frozen": lambda: Frozen(model),
        "online-sgd": lambda: OnlineSGD(model),
        "grbal": lambda: GrBAL(model, inner_steps),
        "last-layer": lambda: LastLayer(model),
        "effectiveness": lambda: Effectiveness(model),
        "effectiveness+last-layer": lambda: LastLayer(model, after=Effectiveness(model)),
    }
    if name not in makers:
        raise UsageError(f"unknown adapter {name!r}; valid: {', '.join(makers)}")
    return makers[name]()


def check_deadline(config: ControllerConfig) -> None:
    """Raises UsageError."""
    if config.deadline_ms is not None and not (math.isfinite(config.deadline_ms) and config.deadline_ms > 0):
        raise UsageError(f"controller.deadline-ms is {config.deadline_ms:g}; valid: a finite number above 0, or None")


def check_learned(name: str, loaded: Checkpoint) -> None:
    """Raises CheckpointError where what the adapter of that name (one, not two joined by +) learned is not all there, or has another shape."""
    model, theta = loaded.model, loaded.theta
    if name == "effectiveness":
        fresh = Effectiveness(model).meta(theta) | {"effectiveness.sigma": torch.ones(model.space.n_delta)}
        # In files from before motors and bodies had settings of their own one number stands for all.
        return checkpoint.check_meta(loaded.path, theta, fresh, spread=True)
    fresh = {"online-sgd": OnlineSGD, "grbal": GrBAL, "last-layer": LastLayer}[name](model).meta(theta)
    if name == "grbal" and INNER_STEPS in theta.meta:
        fresh[INNER_STEPS] = torch.ones(())
    checkpoint.check_meta(loaded.path, theta, fresh)


def make_planner(config: PlannerConfig, n_action: int) -> Shooting:
    """Raises UsageError."""
    at_least(1, planner_horizon=config.horizon, planner_iterations=config.iterations)
    at_least(0, planner_iterations_ahead=config.ahead)
    if not 0 < config.elites <= 1:
        raise UsageError(
            f"controller.planner.elites is {config.elites:g}; valid: a share of the samples, above 0 and 1 at most"
        )
    positive("controller.planner.std", config.std)
    if not 0 <= config.beta < 1:
        raise UsageError(f"controller.planner.beta is {config.beta:g}; valid: 0 or more and less than 1")
    kind = PLANNERS[config.kind]
    elites: dict[str, Any] = {}
    least = 2
    if issubclass(kind, CEM):
        elites = {"elites": max(2, round(config.elites * config.samples)), "weighting": config.weighting}
        least = max(2, 1 + kind().keep)  # the mean is a candidate, too, and so are the elites kept
    at_least(least, planner_samples=config.samples)
    return kind(
        n_action=n_action, horizon=config.horizon, samples=config.samples, iterations=config.iterations,
        std=config.std, beta=config.beta, ahead=config.ahead, **elites,
    )  # fmt: skip


def weights_of(robot: str, adapter: str) -> Path:
    """The shipped weights: an adapter's own where it has them, else the robot's."""
    own = WEIGHTS / f"{robot}-{adapter}.safetensors"
    return own if own.exists() else WEIGHTS / f"{robot}.safetensors"


def make_controller(robot: Ant, config: ControllerConfig, weights: Path | None = None) -> Controller:
    """Raises CheckpointError, UsageError."""
    loaded = checkpoint.load(weights or weights_of(robot.name, config.adapter), robot.name, robot.space)
    return assemble(robot, config, loaded)


def running_cost(robot: Ant, theta: Theta, fall_price: float) -> Cost:
    """The robot's cost of a step and the price of the falls it leads to, where the chance of one was learned. Raises UsageError."""
    if not (math.isfinite(fall_price) and fall_price >= 0):
        raise UsageError(f"fall price is {fall_price:g}; valid: a finite number, 0 or more")
    if not theta.risk or not fall_price:
        return robot.cost
    chance = risk.chance(robot.space, theta.risk)

    def cost(s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
        # The chance was learned from robots on their feet. What it says of one that lies is arbitrary, and times the price it holds a robot down
        # in whatever posture it happens to like (docs/trials/ant.md).
        return robot.cost(s, a, s_next) + fall_price * torch.where(robot.tipped(s_next), 1.0, chance(s_next))

    return cost


def assemble(robot: Ant, config: ControllerConfig, loaded: Checkpoint) -> Controller:
    """Raises UsageError, also where the checkpoint was never trained for the adapter, and CheckpointError where what it learned is not whole."""
    at_least(1, context_window_k=config.k)
    check_deadline(config)
    learned = {name.split(".")[0] for name in loaded.theta.meta}
    for part in config.adapter.split("+"):
        if part != "frozen" and part not in learned:
            raise UsageError(
                f"the checkpoint has no meta parameters for adapter {part!r}; valid: {', '.join(sorted({'frozen'} | learned))}, "
                f"or a checkpoint made by `sealegs train {robot.name} --adapter {part}`"
            )
        if part != "frozen":
            check_learned(part, loaded)
    n, dtype = robot.space.n_action, getattr(torch, config.precision)
    one = torch.ones(n)
    loaded.model.stepper(as_phi(loaded.theta), dtype)  # compiled, where that is to be, before a step is waited for
    return Controller(
        model=loaded.model,
        theta=loaded.theta,
        adapter=make_adapter(config.adapter, loaded.model, max(1, int(loaded.theta.meta.get(INNER_STEPS, 1)))),
        planner=make_planner(config.planner, n),
        cost=running_cost(robot, loaded.theta, config.fall_price),
        terminal=value.terminal(robot.space, loaded.theta.value),
        guard=Guard(-one, one, torch.as_tensor(np.asarray(robot.safe_action))),
        righting=load_righting(WEIGHTS / f"{robot.name}-righting.json", robot) if config.righting else None,
        k=config.k,
        dtype=dtype,
        deadline_ms=config.deadline_ms,
    )
