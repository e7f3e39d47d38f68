"""Tables of the quadrotor (controller.evaluate_quadrotor) -> what its targets ask for, each with a 95% bootstrap interval over paired seeds.

A ratio is of mean RMSE: a seed's RMSE is the mean over its trajectories and conditions, a comparison is over the episodes that both
controllers flew, and the interval is of resampled seeds. The gain over `nmpc` that an engine leaves is 1 - ratio; what PyBullet keeps is

    kept = gain in PyBullet / gain in MuJoCo          over the same seeds, resampled together
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from controller import report, score
from controller.config import UsageError, check_seeds
from controller.evaluate_quadrotor import AGAINST, COLUMNS, by, markdown

Row = dict[str, Any]
PLACE = ("engine", "target")
CELL = ("trajectory", "speed", "condition", "steps")
SETTLED = 1.0  # [s]


@dataclass(frozen=True)
class TargetsConfig:
    tables: tuple[Path, ...] = ()
    """folders that `sealegs evaluate quadrotor` wrote"""
    adapter: str = "variational"
    """the controller that is judged"""
    seed: int = 0
    """of the bootstrap intervals"""
    out: Path = Path("runs/targets")


def targets(config: TargetsConfig) -> dict[str, Any]:
    """Writes targets.json, targets.md, table.md (a table for each engine, target and length) and table.csv (every row). -> what targets.json holds.

    Raises UsageError on a folder without a table, on one that holds another's episodes again, and where nothing was flown by the adapter."""
    check_seeds(config.seed)
    rows = gather(config.tables)
    found = judge(rows, config.adapter, config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    report.write_json(config.out / "targets.json", found)
    (config.out / "targets.md").write_text(describe(found))
    parts = []
    for (engine, target, steps), group in by(rows, *PLACE, "steps").items():
        parts.append(f"## {engine}, {target} on the trajectory, {steps} steps\n\n{markdown(group, config.seed)}")
    (config.out / "table.md").write_text("\n".join(parts))
    with open(config.out / "table.csv", "w", newline="") as f:
        writer = csv.DictWriter(f, COLUMNS)
        writer.writeheader()
        writer.writerows({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return found


def gather(folders: Sequence[Path]) -> list[Row]:
    """The rows of all tables. Raises UsageError."""
    if not folders:
        raise UsageError(
            "nothing to summarise: --tables is empty; valid: folders that `sealegs evaluate quadrotor` wrote"
        )
    rows: list[Row] = []
    seen: dict[tuple[Any, ...], Path] = {}  # whose table an episode is in
    for folder in folders:
        path = folder / "table.json"
        try:
            new = json.loads(path.read_text())
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as e:
            raise UsageError(
                f"no table at {path}: {e}; valid: a folder that `sealegs evaluate quadrotor` wrote"
            ) from None
        if not isinstance(new, list) or any(not isinstance(row, dict) or set(row) != set(COLUMNS) for row in new):
            raise UsageError(f"{path} is no table of the quadrotor; valid: one that `sealegs evaluate quadrotor` wrote")
        for row in new:
            key = tuple(row[k] for k in (*PLACE, *CELL, "adapter", "seed"))
            if key in seen:
                raise UsageError(
                    f"{path} and {seen[key]} both have {row['adapter']} on {row['condition']}, seed {row['seed']}; valid: every episode once"
                )
            seen[key] = path
        rows += new
    return rows


def judge(rows: Sequence[Row], adapter: str, seed: int = 0) -> dict[str, Any]:
    """-> ratios (to every other controller, on every engine and target), settling, crashes, kept, step_ms. Raises UsageError."""
    if not any(row["adapter"] == adapter for row in rows):
        flown = ", ".join(dict.fromkeys(row["adapter"] for row in rows))
        raise UsageError(f"adapter {adapter!r} flew nothing in these tables; valid: {flown}")
    ratios, settling = [], []
    for place, group in by(rows, *PLACE).items():
        where = dict(zip(PLACE, place, strict=True))
        of = {name: inside for (name,), inside in by(group, "adapter").items()}
        for other in [name for name in of if name != adapter and adapter in of]:
            ratios += [where | r for r in _ratios(of[adapter], of[other], other, seed)]
        for (name, condition), inside in by(group, "adapter", "condition").items():
            times = np.array([r["settle_s"] for r in inside if r["settle_s"] is not None])
            if len(times):
                settling.append(where | {"adapter": name, "condition": condition} | _settling(times, seed))
    crashes = [
        {"adapter": name, "episodes": len(group), "crashed": sum(r["crashed"] for r in group)}
        for (name,), group in by(rows, "adapter").items()
    ]
    timed = [r for r in rows if r["adapter"] == adapter and r["step_ms_p99"] is not None]
    p50, p99 = (np.array([r[f"step_ms_p{q}"] for r in timed]) for q in (50, 99))
    return {
        "adapter": adapter, "ratios": ratios, "settling": settling, "crashes": crashes, "kept": _kept(rows, adapter, seed),
        "step_ms": {"p50": float(np.median(p50)), "p99": float(np.median(p99)), "p99_largest": float(p99.max())} if timed else None,
    }  # fmt: skip


def shared(ours: Sequence[Row], theirs: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows of both in which each has a partner: same engine, target, path, condition and seed, and an error."""

    def known(rows: Sequence[Row]) -> dict[tuple[Any, ...], Row]:
        return {tuple(r[k] for k in (*PLACE, *CELL, "seed")): r for r in rows if r["rmse_m"] is not None}

    mine, other = known(ours), known(theirs)
    both = [key for key in mine if key in other]
    return [mine[key] for key in both], [other[key] for key in both]


def per_seed(rows: Sequence[Row]) -> np.ndarray:
    """(seeds,) mean RMSE [m] of each, by seed."""
    return np.array([report.mean(group, "rmse_m") for _, group in sorted(by(rows, "seed").items())])


def _settling(times: np.ndarray, seed: int) -> Row:
    low, high = score.interval(times, seed)
    within = int((times <= SETTLED).sum())
    return {
        "episodes": len(times), "mean_s": float(times.mean()), "low_s": low, "high_s": high, "largest_s": float(times.max()), "within": within,
    }  # fmt: skip


def _ratios(ours: Sequence[Row], theirs: Sequence[Row], other: str, seed: int) -> list[Row]:
    """Over all conditions and paths, then for each."""
    mine, others = shared(ours, theirs)
    cells: dict[tuple[Any, ...], tuple[list[Row], list[Row]]] = (
        {("all", None, "all", None): (mine, others)} if mine else {}
    )
    apart = by(others, *CELL)
    cells |= {key: (group, apart[key]) for key, group in by(mine, *CELL).items()}
    out = []
    for key, (a, b) in cells.items():
        a_mm, b_mm = 1e3 * per_seed(a), 1e3 * per_seed(b)
        ratio, low, high = score.ratio(a_mm, b_mm, seed)
        row = {"against": other, **dict(zip(CELL, key, strict=True)), "seeds": len(a_mm), "episodes": len(a)}
        row |= {
            "rmse_mm": float(a_mm.mean()),
            "against_mm": float(b_mm.mean()),
            "ratio": ratio,
            "low": low,
            "high": high,
        }
        out.append(row)
    return out


def _kept(rows: Sequence[Row], adapter: str, seed: int, draws: int = 4000) -> list[Row]:
    """For each target flown on both engines: gains, and what PyBullet keeps."""
    out = []
    for (target,), group in by(rows, "target").items():
        of = by(group, "engine", "adapter")
        ends = [of.get((engine, name), []) for engine in ("mujoco", "pybullet") for name in (adapter, AGAINST)]
        flown = [{tuple(r[k] for k in (*CELL, "seed")): r for r in end if r["rmse_m"] is not None} for end in ends]
        common = set.intersection(*(set(x) for x in flown))
        if not common:
            continue
        means = np.stack([per_seed([x[key] for key in common]) for x in flown])  # (4, seeds)
        at = np.random.default_rng(seed).integers(means.shape[1], size=(draws, means.shape[1]))
        there, here = _gains(means.mean(-1))
        there_drawn, here_drawn = _gains(means[:, at].mean(-1))
        low, high = (float(x) for x in np.quantile(here_drawn / there_drawn, (0.025, 0.975)))
        row = {"target": target, "seeds": means.shape[1], "gain_mujoco": float(there), "gain_pybullet": float(here)}
        out.append(row | {"kept": float(here / there), "low": low, "high": high})
    return out


def _gains(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(4, *b) mean RMSE of the adapter and of nmpc in MuJoCo, then in PyBullet -> the gain (*b) in each."""
    return 1 - means[0] / means[1], 1 - means[2] / means[3]


def describe(found: dict[str, Any]) -> str:
    """targets.md."""
    adapter, t = found["adapter"], found["step_ms"]
    ratios = [
        (r["engine"], r["target"], r["trajectory"], r["condition"], r["steps"] or "", r["against"], f"{r['rmse_mm']:.2f}", f"{r['against_mm']:.2f}",
         f"{r['ratio']:.3f} {_range(r, 3)}", r["seeds"])
        for r in found["ratios"]
    ]  # fmt: skip
    kept = [
        (r["target"], f"{r['gain_mujoco']:.1%}", f"{r['gain_pybullet']:.1%}", f"{r['kept']:.3f} {_range(r, 3)}", r["seeds"])
        for r in found["kept"]
    ]  # fmt: skip
    settling = [
        (r["engine"], r["target"], r["condition"], r["adapter"], f"{r['mean_s']:.2f} [{r['low_s']:.2f}, {r['high_s']:.2f}]",
         f"{r['largest_s']:.2f}", f"{r['within']} of {r['episodes']}")
        for r in found["settling"]
    ]  # fmt: skip
    crashes = [(r["adapter"], r["crashed"], r["episodes"]) for r in found["crashes"]]
    where = "engine | on the trajectory"
    parts = [
        f"# {adapter}\n\nRMSE [mm], and ratio of mean RMSE with its 95% bootstrap interval over paired seeds.",
        _table(f"{where} | path | condition | steps | against | {adapter} | the other | ratio [95%] | seeds", ratios),
        f"Gain over {AGAINST} (1 - ratio), and what PyBullet keeps of it.",
        _table("on the trajectory | MuJoCo | PyBullet | kept [95%] | seeds", kept),
        f"Seconds from the last onset until the error has settled; within: episodes of {SETTLED:g} s or less.",
        _table(f"{where} | condition | controller | mean [95%] | largest | within", settling),
        _table("controller | crashed | episodes", crashes),
    ]
    if t:
        parts.append(
            f"A step of {adapter} for one vehicle: p50 {t['p50']:.1f} ms, p99 {t['p99']:.1f} ms (medians over replayed episodes), "
            f"largest p99 {t['p99_largest']:.1f} ms."
        )
    return "\n\n".join(parts) + "\n"


def _range(r: Row, digits: int) -> str:
    return f"[{r['low']:.{digits}f}, {r['high']:.{digits}f}]"


def _table(head: str, rows: Sequence[tuple[Any, ...]]) -> str:
    titles = f"| {head} |"
    lines = [titles, "|---" * (titles.count("|") - 1) + "|"]
    return "\n".join(lines + [f"| {' | '.join(str(x) for x in row)} |" for row in rows])
