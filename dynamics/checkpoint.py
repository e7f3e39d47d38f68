"""Checkpoints: safetensors, with a JSON header that says what they are. Nothing is unpickled.

Tensors are named net.*, norm.*, meta.*, and, in half precision, value.* and risk.*. The header, under `sealegs`: format, robot,
model (width, depth, ensemble, body), and a free `record` (config, data hash, git revision) that says how they were made.
"""

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from dynamics import scalar
from dynamics.mlp import MLP
from dynamics.tensors import write
from dynamics.types import Params, Theta
from robots.space import StateSpace

FORMAT = 1
# A value and a chance are not exact to three digits, and every adapter's file carries them: half the size.
STORED = {"value": torch.float16, "risk": torch.float16}


class CheckpointError(ValueError):
    """A checkpoint that cannot be used. The message names the file, what is wrong and what would be valid."""


class Checkpoint(NamedTuple):
    model: MLP
    theta: Theta
    record: dict[str, Any]
    path: Path = Path()  # where it was loaded from


def save(path: Path, robot: str, model: MLP, theta: Theta, record: dict[str, Any]) -> None:
    """A killed run leaves the old file or the new one. Raises OSError."""
    tensors = {
        f"{group}.{name}": tensor.detach().to(STORED.get(group, tensor.dtype), copy=True).contiguous()
        for group, params in theta._asdict().items()
        for name, tensor in params.items()
    }
    shape = {"width": model.width, "depth": model.depth, "ensemble": model.ensemble, "body": model.body}
    header = {"format": FORMAT, "robot": robot, "model": shape, "record": record}
    write(path, tensors, header)


def load(path: Path, robot: str, space: StateSpace) -> Checkpoint:
    """Raises CheckpointError on anything but a whole checkpoint for this robot with finite weights."""
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}; valid: a .safetensors file made by `sealegs learn {robot}`")
    try:
        with safe_open(str(path), "pt") as f:
            header = json.loads((f.metadata() or {}).get("sealegs", "null"))
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, json.JSONDecodeError) as e:
        raise CheckpointError(
            f"{path} is truncated or not a safetensors file ({e}); valid: one made by `sealegs learn {robot}`"
        ) from e
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} was not written by sealegs (no header of format {FORMAT}); valid: one made by `sealegs learn {robot}`"
        )
    if header.get("robot") != robot:
        raise CheckpointError(
            f"{path} is for robot {header.get('robot')!r}, wanted {robot!r}; valid: one made by `sealegs learn {robot}`"
        )
    try:
        known = {"body": 0} | header["model"]  # files from before there were parameters of the body have none
        model = MLP(space, **{k: int(known[k]) for k in ("width", "depth", "ensemble", "body")})
    except (KeyError, TypeError, ValueError) as e:
        raise CheckpointError(
            f"{path}: bad model header {header.get('model')!r}; valid: width, depth, ensemble and body"
        ) from e
    theta = Theta({}, {}, {}, {}, {})
    for name, tensor in tensors.items():
        group, _, key = name.partition(".")
        if group not in Theta._fields:
            raise CheckpointError(f"{path}: unknown tensor {name!r}; valid: net.*, norm.*, meta.*, value.*, risk.*")
        if not tensor.isfinite().all():
            raise CheckpointError(f"{path}: {name} is not finite; every weight must be")
        getattr(theta, group)[key] = tensor.float() if group in STORED else tensor
    expected = {f"net.{n}": w.shape for n, w in model.init(torch.Generator()).items()}
    expected |= {f"norm.x_{n}": torch.Size([space.n_feature]) for n in ("mean", "std")}
    expected |= {f"norm.d_{n}": torch.Size([space.n_delta]) for n in ("mean", "std")}
    for group in ("value", "risk"):
        if getattr(theta, group):
            shapes = scalar.shapes(space, getattr(theta, group))
            expected |= {f"{group}.{n}": shape for n, shape in shapes.items()}
    for name, shape in expected.items():
        got = tensors[name].shape if name in tensors else None
        if got != shape:
            raise CheckpointError(f"{path}: {name} has shape {got and tuple(got)}, wanted {tuple(shape)}")
    return Checkpoint(model, theta, header.get("record", {}), path)


def check_meta(path: Path, theta: Theta, fresh: Params, spread: bool = False) -> None:
    """Raises CheckpointError unless theta has all the meta parameters of `fresh`, in their shapes; spread: or one number that stands for all."""
    for name, wanted in fresh.items():
        got = tuple(theta.meta[name].shape) if name in theta.meta else None
        if got != tuple(wanted.shape) and not (spread and got == ()):
            raise CheckpointError(
                f"{path}: meta.{name} has shape {got}, wanted {tuple(wanted.shape)}; valid: a checkpoint in which adapter "
                f"{name.partition('.')[0]!r} is whole"
            )


def git_revision() -> str:
    """The commit the code is at, or 'unknown' outside a checkout."""
    try:
        here = Path(__file__).resolve().parent
        return subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=5
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
