"""Trajectories x conditions x controllers of the quadrotor -> one table, and plots of what was flown.

Every (trajectory, speed) is one batch of conditions x seeds; an episode does not depend on its batch mates, so pairs share seeds. Step
times are measured apart: the first seed's recorded states of each condition, replayed through a controller of one robot.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from controller import report, score
from controller.baselines.baseline import Baseline, Target
from controller.config import UsageError, at_least, check_seeds, each_once, late_onsets
from controller.fly import Flight, fly
from controller.pilots import make_pilot
from robots.quadrotor import ENGINES, Quadrotor
from robots.quadrotor_condition import Condition, Schedule, parse
from robots.trajectory import KINDS, Reference, Trajectory, TrajectoryError, check, make

COLUMNS: tuple[str, ...] = (
    "robot", "engine", "target", "trajectory", "speed", "adapter", "condition", "seed", "steps", "rmse_m", "max_error_m",
    "settle_s", "crashed", "error_before", "error_after", "step_ms_p50", "step_ms_p99",
)  # fmt: skip
AGAINST = "nmpc"  # whom the others are compared with
SKIPPED = 1.0  # [s] that count for nothing: an episode starts up to 5 cm off its reference


@dataclass(frozen=True)
class QuadrotorConfig:
    """What flies, where, and what it is told."""

    vehicle: str = "1kg"
    """1kg, 80g, or the path of a vehicle's .toml file"""
    engine: str = "mujoco"
    """mujoco or pybullet"""
    target: str = "vehicle"
    """what is to be on the trajectory: vehicle or payload"""
    payload_seen: bool = True
    """whether the payload's position and velocity are observed"""
    weights: Path | None = None
    """a checkpoint for every learned adapter; by default the shipped one of each"""


@dataclass(frozen=True)
class EvaluateQuadrotorConfig(QuadrotorConfig):
    adapters: tuple[str, ...] = ("nmpc", "nmpc-l1", "nmpc-oracle")
    """controllers: pid, geometric, nmpc, nmpc-l1 (with L1 augmentation), nmpc-oracle (told the payload); learned: variational, last-layer,
    grbal, frozen"""
    conditions: tuple[str, ...] = ("none", "payload:0.35:0.9")
    """what happens to it, e.g. payload:0.4:1.0@400+none@800"""
    trajectories: tuple[str, ...] = ("figure-eight",)
    """hover, circle, figure-eight, square, random"""
    speeds: tuple[str, ...] = ("medium",)
    """slow, medium, fast, or the largest on the path [m/s]; hover has none"""
    seeds: tuple[int, ...] = tuple(range(100, 110))
    """of the start, the gusts and the random trajectory"""
    steps: int = 1200
    """control periods, of 10 ms on the vehicles that come along"""
    timing: bool = True
    """time a step for one robot, by a replay for each condition and controller; takes a tenth of the time"""
    seed: int = 0
    """of the bootstrap intervals"""
    out: Path = Path("runs/evaluate")


Progress = Callable[[str, int, int], None]  # what, steps done, steps in all


class Group(NamedTuple):
    """Episodes that fly as one batch: conditions x seeds on one trajectory."""

    trajectory: str
    speed: str | None  # as asked for; hover has none
    schedules: list[Schedule[Condition]]  # one an episode, the seeds of a condition together
    seeds: list[int]
    paths: list[Trajectory]

    @property
    def firsts(self) -> list[int]:
        """The first episode of each condition."""
        return [i for i, seed in enumerate(self.seeds) if seed == self.seeds[0]]


def make_robot(config: QuadrotorConfig) -> Quadrotor:
    """Raises VehicleError, UsageError."""
    for what, given, valid in (
        ("engine", config.engine, ENGINES),
        ("target", config.target, Target.__args__),
    ):
        if given not in valid:
            raise UsageError(f"unknown {what} {given!r}; valid: {', '.join(valid)}")
    return Quadrotor(config.vehicle, config.engine, config.payload_seen)


def make_pilots(config: QuadrotorConfig, robot: Quadrotor, adapters: Sequence[str]) -> dict[str, Baseline]:
    """By name. Raises UsageError, CheckpointError."""
    return {name: make_pilot(name, robot, _target(config), config.weights) for name in adapters}


def _target(config: QuadrotorConfig) -> Target:
    return "payload" if config.target == "payload" else "vehicle"


