"""What every evaluation and demonstration writes, whatever the robot: JSON, CSV, times of steps, onsets in a plot."""

import csv
import itertools
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robots.schedule import Schedule


def plain(x: Any) -> Any:
    """For JSON: what is not finite becomes None, at any depth."""
    if isinstance(x, Mapping):
        return {k: plain(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [plain(v) for v in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x


def write_json(path: Path, x: Any) -> None:
    """In one piece: a reader, or a fault while writing, never sees half of it."""
    # With the process's number: two that write into one folder do not take each other's away.
    temporary = path.with_suffix(f".{os.getpid()}.partial")
    temporary.write_text(json.dumps(plain(x), indent=1, default=str))
    temporary.replace(path)


def set_aside(out: Path, *patterns: str) -> Path | None:
    """Moves an earlier run's files, and the config.json they were made with, into a new folder earlier-N of out: while another run is written
    nothing of two runs stands side by side, and nothing is lost. -> that folder, or None where there was nothing."""
    found = sorted({path for pattern in patterns for path in out.glob(pattern)})
    if not found:
        return None
    folder = next(out / f"earlier-{n}" for n in itertools.count(1) if not (out / f"earlier-{n}").exists())
    folder.mkdir()
    for path in (*found, *out.glob("config.json")):
        path.rename(folder / path.name)
    return folder


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """What is not finite is left empty, as JSON has null."""
    with open(path, "w", newline="") as f:
        writer = csv.DictWriter(f, list(columns))
        writer.writeheader()
        writer.writerows(map(plain, rows))


def number(x: float, digits: int) -> str:
    return f"{x:.{digits}f}" if math.isfinite(x) else "-"


def rms(x: np.ndarray) -> float:
    """Of what is finite; NaN where nothing is."""
    known = x[np.isfinite(x)]
    return float(np.sqrt(np.mean(known**2))) if len(known) else float("nan")


def mean(rows: Iterable[Mapping[str, Any]], key: str) -> float:
    """Of the rows that have it; NaN where none does."""
    values = [r[key] for r in rows if r[key] is not None and math.isfinite(r[key])]
    return float(np.mean(values)) if values else float("nan")


def spread(times: Sequence[float]) -> tuple[float, float]:
    """-> p50 and p99, the first (warm-up) left out."""
    kept = times[1:] or times
    return float(np.quantile(kept, 0.5)), float(np.quantile(kept, 0.99))


def last_onset(schedule: Schedule[Any], steps: int) -> int | None:
    """What recovery is measured from: the last onset in an episode of so many steps; None where there is none, and after one that never comes."""
    onset = schedule.onsets[-1] if schedule.onsets else None
    return onset if onset is not None and onset < steps else None


def mark(ax: Any, schedule: Schedule[Any], dt: float) -> None:
    """A dashed line at every onset, with the entries that begin there."""
    for onset in schedule.onsets:
        if onset * dt > ax.get_xlim()[1]:
            continue  # it never came
        entries = [e.strip().partition("@") for e in schedule.text.split("+")]
        label = "+".join(e for e, _, step in entries if step and int(step) == onset)
        ax.axvline(onset * dt, color="k", ls="--", lw=1)
        ax.annotate(
            label, (onset * dt, 1), xycoords=("data", "axes fraction"), xytext=(4, -12), textcoords="offset points",
            fontsize=8,
        )  # fmt: skip
