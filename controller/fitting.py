"""`sealegs train`: from a dataset and a checkpoint to an adapter's own weights."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch

from controller import report
from controller.config import Training, UsageError, at_least, check_learned, check_seeds, check_training
from dynamics import checkpoint, data, objectives, tensors
from dynamics import train as training
from dynamics.adapt.effectiveness import episode_gains
from dynamics.adapt.gradient import INNER_STEPS, GrBAL, OnlineSGD
from dynamics.adapt.last_layer import LastLayer
from dynamics.mlp import MLP
from dynamics.tune import Trials, Tried, tune_filter, tune_online_sgd
from dynamics.types import Theta, map_params
from robots.ant import Ant

FILES = ("state.safetensors", "model.safetensors", "record.json", "tensorboard")  # in --out, beside config.json


@dataclass(frozen=True)
class FitConfig:
    """Meta-train an adapter on a dataset: minimise the error on what follows the context, after adapting to it."""

    data: Path
    """folder of shards, made by `sealegs collect` or `sealegs learn`"""
    init: Path | None = None
    """checkpoint to start from (network, normaliser); by default fresh weights"""
    out: Path = Path("runs/train")
    """model.safetensors, the training state and TensorBoard logs go here"""
    adapter: Literal["frozen", "online-sgd", "grbal", "last-layer", "effectiveness", "effectiveness+last-layer"] = (
        "last-layer"
    )
    """frozen: plain regression, the same objective without a context; effectiveness: the few settings of its filter, which take no --train.*,
    --past, --future, --horizon, --windows, --inner-steps or --device"""
    past: int = 32
    """transitions adapted to"""
    future: int = 8
    """transitions predicted after the context"""
    horizon: int = 1
    """1: one-step errors; above: the model is fed its own predictions over the whole future"""
    windows: int = 32
    """windows in a batch"""
    inner_steps: int = 1
    """GrBAL's gradient steps"""
    width: int = 256
    depth: int = 3
    ensemble: int = 1
    train: Training = Training(steps=2000, lr=3e-4, validate_every=100)
    resume: bool = False
    """go on from the state in --out"""
    device: Literal["cpu", "cuda"] = "cpu"
    seed: int = 0