def make_path(
    kind: str, speed: str, robot: Quadrotor, schedules: Sequence[Schedule[Condition]], seed: int
) -> Trajectory:
    """A trajectory that the vehicle can fly with the heaviest payload of these schedules. Raises TrajectoryError."""
    try:
        value: float | str = float(speed)
    except ValueError:
        value = speed
    path = make(kind, value, np.random.default_rng([seed, 1]))
    fractions = [c.payload[0] for s in schedules for _, c in s.stages if c.payload]
    check(path, robot.vehicle, max(fractions, default=0.0) * robot.vehicle.mass_kg)
    return path


def groups(config: EvaluateQuadrotorConfig, robot: Quadrotor) -> list[Group]:
    """All that is to be flown. Raises ConditionError, TrajectoryError, UsageError."""
    lists = ("adapters", "conditions", "seeds", "trajectories", "speeds")
    each_once(**{name: getattr(config, name) for name in lists})
    at_least(1, steps=config.steps)
    check_seeds(config.seed, *config.seeds)
    schedules = [parse(text, robot.vehicle) for text in config.conditions]
    seeds = list(config.seeds)
    check_target(config, schedules)
    for kind in config.trajectories:
        if kind not in KINDS:
            raise TrajectoryError(f"unknown trajectory {kind!r}; valid: {', '.join(KINDS)}")
    out = []
    for kind in config.trajectories:
        for speed in config.speeds:
            paths = [make_path(kind, speed, robot, schedules, seed) for seed in seeds]
            if kind == "hover" and any(g.trajectory == "hover" for g in out):
                continue
            out.append(
                Group(
                    kind, None if kind == "hover" else speed, [s for s in schedules for _ in seeds],
                    seeds * len(schedules), paths * len(schedules),
                )
            )  # fmt: skip
    return out


def check_target(config: QuadrotorConfig, schedules: Sequence[Schedule[Condition]]) -> None:
    """Raises UsageError where a payload is to track and a schedule never has one."""
    for schedule in schedules:
        if config.target == "payload" and not any(c.payload for _, c in schedule.stages):
            raise UsageError(
                f"--target payload with condition {schedule.text!r}, which has no payload; valid: a condition with one, "
                "e.g. payload:0.3:0.6, or --target vehicle"
            )


def evaluate(
    config: EvaluateQuadrotorConfig, progress: Progress, say: Callable[[str], None] = lambda line: None
) -> list[dict[str, Any]]:
    """Writes config.json, table.json, table.csv, table.md and flight-TRAJECTORY-SPEED.png; table.json after every batch, so nothing
    gathered is lost. An earlier table in --out is set aside, with its plots, and `say` told where.

    Raises ConditionError, TrajectoryError, VehicleError, CheckpointError, UsageError before anything runs.
    """
    robot = make_robot(config)
    todo = groups(config, robot)
    pilots = make_pilots(config, robot, config.adapters)
    # Another robot for the replays: its conditions are those of the one episode that is replayed.
    alone = make_robot(config)
    timed = make_pilots(config, alone, config.adapters)
    config.out.mkdir(parents=True, exist_ok=True)
    if (earlier := report.set_aside(config.out, "table.*", "flight-*.png")) is not None:
        say(f"the earlier table was moved to: {earlier}")
    for late in late_onsets([todo[0].schedules[i] for i in todo[0].firsts], config.steps):
        say(f"{late}: what comes after is not measured")
    report.write_json(config.out / "config.json", asdict(config))
    rows: list[dict[str, Any]] = []
    flights: dict[str, list[Flight]] = {}
    for name, pilot in pilots.items():
        for i, group in enumerate(todo):

            def tell(t: int, what: str = name, before: int = i * config.steps) -> None:
                progress(what, before + t, len(todo) * config.steps)

            flight = fly(
                pilot, robot, group.paths, group.schedules, group.seeds, config.steps, config.target, progress=tell
            )
            flights.setdefault(name, []).append(flight)
            timing = {}
            for j in group.firsts if config.timing else ():
                schedule = group.schedules[j]
                timing[schedule.text] = step_times(timed[name], alone, flight.states[j], group.paths[j], schedule)
            rows += [_row(robot, config, name, group, flight, j, timing) for j in range(len(group.seeds))]
            report.write_json(config.out / "table.json", rows)
    robot.close()
    report.write_csv(config.out / "table.csv", COLUMNS, rows)
    (config.out / "table.md").write_text(markdown(rows, config.seed))
    for i, group in enumerate(todo):
        file = "-".join(filter(None, ("flight", group.trajectory, group.speed)))
        flown = {name: f[i] for name, f in flights.items()}
        plot(config.out / f"{file}.png", robot.dt, group, flown)
    return rows


