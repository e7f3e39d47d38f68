"""`sealegs refine`: a checkpoint's own behaviour is recorded, and network and value are fitted to it, with weight on what came before falls.

A healthy robot falls where a leg strikes that the model did not expect there, five to twelve steps before. Such transitions are 1% of a recording:
a fit to all of it hardly sees them. A share of every batch is drawn from them, the rest from everything. The value, too, is fitted to
what the robot does now: most recordings of `sealegs learn` are of worse controllers. What adapters and the chance of a fall learned stays.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from controller.collect import on_policy, steady
from controller.config import (
    ControllerConfig,
    RoundTraining,
    assemble,
    at_least,
    check_deadline,
    check_learned,
    check_seeds,
    check_share,
    check_training,
    weights_of,
)
from controller.learn import before_falls, explain
from controller.report import write_json
from dynamics import checkpoint, data, objectives, value
from dynamics import train as training
from dynamics.mlp import MLP
from dynamics.types import Theta
from dynamics.value import ValueConfig
from robots.ant import Ant


@dataclass(frozen=True)
class RefineConfig:
    init: Path | None = None
    """checkpoint to begin with, whose controller is recorded; by default the shipped one"""
    conditions: tuple[str, ...] = ("healthy",) * 9 + (
        "leg:0",
        "leg:1",
        "leg:2",
        "leg-short:0",
        "leg-short:1",
        "leg-short:2",
    )
    """dealt to the robots in turn"""
    rounds: int = 3
    """recordings, each with the same controller"""
    robots: int = 72
    steps: int = 400
    """of each robot in a recording"""
    before: int = 20
    """steps before a fall of the healthy robot that have weight; damaged robots fall for other reasons, and often"""
    share: float = 0.25
    """of a batch that is drawn from these"""
    batch: int = 512
    train: RoundTraining = RoundTraining(steps=1000, lr=2e-4, decay_from=0.3)
    value: ValueConfig = ValueConfig(steps=150, newest=1.0)
    controller: ControllerConfig = ControllerConfig()
    seed: int = 0


def refine(robot: Ant, config: RefineConfig, out: Path, say: Callable[[str], None]) -> Path:
    """-> the checkpoint. Recordings that `out` holds are not made again. Raises CheckpointError, ConditionError, DataError, ResumeError,
    UsageError."""
    at_least(8, robots=config.robots)  # one in eight episodes is held out
    at_least(1, rounds=config.rounds, steps=config.steps, before=config.before, batch=config.batch)
    check_seeds(config.seed)
    check_training("train", config.train)
    check_deadline(config.controller)
    check_share(config.share)
    for condition in config.conditions:
        steady(condition)
    path = config.init or weights_of(robot.name, config.controller.adapter)
    loaded = checkpoint.load(path, robot.name, robot.space)
    if loaded.theta.meta:
        check_learned("effectiveness", loaded)  # what explains the recordings
    settings = json.loads(json.dumps(asdict(config), default=str)) | {
        "init": hashlib.sha256(path.read_bytes()).hexdigest()
    }
    stamp = out / "refine.json"
    if stamp.exists():
        training.refuse_other(out, training.begun(stamp), settings)
    out.mkdir(parents=True, exist_ok=True)
    write_json(stamp, settings)
    folder, controller = out / "data", assemble(robot, config.controller, loaded)
    dealt = [config.conditions[i % len(config.conditions)] for i in range(config.robots)]
    for r in range(len(data.shards(folder)), config.rounds):
        summary = on_policy(robot, controller, folder, dealt, config.steps, config.seed * 1000 + r)
        say(f"recording {r + 1}  {json.dumps(summary)}")
    rows = data.load(folder, robot.name, robot.space.n_state, robot.space.n_action, robot.tell)
    theta, record = fit(robot, loaded.model, loaded.theta, rows, config)
    record |= {
        "config": settings,
        "transitions": rows.n,
        "data_sha256": data.digest(folder),
        "git": checkpoint.git_revision(),
    }
    done = out / "model.safetensors"
    checkpoint.save(done, robot.name, loaded.model, theta, loaded.record | {"refined": record})
    write_json(out / "record.json", record)
    return done


def fit(robot: Ant, model: MLP, theta: Theta, rows: data.Rows, config: RefineConfig) -> tuple[Theta, dict[str, float]]:
    """-> theta with another network and value, and the record."""
    symmetries = robot.symmetries()
    gains = explain(model, theta, rows, torch.ones(0, model.n_acting), everything=True)
    sampler = objectives.Sampler.of(rows, newest=0.0)
    sampler = sampler.favouring(before_falls(robot, rows, config.before), config.share)
    loss = objectives.regression(model, theta.norm, rows, gains, sampler, config.batch, symmetries)
    losses: list[float] = []
    start = training.fresh({f"net.{n}": w for n, w in theta.net.items()})
    state = training.fit(loss, start, replace(config.train, seed=config.seed), report=lambda p: losses.append(p.loss))
    net = objectives.join(state.params, theta.norm).net
    behind = value.fit(
        robot.space, rows, robot.cost, symmetries, config.value, torch.Generator().manual_seed(config.seed)
    )
    return theta._replace(net=net, value=behind), {
        "loss": sum(losses) / max(1, len(losses)),
        "before_falls": 0 if sampler.marked is None else len(sampler.marked),
    }