def fit_adapter(
    robot: Ant,
    config: FitConfig,
    progress: Callable[[str, int, int], None],
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Path, dict[str, Any]]:
    """-> the checkpoint and its record. An earlier training in --out is set aside, unless it is gone on with, and `say` told where. Raises
    DataError, CheckpointError, ResumeError, UsageError."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device 'cuda' is not available here; valid: cpu")
    at_least(1, past=config.past, future=config.future, horizon=config.horizon, windows=config.windows)
    at_least(1, inner_steps=config.inner_steps, width=config.width, depth=config.depth, ensemble=config.ensemble)
    check_seeds(config.seed)
    check_training("train", config.train)
    if config.adapter.startswith("effectiveness") and config.init is None:
        raise UsageError(f"adapter {config.adapter!r} needs --init; valid: a checkpoint made by `sealegs learn`")
    if config.adapter == "effectiveness":
        _refuse_unused(config)
    settings = _settings(config)
    rows = data.load(config.data, robot.name, robot.space.n_state, robot.space.n_action, robot.tell)
    loaded = _start(robot, config, rows)
    model, theta = loaded.model, loaded.theta
    if config.adapter.startswith("effectiveness") and "effectiveness.sigma" not in theta.meta:
        raise UsageError(
            f"adapter 'effectiveness' needs --init with the network's deviation, which {config.init} lacks; valid: a checkpoint made by "
            "`sealegs learn`"
        )
    for part in config.adapter.split("+"):
        # It starts from what was learned before, where there is something.
        if part == "effectiveness" or any(name.startswith(f"{part}.") for name in theta.meta):
            check_learned(part, loaded)
    objectives.Sampler.of(rows)  # refused before anything is moved
    config.out.mkdir(parents=True, exist_ok=True)
    if not config.resume and (earlier := report.set_aside(config.out, *FILES)) is not None:
        say(f"the earlier training was moved to: {earlier}")
    report.write_json(config.out / "config.json", settings)
    if config.adapter == "effectiveness":
        theta, record = _choose(model, theta, rows, config, settings, progress)
    else:
        if config.adapter == "effectiveness+last-layer":
            # The last layer learns to explain what the gains leave: it is trained on the actions as they acted.
            everything = torch.arange(int(rows.episode.max()) + 1)
            gains = model.neutral.expand(len(everything), -1)
            gains = episode_gains(model, theta, rows, everything, gains)
            rows = rows._replace(a=model.acting(rows.a, gains[rows.episode]))
        with torch.device(config.device):
            theta, record = _descend(model, theta, rows, config, progress)
    record |= {
        "config": settings,
        "data_sha256": settings["data_sha256"],
        "git": checkpoint.git_revision(),
        "transitions": rows.n,
    }
    record = report.plain(record)  # JSON has no infinity
    path = config.out / "model.safetensors"
    checkpoint.save(path, robot.name, model, theta, record)
    report.write_json(config.out / "record.json", record)
    return path, record


def _refuse_unused(config: FitConfig) -> None:
    """Raises UsageError naming the first option that adapter effectiveness makes nothing of."""
    unused = [
        ("", config, FitConfig, name) for name in ("past", "future", "horizon", "windows", "inner_steps", "device")
    ]
    unused += [("train.", config.train, FitConfig.train, f.name) for f in fields(config.train)]
    for group, given, default, name in unused:
        if (got := getattr(given, name)) != getattr(default, name):
            raise UsageError(
                f"--{group}{name.replace('_', '-')} is {got}, of which adapter 'effectiveness' makes nothing (the few settings of its filter are "
                "chosen on the recordings); valid: without it, or another adapter"
            )


def on_device(state: training.State, device: str) -> training.State:
    """A state that was loaded from disk, beside the data. Adam's count stays on the CPU, where the optimiser keeps it."""
    params, adam, best = (map_params(lambda w: w.to(device), x) for x in (state.params, state.adam, state.best))
    return state._replace(params=params, adam=adam | {"count": state.adam["count"]}, best=best)


def _settings(config: FitConfig) -> dict[str, Any]:
    """The configuration and what data it is for, as JSON, but for what a run that goes on may change. Raises ResumeError where --out holds others."""
    settings = json.loads(json.dumps(asdict(config), default=str))
    del settings["resume"]
    settings["data_sha256"] = data.digest(config.data)
    settings["init_sha256"] = (
        hashlib.sha256(config.init.read_bytes()).hexdigest() if config.init and config.init.is_file() else ""
    )
    stamp = config.out / "config.json"
    if config.resume and stamp.exists():
        training.refuse_other(config.out, training.begun(stamp) | {"out": settings["out"]}, settings)
    return settings


def _start(robot: Ant, config: FitConfig, rows: data.Rows) -> checkpoint.Checkpoint:
    if config.init is not None:
        return checkpoint.load(config.init, robot.name, robot.space)
    model = MLP(robot.space, config.width, config.depth, config.ensemble, robot.n_body)
    net = model.init(torch.Generator().manual_seed(config.seed))
    return checkpoint.Checkpoint(model, Theta(net, model.fit_norm(rows.s, rows.s_next), {}), {})


def _tried(path: Path, header: dict[str, Any]) -> Trials:
    """Raises ResumeError where it is no state of the same choice."""
    known, theirs = training.read(path)
    training.refuse_other(path, theirs.get("config"), header["config"], "config")
    return {tuple(json.loads(key)): errors for key, errors in known.items()}


