"""Transitions on disk and in memory.

A dataset is a folder of shards, `shard-00000.safetensors` and so on, each written whole under another name, synced and then linked:
a killed run loses at most the batch in flight. A shard holds one batch of robots over time:

    s, s_next (b, t, s)   a (b, t, a)   episode (b, t) int32, counting within the shard; a row's episodes are contiguous

and its metadata say which robot, the `conditions` of the b rows in the notation of robots/condition.py (absent: unknown), and what behaviour
gathered it.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dynamics.tensors import write_next
from dynamics.types import Transitions
from robots.schedule import ConditionError, onsets


class DataError(ValueError):
    """A dataset that cannot be used. The message names the file, the value and what would be valid."""


class Rows(NamedTuple):
    """A dataset flattened to n rows; rows of one episode are contiguous and in order."""

    s: Tensor  # (n, s)
    a: Tensor  # (n, a)
    s_next: Tensor  # (n, s)
    episode: Tensor  # (n,) int64, unique over the dataset
    shard: Tensor  # (n,) int64, the shard it came from
    healthy: Tensor  # (n,) bool: recorded as healthy
    told: Tensor  # (n, n_acting) what the recording tells of gains and parameters of the body, NaN where it does not
    held_out: Tensor  # (n,) bool: of an episode that is kept for validation, see held_out

    @property
    def n(self) -> int:
        return self.s.shape[0]


def append(folder: Path, s: Tensor, a: Tensor, s_next: Tensor, episode: Tensor, meta: dict[str, Any]) -> Path:
    """Add one shard. meta must be JSON-able and name the `robot`. -> its path. Raises OSError."""
    tensors = {"s": s.float(), "a": a.float(), "s_next": s_next.float(), "episode": episode.int()}
    return write_next(folder, "shard", tensors, meta)


def read_shard(path: Path, robot: str, n_state: int, n_action: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """One shard, checked: robot, shapes, finite values, actions within [-1, 1]. Raises DataError."""
    try:
        with safe_open(str(path), "pt") as f:
            meta = json.loads((f.metadata() or {}).get("sealegs", "null"))
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, json.JSONDecodeError) as e:
        raise DataError(
            f"{path} is not a readable shard ({e}); valid: a safetensors file written by `sealegs collect`"
        ) from e
    if not isinstance(meta, dict) or meta.get("robot") != robot:
        got = meta.get("robot") if isinstance(meta, dict) else None
        raise DataError(f"{path} holds transitions of robot {got!r}, wanted {robot!r}")
    b, t = tensors["s"].shape[:2] if "s" in tensors and tensors["s"].dim() == 3 else (0, 0)
    wanted = {"s": (b, t, n_state), "a": (b, t, n_action), "s_next": (b, t, n_state), "episode": (b, t)}
    for name, shape in wanted.items():
        got = tuple(tensors[name].shape) if name in tensors else None
        if got != shape or b * t == 0:
            raise DataError(f"{path}: {name} has shape {got}, wanted (b, t{''.join(f', {n}' for n in shape[2:])})")
        if not tensors[name].isfinite().all():
            where = (~tensors[name].isfinite()).nonzero()[0].tolist()
            raise DataError(
                f"{path}: {name}{where} is {tensors[name][tuple(where)].item()}; every value must be finite"
            )
    if tensors["a"].abs().max() > 1 + 1e-6:
        raise DataError(f"{path}: an action of {tensors['a'].abs().max():.3g} is out of bounds [-1, 1]")
    known = meta.get("conditions") or [""] * b
    if not isinstance(known, list) or not all(isinstance(c, str) for c in known):
        raise DataError(f"{path}: conditions are {known!r}; valid: a list with one for each robot, as a text, or none")
    if len(known) != b:
        raise DataError(f"{path} names {len(known)} conditions for {b} robots; valid: one for each, or none")
    return tensors, meta


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("shard-*.safetensors"))


def digest(folder: Path) -> str:
    """SHA-256 over the shards' names and contents: of the same data, whatever the folder is called."""
    whole = hashlib.sha256()
    for path in shards(folder):
        with open(path, "rb") as f:
            whole.update(f"{path.name} {hashlib.file_digest(f, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def held_out(conditions: Sequence[str]) -> Tensor:
    """Of episodes in their order, each under one of `conditions`: (episodes,) bool, which are kept for validation and never trained on.

    One of every eight of a condition: conditions are dealt in turn, and every eighth of all would be the same ones again and again. Which of the
    eight is the first that comes when fewer than an eighth of all are kept, or else the last; so one is kept of any eight conditions that are
    rarer than that, too. Only what came before counts: episodes that are added change nothing.
    """
    seen: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    out, total = torch.zeros(len(conditions), dtype=torch.bool), 0
    for i, condition in enumerate(conditions):
        none = kept[condition] <= seen[condition] // 8  # of this condition's eight so far
        seen[condition] += 1
        if none and (seen[condition] % 8 == 0 or total < (i + 1) // 8):
            out[i] = True
            kept[condition] += 1
            total += 1
    return out


Tell = Callable[[str], Sequence[float]]


def among(rows: Rows, which: Tensor) -> Rows:
    """Those of rows for which `which` (n,) is true; all where it is true of none."""
    return Rows(*(x[which] for x in rows)) if which.any() else rows


def load(folder: Path, robot: str, n_state: int, n_action: int, tell: Tell | None = None) -> Rows:
    """All shards of a folder. tell: what a condition tells of gains and parameters of the body, NaN for each of which it says nothing; None: that a
    healthy robot's gains are 1. Raises DataError where there is none or one is bad."""
    paths = shards(folder)
    if not paths:
        raise DataError(
            f"{folder} holds no dataset; valid: a folder with shard-*.safetensors, made by `sealegs collect`"
        )
    parts: list[tuple[Tensor, ...]] = []
    conditions: list[str] = []  # of every episode
    for i, path in enumerate(paths):
        t, meta = read_shard(path, robot, n_state, n_action)
        b, steps = t["a"].shape[:2]
        known = meta.get("conditions") or [""] * b
        # (row, episode within row) -> one running number
        key = t["episode"].long() + (t["episode"].max().long() + 1) * torch.arange(b)[:, None]
        _, episode, count = key.flatten().unique_consecutive(return_inverse=True, return_counts=True)
        episode = episode + len(conditions)
        conditions += [known[first // steps] for first in (count.cumsum(0) - count).tolist()]
        healthy = torch.tensor([c == "healthy" for c in known]).repeat_interleave(steps)
        if tell is None:
            told = torch.where(healthy, 1.0, torch.nan)[:, None].expand(-1, n_action)
        else:
            told = torch.tensor(_told(path, known, meta, tell)).repeat_interleave(steps, 0)
        columns = (t[name].flatten(0, 1) for name in ("s", "a", "s_next"))
        parts.append((*columns, episode, torch.full((b * steps,), i), healthy, told))
    s, a, s_next, episode, shard, healthy, told = (torch.cat(column) for column in zip(*parts, strict=True))
    return Rows(s, a, s_next, episode, shard, healthy, told, held_out(conditions)[episode])


def _told(path: Path, conditions: Sequence[str], meta: dict[str, Any], tell: Tell) -> list[list[float]]:
    """Raises DataError where a condition cannot be understood, or changes in an episode: only those of a recording end where it does."""
    for condition in conditions:
        if any(onsets(condition)) and "recording" not in meta:
            raise DataError(
                f"{path}: condition {condition!r} changes in mid-run, and an episode has one condition from its first step to its last; "
                "valid: conditions without @STEP"
            )
    try:
        return [list(tell(condition)) for condition in conditions]
    except ConditionError as e:
        raise DataError(f"{path}: {e}") from e


def window(rows: Rows, at: Tensor, past: int, future: int) -> tuple[Transitions, Transitions]:
    """Windows around rows `at` (w,): the `past` transitions before it and the `future` ones from it on, masked where the
    episode had not begun or has ended. -> Transitions (w, past, .), (w, future, .)"""

    def cut(offsets: Tensor) -> Transitions:
        index = at[:, None] + offsets
        inside = (index >= 0) & (index < rows.n)
        index = index.clamp(0, rows.n - 1)
        mask = inside & (rows.episode[index] == rows.episode[at][:, None])
        return Transitions(rows.s[index], rows.a[index], rows.s_next[index], mask)

    return cut(torch.arange(-past, 0)), cut(torch.arange(future))
