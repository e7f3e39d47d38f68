"""How an ant's speed comes back after a damage, in the mean over many episodes.

    python -m controller.recovery --condition leg:3@167 --adapters effectiveness frozen --seeds 100 101 ... --out results/ant/recovery

One episode says little (controller/score.py, recovery): a gait's speed over half a second varies by a fifth of itself without any damage, and an
ant at speed passes 90% of its slower speed after the loss at once, whatever becomes of it. The mean over episodes shows both what the damage costs
at first and how it ends.
"""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from controller import report, score
from controller.config import (
    AdapterName,
    AnyController,
    UsageError,
    check_seeds,
    each_once,
    make_controller,
    weights_of,
)
from controller.run import episodes
from dynamics.checkpoint import CheckpointError
from robots.ant import Ant
from robots.condition import ConditionError, Schedule, parse

NEEDED_S = 2 * score.SPAN_S  # after the damage


@dataclass(frozen=True)
class RecoveryConfig:
    """Controllers on the same seeds: recovery.json, recovery.md, recovery.png."""

    condition: str = "leg:3@167"
    adapters: tuple[AdapterName, ...] = ("effectiveness", "frozen")
    seeds: tuple[int, ...] = tuple(range(100, 120))
    steps: int = 500
    controller: AnyController = field(default_factory=AnyController)
    out: Path = Path("runs/recovery")


def run(config: RecoveryConfig, say: Callable[[str], None]) -> dict[str, Any]:
    """-> what recovery.json holds. Raises UsageError, ConditionError, CheckpointError before anything runs."""
    robot, schedule = Ant(threads=2), parse(config.condition)
    each_once(adapters=config.adapters, seeds=config.seeds)
    check_seeds(*config.seeds)
    onset = schedule.onsets[-1] if schedule.onsets else 0
    if not onset or (config.steps - onset) * robot.dt < NEEDED_S:
        raise UsageError(
            f"{config.condition!r} and {config.steps} steps leave no {NEEDED_S:g} s after a damage in mid-run; valid: an onset (leg:3@167), "
            f"and steps of {robot.dt:g} s for that long after it"
        )
    made = {
        a: make_controller(robot, replace(config.controller, adapter=a), weights_of(robot.name, a))
        for a in config.adapters
    }
    curves: dict[str, np.ndarray] = {}
    found: list[dict[str, Any]] = []
    for adapter, controller in made.items():
        record = episodes(controller, robot, [schedule] * len(config.seeds), list(config.seeds), config.steps)
        speed = np.stack([robot.score(s[:-1], s[1:]) for s in record.s])
        curves[adapter] = speed
        value, low, high = score.mean_recovery(speed, onset, robot.dt)
        alone = [score.recovery(v, onset, robot.dt) for v in speed]
        span = round(score.SPAN_S / robot.dt)
        before, steady = speed[:, max(0, onset - span) : onset], speed[:, onset + span :]
        found.append({
            "adapter": adapter, "recover_s": value, "low_s": low, "high_s": high, "of_each_s": alone,
            "before_m_s": float(before.mean()), "steady_m_s": float(steady.mean()),
            "lowest_m_s": float(score.ahead(speed.mean(0))[onset : onset + span].min()), "falls": int(score.falls(robot.upright(record.s)).sum()),
            "mean_m_s": speed.mean(0).round(4).tolist(),
        })  # fmt: skip
        say(f"{adapter}: {value:.2f} s [{low:.2f}, {high:.2f}]")
    whole = {"config": asdict(config) | {"out": str(config.out)}, "controllers": found}
    config.out.mkdir(parents=True, exist_ok=True)
    report.write_json(config.out / "recovery.json", whole)
    (config.out / "recovery.md").write_text(_markdown(config, found))
    _plot(config.out / "recovery.png", robot, schedule, onset, curves)
    return whole


def _markdown(config: RecoveryConfig, found: list[dict[str, Any]]) -> str:
    lines = [
        f"`{config.condition}`, {len(config.seeds)} seeds ({config.seeds[0]} to {config.seeds[-1]}), {config.steps} steps.", "",
        "| controller | mean below 90% of steady until [s] [95%] | before [m/s] | lowest half second after it | steady after it | falls | "
        "of each episode, mean [s] |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in found:
        lines.append(
            f"| {r['adapter']} | {r['recover_s']:.2f} [{r['low_s']:.2f}, {r['high_s']:.2f}] | {r['before_m_s']:.2f} | {r['lowest_m_s']:.2f} | "
            f"{r['steady_m_s']:.2f} | {r['falls']} | {np.nanmean(r['of_each_s']):.2f} |"
        )
    return "\n".join(lines) + "\n\n![mean speed](recovery.png)\n"


def _plot(path: Path, robot: Ant, schedule: Schedule, onset: int, curves: dict[str, np.ndarray]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for i, (adapter, speed) in enumerate(curves.items()):
        smooth = np.stack([score.ahead(v) for v in speed])
        t, mean = (np.arange(smooth.shape[1]) - onset) * robot.dt, smooth.mean(0)
        error = smooth.std(0, ddof=1) / np.sqrt(len(smooth))
        ax.plot(t, mean, color=f"C{i}", label=adapter)
        ax.fill_between(t, mean - error, mean + error, color=f"C{i}", alpha=0.25, lw=0)
        ax.axhline(0.9 * speed[:, onset + round(score.SPAN_S / robot.dt) :].mean(), color=f"C{i}", ls=":", lw=1)
    ax.axvline(0, color="k", ls="--", lw=1)
    ax.set_xlim(-3, 10)
    ax.set_ylim(0, 1.1 * max(score.ahead(speed.mean(0)).max() for speed in curves.values()))
    ax.set_xlabel(f"time since {schedule.text} [s]")
    ax.set_ylabel("mean speed, next half second [m/s]")
    ax.set_title("band: deviation of the mean; dotted: 90% of what it keeps", fontsize=9)
    ax.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    try:
        run(tyro.cli(RecoveryConfig, description=__doc__), print)
    except (UsageError, ConditionError, CheckpointError) as e:
        print(f"sealegs: {e}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