def _choose(
    model: MLP,
    theta: Theta,
    rows: data.Rows,
    config: FitConfig,
    settings: dict[str, Any],
    progress: Callable[[str, int, int], None],
) -> tuple[Theta, dict[str, Any]]:
    """The filter's settings. What was tried is kept in state.safetensors: the same trials in the same order end at the same settings."""
    from torch.utils.tensorboard import SummaryWriter

    saved = config.out / "state.safetensors"
    trials: Trials = {}
    header = {"config": {name: settings[name] for name in ("adapter", "seed", "data_sha256", "init_sha256")}}
    if config.resume:
        trials = _tried(saved, header)
    else:
        tensors.write(saved, {}, header)  # what is killed before its first trial can go on from its beginning
    writer = SummaryWriter(str(config.out / "tensorboard"), purge_step=0)
    kept = len(trials)

    def tell(tried: Tried) -> None:
        nonlocal kept
        progress("train effectiveness", tried.done, tried.total)
        if len(trials) > kept:  # each takes seconds
            tensors.write(saved, {json.dumps(key): errors for key, errors in trials.items()}, header)
            kept = len(trials)
        writer.add_scalar("loss", tried.score, tried.done)
        writer.add_scalar("validation", tried.held, tried.done)

    chosen = tune_filter(model, theta, rows, config.seed, tell, trials)
    writer.close()
    return chosen


def _descend(
    model: MLP, theta: Theta, rows: data.Rows, config: FitConfig, progress: Callable[[str, int, int], None]
) -> tuple[Theta, dict[str, Any]]:
    from torch.utils.tensorboard import SummaryWriter

    rows = data.Rows(*(x.to(config.device) for x in rows))
    norm = map_params(lambda w: w.to(config.device), theta.norm)
    net, known = theta.net, theta.meta
    adapter: GrBAL | LastLayer
    if config.adapter in ("frozen", "online-sgd"):
        adapter, learned = LastLayer(model), {}
    elif config.adapter == "grbal":
        adapter = GrBAL(model, config.inner_steps)
        learned = adapter.meta(theta)
    else:
        adapter = LastLayer(model)
        learned = adapter.meta(theta)
    learned = {n: known.get(n, w) for n, w in learned.items()}
    start = map_params(lambda w: w.to(config.device), objectives.split(Theta(net, norm, learned)))
    sampler = objectives.Sampler.of(rows)
    if config.adapter in ("frozen", "online-sgd"):
        loss, validate = objectives.plain(model, norm, rows, sampler, config.windows * config.future, config.horizon)
    else:
        loss, validate = objectives.meta(
            model, adapter, norm, rows, sampler, config.windows, config.past, config.future, config.horizon
        )
    settings = replace(config.train, seed=config.seed)
    saved = config.out / "state.safetensors"
    if config.resume:
        begin = on_device(training.resume(saved, settings), config.device)
    else:
        begin = training.fresh(start)
        training.save(saved, begin, settings)  # what is killed before it saves again can go on from its beginning
    first = validate(start)
    writer = SummaryWriter(str(config.out / "tensorboard"), purge_step=begin.step)

    def tell(p: training.Progress) -> None:
        progress(f"train {config.adapter}", p.step, settings.steps)
        writer.add_scalar("loss", p.loss, p.step)
        if p.validation == p.validation:
            writer.add_scalar("validation", p.validation, p.step)

    state = training.fit(loss, begin, settings, validate, saved, tell)
    training.save(saved, state, settings)
    writer.close()
    # Where there was never a validation, once at the end: a record without a figure says nothing.
    last = state.best_loss if math.isfinite(state.best_loss) else validate(state.best)
    best = map_params(lambda w: w.cpu(), state.best)
    fitted = objectives.join(best, map_params(lambda w: w.cpu(), norm))
    trained_for = {INNER_STEPS: torch.tensor(float(config.inner_steps))} if config.adapter == "grbal" else {}
    fitted = fitted._replace(meta=known | fitted.meta | trained_for, value=theta.value, risk=theta.risk)
    record: dict[str, Any] = {"validation_before": first, "validation": last, "steps": state.step}
    if config.adapter == "online-sgd":
        fitted, tuned = tune_online_sgd(
            OnlineSGD(model), fitted, data.Rows(*(x.cpu() for x in rows)), config.past, config.seed
        )
        record |= tuned
    return fitted, record
