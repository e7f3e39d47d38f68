"""Conditions x controllers -> one table.

All episodes of a controller run as one batch; every robot has its own random stream, so pairs share seeds whatever the batch. Step times
are measured apart: the first seed's recorded states of each condition, replayed through a controller of one robot.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from controller import oracle, report, score
from controller.config import (
    WEIGHTS,
    AnyController,
    UsageError,
    at_least,
    check_seeds,
    each_once,
    late_onsets,
    make_controller,
    make_planner,
    running_cost,
    weights_of,
)
from controller.controller import Controller
from controller.run import Record, episodes
from dynamics import checkpoint, value
from planners.planner import Cost, Terminal
from planners.shooting import Shooting
from robots.ant import Ant
from robots.condition import Schedule, parse

REFERENCES = ("oracle", "specialist")
COLUMNS: tuple[str, ...] = (
    "robot", "adapter", "condition", "seed", "steps", "return", "return_per_500", "falls", "recover_s", "error_before",
    "error_after", "step_ms_p50", "step_ms_p99",
)  # fmt: skip
TIMED_STEPS = 200


@dataclass(frozen=True)
class EvaluateConfig:
    adapters: tuple[str, ...] = ("frozen", "effectiveness")
    """adapters, and the references oracle (the planner on the true simulator) and specialist (trained on that very damage)"""
    conditions: tuple[str, ...] = ("healthy", "leg:3")
    """what happens to the robot, e.g. leg:3@100+leg:0@300"""
    seeds: tuple[int, ...] = tuple(range(100, 110))
    steps: int = 500
    weights: Path | None = None
    """a checkpoint for every adapter; by default the shipped one of each"""
    specialists: Path = WEIGHTS / "specialists"
    """folder of CONDITION.safetensors, for the specialist"""
    controller: AnyController = field(default_factory=AnyController)
    seed: int = 0
    """of the bootstrap intervals"""
    out: Path = Path("runs/evaluate")


Progress = Callable[[str, int, int], None]  # what, steps done, steps in all


def evaluate(
    robot: Ant, config: EvaluateConfig, progress: Progress, say: Callable[[str], None] = lambda line: None
) -> list[dict[str, Any]]:
    """Writes table.json, table.csv, table.md, table.png and config.json; table.json after every controller, so nothing gathered is lost.
    An earlier table in --out is set aside, and `say` told where.

    Raises ConditionError, CheckpointError, UsageError before anything runs.
    """
    each_once(adapters=config.adapters, conditions=config.conditions, seeds=config.seeds)
    at_least(1, steps=config.steps)
    check_seeds(config.seed, *config.seeds)
    schedules = [parse(c) for c in config.conditions]
    controllers = {
        (a, s.text): _controller(robot, a, s, config) for a in config.adapters for s in schedules if a != "oracle"
    }
    if "oracle" in config.adapters:
        _oracle(robot, config)
    config.out.mkdir(parents=True, exist_ok=True)
    if (earlier := report.set_aside(config.out, "table.*")) is not None:
        say(f"the earlier table was moved to: {earlier}")
    for late in late_onsets(schedules, config.steps):
        say(f"{late}: what comes after is not measured")
    report.write_json(config.out / "config.json", asdict(config))
    rows: list[dict[str, Any]] = []
    for adapter in config.adapters:
        # One batch for each distinct controller: a specialist is a different one for each condition.
        groups = [[s] for s in schedules] if adapter == "specialist" else [schedules]
        for group in groups:
            pairs = [(schedule, seed) for schedule in group for seed in config.seeds]

            def tell(t: int, _: np.ndarray, what: str = adapter) -> None:
                progress(what, t + 1, config.steps)

            plan = ([s for s, _ in pairs], [seed for _, seed in pairs], config.steps)
            if adapter == "oracle":
                planner, cost, terminal = _oracle(robot, config)
                record = oracle.episodes(robot, planner, *plan, cost=cost, terminal=terminal, progress=tell)
                timing = {s.text: (float("nan"), float("nan")) for s in group}
            else:
                controller = controllers[adapter, group[0].text]
                record = episodes(controller, robot, *plan, progress=tell)
                firsts = {s.text: record.s[i * len(config.seeds)] for i, s in enumerate(group)}
                timing = {text: _step_times(controller, states, config.seeds[0]) for text, states in firsts.items()}
            rows += [_row(robot, adapter, s, seed, record, i, timing[s.text]) for i, (s, seed) in enumerate(pairs)]
            report.write_json(config.out / "table.json", rows)
    report.write_csv(config.out / "table.csv", COLUMNS, rows)
    (config.out / "table.md").write_text(markdown(rows, config.seed))
    plot(config.out / "table.png", rows)
    return rows


def _oracle(robot: Ant, config: EvaluateConfig) -> tuple[Shooting, Cost, Terminal | None]:
    """What the oracle plans with. Raises CheckpointError, UsageError."""
    theta = checkpoint.load(config.weights or weights_of(robot.name, "oracle"), robot.name, robot.space).theta
    planner = make_planner(config.controller.planner, robot.space.n_action)
    cost = running_cost(robot, theta, config.controller.fall_price)
    return planner, cost, value.terminal(robot.space, theta.value)


def _controller(robot: Ant, adapter: str, schedule: Schedule, config: EvaluateConfig) -> Controller:
    name, weights = adapter, config.weights
    if adapter == "specialist":
        name = "frozen"
        weights = config.specialists / f"{schedule.text.replace(':', '_')}.safetensors"
        if not weights.is_file():
            # A recording holds one condition from its first step to its last.
            damage = "+".join(entry.partition("@")[0] for entry in schedule.text.split("+"))
            raise UsageError(
                f"no specialist for {schedule.text!r} at {weights}; train one with "
                f"`sealegs learn ant --conditions {damage} --no-gains --controller.adapter frozen --out DIR` and copy its last round there"
            )
    valid = ("frozen", "online-sgd", "grbal", "last-layer", "effectiveness", "effectiveness+last-layer", *REFERENCES)
    if adapter not in valid:
        raise UsageError(f"unknown adapter {adapter!r}; valid: {', '.join(valid)}")
    return make_controller(robot, replace(config.controller, adapter=name), weights or weights_of(robot.name, name))  # pyright: ignore[reportArgumentType]


def _step_times(controller: Controller, states: np.ndarray, seed: int) -> tuple[float, float]:
    """(t + 1, s) -> p50 and p99 [ms] of controller.step for one robot, the first step (warm-up) left out."""
    memory = controller.init([seed])
    times = []
    for s in states[: TIMED_STEPS + 1]:
        begun = time.perf_counter()
        _, memory, _ = controller.step(memory, s[None])
        times.append(1e3 * (time.perf_counter() - begun))
    return report.spread(times)


def _row(
    robot: Ant, adapter: str, schedule: Schedule, seed: int, record: Record, i: int, timing: tuple[float, float]
) -> dict[str, Any]:
    speed = robot.score(record.s[i, :-1], record.s[i, 1:])
    onset = report.last_onset(schedule, len(speed))
    values = (
        robot.name, adapter, schedule.text, seed, len(speed), float(speed.sum()), float(speed.mean() * 500),
        int(score.falls(robot.upright(record.s[i : i + 1]))[0]),
        None if onset is None else score.recovery(speed, onset, robot.dt),
        report.rms(record.error_before[i, onset or 0 :]), report.rms(record.error_after[i, onset or 0 :]), *timing,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def groups(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """(condition, adapter) -> rows, in order of appearance."""
    out: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        out.setdefault((row["condition"], row["adapter"]), []).append(row)
    return out


def markdown(rows: Sequence[dict[str, Any]], seed: int = 0) -> str:
    """Means with 95% bootstrap intervals; the ratio to frozen over paired seeds."""

    lines = [
        "| condition | controller | return per 500 steps [95%] | x frozen [95%] | falls per 500 | recover [s] | "
        "error before -> after | step p50 / p99 [ms] | seeds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    by = groups(rows)
    for (condition, adapter), group in by.items():
        value = np.array([r["return_per_500"] for r in group])
        low, high = score.interval(value, seed)
        against = ""
        if adapter != "frozen" and (condition, "frozen") in by:
            paired = {r["seed"]: r["return_per_500"] for r in by[condition, "frozen"]}
            kept = [r for r in group if r["seed"] in paired]
            if kept:
                r = score.ratio(
                    np.array([k["return_per_500"] for k in kept]), np.array([paired[k["seed"]] for k in kept]), seed
                )
                against = f"{r[0]:.2f} [{r[1]:.2f}, {r[2]:.2f}]"
        falls = float(np.mean([r["falls"] * 500 / r["steps"] for r in group]))
        keys = ("recover_s", "error_before", "error_after", "step_ms_p50", "step_ms_p99")
        recover, before, after, p50, p99 = (
            report.number(report.mean(group, k), d) for k, d in zip(keys, (2, 3, 3, 1, 1), strict=True)
        )
        cells = (
            condition, adapter, f"{value.mean():.0f} [{low:.0f}, {high:.0f}]", against, f"{falls:.2f}", recover,
            f"{before} -> {after}", f"{p50} / {p99}", str(len(group)),
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Bars of the mean return, a point for each seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    by = groups(rows)
    conditions = list(dict.fromkeys(c for c, _ in by))
    adapters = list(dict.fromkeys(a for _, a in by))
    width = 0.8 / len(adapters)
    figure, axes = plt.subplots(
        figsize=(max(5, 1.1 * len(conditions) * max(1, len(adapters) / 3)), 4), layout="constrained"
    )
    for j, adapter in enumerate(adapters):
        for i, condition in enumerate(conditions):
            values = [r["return_per_500"] for r in by.get((condition, adapter), [])]
            if values:
                at = i + (j - (len(adapters) - 1) / 2) * width
                axes.bar(at, np.mean(values), width * 0.9, color=f"C{j}", label=adapter if i == 0 else None)
                axes.plot([at] * len(values), values, "k.", ms=3, alpha=0.5)
    axes.set_xticks(range(len(conditions)), conditions, rotation=20, ha="right")
    axes.set_ylabel("return per 500 steps")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
