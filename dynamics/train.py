"""fit: minimise a loss over batches, with validation, early stopping and exact resumption.

Every batch is drawn by a generator seeded with (seed, step), and the optimiser's state is saved with the weights, so that a run killed at any
moment and resumed ends bit-identical to one that was not.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dynamics.tensors import write
from dynamics.types import Params

Loss = Callable[[Params, torch.Generator], Tensor]  # params, generator for the batch -> scalar


class ResumeError(ValueError):
    """A training state that does not belong to this run."""


def refuse_other(where: Path, theirs: Any, ours: Any, name: str = "") -> None:
    """Raises ResumeError naming the first of the settings (nested dicts, as JSON reads them) that is not what a run began with."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in ours:
            refuse_other(where, theirs.get(key), ours[key], f"{name}.{key}".lstrip("."))
    elif theirs != ours:
        raise ResumeError(
            f"{where} was begun with {name} {theirs!r}, not {ours!r}; valid: the settings it began with, or another --out"
        )


def begun(stamp: Path) -> dict[str, Any]:
    """The settings that a run wrote down when it began. Raises ResumeError where the file holds no such thing."""
    try:
        found = json.loads(stamp.read_text())
    except ValueError as e:  # of JSON, or of UTF-8
        raise ResumeError(
            f"{stamp} is damaged ({e}); valid: the settings that the run began with, or another --out"
        ) from e
    if not isinstance(found, dict):
        raise ResumeError(f"{stamp} holds no settings; valid: those that the run began with, or another --out")
    return found


@dataclass(frozen=True)
class TrainConfig:
    steps: int = 2000
    lr: float = 1e-3
    """outer learning rate (Adam)"""
    decay_from: float = 0.5
    """fraction of the steps from which on the rate falls, linearly, to `decay_to` of itself"""
    decay_to: float = 0.02
    clip: float = 5.0
    """largest gradient norm"""
    validate_every: int = 0
    """steps between validations; 0: never, and the last weights are kept instead of the best"""
    patience: int = 10
    """validations without improvement before stopping"""
    save_every: int = 500
    seed: int = 0


class Progress(NamedTuple):
    """What is reported after a step. validation is NaN between validations."""

    step: int
    loss: float
    validation: float


class State(NamedTuple):
    params: Params
    adam: Params  # first.*, second.* moments and count
    best: Params
    step: int
    best_loss: float
    stale: int  # validations since the best


def fresh(params: Params) -> State:
    zero = {f"{m}.{n}": torch.zeros_like(w) for n, w in params.items() for m in ("first", "second")}
    return State(params, zero | {"count": torch.zeros(())}, params, 0, math.inf, 0)


def fit(
    loss: Loss,
    start: State,
    config: TrainConfig,
    validate: Callable[[Params], float] | None = None,
    save_to: Path | None = None,
    report: Callable[[Progress], None] | None = None,
) -> State:
    """Run from start.step to config.steps. Returns the last state; `best` holds the weights of the lowest validation loss, or the last ones
    where nothing is validated. Raises FloatingPointError where the loss is not finite."""
    params = {n: w.detach().clone().requires_grad_() for n, w in start.params.items()}
    optimiser = torch.optim.Adam(list(params.values()), lr=config.lr)
    _set_adam(optimiser, params, start.adam)
    best, best_loss, stale = start.best, start.best_loss, start.stale
    step = start.step
    while step < config.steps and stale < config.patience:
        step += 1
        optimiser.param_groups[0]["lr"] = config.lr * rate(step / config.steps, config)
        rng = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        value = loss(params, rng)
        if not value.isfinite():
            raise FloatingPointError(f"the training loss became {value.item()} at step {step}; lower --train.lr")
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(params.values(), config.clip)
        optimiser.step()
        validation = math.nan
        if validate is not None and config.validate_every and step % config.validate_every == 0:
            validation = validate(_plain(params))
            if validation < best_loss:
                best, best_loss, stale = _plain(params), validation, 0
            else:
                stale += 1
        if report is not None:
            report(Progress(step, float(value.detach()), validation))
        if save_to is not None and step % config.save_every == 0:
            state = State(_plain(params), _get_adam(optimiser, params), best, step, best_loss, stale)
            save(save_to, state, config)
    last = _plain(params)
    return State(last, _get_adam(optimiser, params), best if best_loss < math.inf else last, step, best_loss, stale)


def rate(done: float, config: TrainConfig) -> float:
    """The learning rate's factor, from the fraction of the steps that is done."""
    if done <= config.decay_from:
        return 1.0
    return 1.0 + (config.decay_to - 1.0) * (done - config.decay_from) / (1.0 - config.decay_from)


def _plain(params: Params) -> Params:
    return {n: w.detach().clone() for n, w in params.items()}


def _set_adam(optimiser: torch.optim.Adam, params: Params, adam: Params) -> None:
    if adam["count"] == 0:
        return
    for n, w in params.items():
        optimiser.state[w] = {
            "step": adam["count"].clone(),
            "exp_avg": adam[f"first.{n}"].clone(),
            "exp_avg_sq": adam[f"second.{n}"].clone(),
        }


def _get_adam(optimiser: torch.optim.Adam, params: Params) -> Params:
    out: Params = {"count": torch.zeros(())}
    for n, w in params.items():
        state = optimiser.state[w]
        out[f"first.{n}"] = state["exp_avg"].clone() if state else torch.zeros_like(w)
        out[f"second.{n}"] = state["exp_avg_sq"].clone() if state else torch.zeros_like(w)
        if state:
            out["count"] = state["step"].clone()
    return out


def save(path: Path, state: State, config: Any) -> None:
    """Atomically: a killed run leaves the last whole state. Raises OSError."""
    groups = {"params": state.params, "adam": state.adam, "best": state.best}
    tensors = {f"{g}.{n}": w.contiguous().clone() for g, params in groups.items() for n, w in params.items()}
    header = {"step": state.step, "best_loss": state.best_loss, "stale": state.stale, "config": asdict(config)}
    write(path, tensors, header)


def read(path: Path) -> tuple[Params, dict[str, Any]]:
    """Tensors and header of what `write` wrote as the state of a run. Raises ResumeError where there is none."""
    try:
        with safe_open(str(path), "pt") as f:
            header = json.loads((f.metadata() or {}).get("sealegs", "null"))
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, json.JSONDecodeError) as e:
        raise ResumeError(
            f"nothing to resume at {path} ({e}); valid: the --out folder of a training run that was cut off"
        ) from e
    if not isinstance(header, dict):
        raise ResumeError(
            f"{path} was not written by sealegs; valid: the --out folder of a training run that was cut off"
        )
    return tensors, header


def resume(path: Path, config: Any) -> State:
    """Raises ResumeError where there is no state, or one of another configuration."""
    tensors, header = read(path)
    refuse_other(path, header.get("config"), asdict(config), "config")
    groups: dict[str, Params] = {"params": {}, "adam": {}, "best": {}}
    for name, value in tensors.items():
        group, _, key = name.partition(".")
        groups[group][key] = value
    return State(**groups, step=header["step"], best_loss=header["best_loss"], stale=header["stale"])