def step_times(
    pilot: Baseline, robot: Quadrotor, states: np.ndarray, path: Trajectory, schedule: Schedule[Condition]
) -> tuple[float, float]:
    """states (t + 1, s) of a whole episode -> p50 and p99 [ms] of the controller's step for one robot, the first (warm-up) left out.

    robot: the one that the controller was made for; it does not move, it is only told the condition."""
    memory = pilot.init(1)
    steps = len(states) - 1
    whole = path.at(np.arange(steps + 1 + pilot.preview) * robot.dt)
    times = []
    for i in range(steps):
        robot.conditions = [schedule.at(i)]
        window = Reference(*(x[None, i : i + 1 + pilot.preview] for x in whole))
        begun = time.perf_counter()
        _, memory = pilot.step(states[i : i + 1], window, memory)
        times.append(1e3 * (time.perf_counter() - begun))
    return report.spread(times)


def counted(steps: int, dt: float) -> int:
    """The first step that counts: SKIPPED seconds in, or half of an episode that is shorter than twice that."""
    return min(round(SKIPPED / dt), steps // 2)


def tracking(error: np.ndarray) -> tuple[float, float]:
    """(t,) [m] -> RMS and largest, of what is finite; NaN where nothing is."""
    known = error[np.isfinite(error)]
    return report.rms(error), float(known.max()) if len(known) else float("nan")


def _row(
    robot: Quadrotor, config: EvaluateQuadrotorConfig, name: str, group: Group, flight: Flight, i: int,
    timing: dict[str, tuple[float, float]],
) -> dict[str, Any]:  # fmt: skip
    schedule, error = group.schedules[i], flight.error[i]
    onset = report.last_onset(schedule, config.steps)
    values = (
        robot.name, robot.engine, config.target, group.trajectory, group.speed, name, schedule.text, group.seeds[i], config.steps,
        *tracking(error[counted(config.steps, robot.dt) :]), float("nan") if onset is None else score.settle(error, onset, robot.dt),
        bool(flight.crashed[i]), report.rms(flight.error_before[i, onset or 0 :]),
        report.rms(flight.error_after[i, onset or 0 :]), *timing.get(schedule.text, (float("nan"),) * 2),
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


Key = tuple[Any, ...]


def by(rows: Sequence[dict[str, Any]], *columns: str) -> dict[Key, list[dict[str, Any]]]:
    """Rows by their values in these columns, in order of appearance."""
    out: dict[Key, list[dict[str, Any]]] = {}
    for row in rows:
        out.setdefault(tuple(row[c] for c in columns), []).append(row)
    return out


def against(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], seed: int = 0) -> tuple[float, ...]:
    """Ratio of mean RMSE over the seeds that both flew, with its 95% bootstrap interval; NaN where there is none."""
    mine, other = ({s: report.mean(r, "rmse_m") for (s,), r in by(rows, "seed").items()} for rows in (ours, theirs))
    paired = [s for s in mine if math.isfinite(mine[s]) and math.isfinite(other.get(s, math.nan))]
    if not paired:
        return math.nan, math.nan, math.nan
    return score.ratio(np.array([mine[s] for s in paired]), np.array([other[s] for s in paired]), seed)


def markdown(rows: Sequence[dict[str, Any]], seed: int = 0) -> str:
    """A line for each (trajectory, speed, condition, controller), and one for each controller over all that every controller flew: means with
    95% bootstrap intervals over seeds, and the ratio to nmpc on the same seeds."""
    lines = [
        "| trajectory | speed | condition | controller | RMSE [mm, 95%] | x nmpc [95%] | largest [mm] | settle [s] | crashed | "
        "error before -> after | step p50 / p99 [ms] | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    by_cell = by(rows, "trajectory", "speed", "condition").items()
    cells = {(*cell, a): group for cell, inside in by_cell for (a,), group in by(inside, "adapter").items()}
    names = by(rows, "adapter")
    common = [row for cell, inside in by_cell if by(inside, "adapter").keys() == names.keys() for row in inside]
    pooled: dict[Key, list[dict[str, Any]]] = {
        ("all", None, "all", a): group for (a,), group in by(common, "adapter").items()
    }
    # A single cell would only be said twice.
    for table in (cells, pooled if len(cells) > len(pooled) else {}):
        lines += [_line(key, group, table.get((*key[:3], AGAINST)), seed) for key, group in table.items()]
    return "\n".join(lines) + "\n"


def _line(key: Key, group: list[dict[str, Any]], other: list[dict[str, Any]] | None, seed: int) -> str:
    trajectory, speed, condition, adapter = key
    per_seed = np.array([report.mean(r, "rmse_m") for r in by(group, "seed").values()])
    known = per_seed[np.isfinite(per_seed)]
    low, high = score.interval(known, seed) if len(known) else (math.nan, math.nan)
    average = float(known.mean()) if len(known) else math.nan
    ratio = ""
    if adapter != AGAINST and other:
        r = against(group, other, seed)
        ratio = f"{r[0]:.2f} [{r[1]:.2f}, {r[2]:.2f}]" if math.isfinite(r[0]) else ""
    keys = ("max_error_m", "settle_s", "error_before", "error_after", "step_ms_p50", "step_ms_p99")
    largest, settle, before, after, p50, p99 = (report.mean(group, k) for k in keys)
    cells = (
        trajectory, speed or "-", condition, adapter,
        f"{report.number(1e3 * average, 1)} [{report.number(1e3 * low, 1)}, {report.number(1e3 * high, 1)}]", ratio,
        report.number(1e3 * largest, 0), report.number(settle, 2), f"{sum(r['crashed'] for r in group)} of {len(group)}",
        f"{report.number(before, 3)} -> {report.number(after, 3)}", f"{report.number(p50, 1)} / {report.number(p99, 1)}",
        str(len(per_seed)),
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def plot(path: Path, dt: float, group: Group, flights: dict[str, Flight]) -> None:
    """A row for each condition: the first seed's path flown over the path asked, seen from above and from the side, and the error over
    time, its median over seeds with the range, attach and drop marked."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    firsts = group.firsts
    seeds = len(group.seeds) // len(firsts)
    figure, axes = plt.subplots(
        len(firsts), 3, figsize=(14, 3.6 * len(firsts)), squeeze=False, layout="constrained", width_ratios=[1, 1, 2]
    )
    for (top, side, over_time), i in zip(axes, firsts, strict=True):
        asked = next(iter(flights.values())).wanted[i]
        for ax, (x, y) in ((top, (0, 1)), (side, (0, 2))):
            draw_paths(ax, asked, {name: f.position[i] for name, f in flights.items()}, (x, y))
        over_time.set_title(f"{group.trajectory} {group.speed or ''}, {group.schedules[i].text}", fontsize=10)
        draw_errors(over_time, {name: f.error[i : i + seeds] for name, f in flights.items()}, dt)
        report.mark(over_time, group.schedules[i], dt)
        over_time.legend(fontsize=8, loc="upper right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_paths(ax: Any, asked: np.ndarray, flown: dict[str, np.ndarray], columns: tuple[int, int]) -> None:
    """asked, and flown by each controller: (t, 3) [m]. What leaves the reference's surroundings is cut off."""
    x, y = columns
    ax.plot(asked[:, x], asked[:, y], color="k", lw=3, alpha=0.25, label="asked")
    for j, (name, position) in enumerate(flown.items()):
        ax.plot(position[:, x], position[:, y], color=f"C{j}", lw=1, label=name)
    for limits, k in ((ax.set_xlim, x), (ax.set_ylim, y)):
        low, high = asked[:, k].min(), asked[:, k].max()
        margin = 0.3 + 0.1 * (high - low)
        limits(low - margin, high + margin)
    ax.set_aspect("equal")
    ax.set_xlabel(f"{'xyz'[x]} [m]")
    ax.set_ylabel(f"{'xyz'[y]} [m]")
    ax.grid(alpha=0.3)


def draw_errors(ax: Any, errors: dict[str, np.ndarray], dt: float) -> None:
    """(b, t) of each controller [m]: the median over b, and the range, on a logarithmic scale."""
    for j, (name, error) in enumerate(errors.items()):
        empty = ~np.isfinite(error).any(0)
        shown = np.where(empty, 0.0, error)
        low, middle, high = (np.where(empty, np.nan, 1e3 * np.nanquantile(shown, q, axis=0)) for q in (0, 0.5, 1))
        t = np.arange(error.shape[1]) * dt
        ax.plot(t, middle, color=f"C{j}", lw=1.3, label=name)
        ax.fill_between(t, low, high, color=f"C{j}", alpha=0.2, lw=0)
    ax.set_yscale("log")
    ax.set_ylim(bottom=0.1)
    ax.set_xlabel("time [s]")
    ax.set_ylabel("tracking error [mm]")
    ax.grid(alpha=0.3)
