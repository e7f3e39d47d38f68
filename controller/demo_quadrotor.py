"""The quadrotor's demonstration: a payload is hooked on in mid-air and dropped again; two controllers on the same seeds."""

import itertools
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from controller import report, score
from controller.baselines.baseline import rotation
from controller.config import UsageError, at_least, check_onsets, check_seeds
from controller.evaluate_quadrotor import (
    Progress,
    QuadrotorConfig,
    check_target,
    counted,
    draw_errors,
    draw_paths,
    make_path,
    make_pilots,
    make_robot,
    step_times,
    tracking,
)
from controller.fly import Flight, fly
from robots.quadrotor import Quadrotor
from robots.quadrotor_condition import Condition, Schedule, parse
from robots.render import RenderError
from robots.trajectory import Trajectory

FRAMES = 25  # a second
TRAIL = 1.0  # [s] of the path flown that the film shows


@dataclass(frozen=True)
class DemoQuadrotorConfig(QuadrotorConfig):
    """Watch a quadrotor pick up an unknown load and drop it: writes summary.json, demo.png and demo.mp4."""

    out: Path = Path("runs/demo")
    seed: int = 0
    video: bool = True
    """draw demo.mp4 (needs OpenGL)"""
    steps: int = 1200
    """control periods, of 10 ms on the vehicles that come along"""
    seeds: int = 4
    """pairs of robots; the first pair is filmed"""
    condition: str = ""
    """what happens; by default a payload is hooked on at a third of the episode and dropped at two thirds"""
    trajectory: str = "figure-eight"
    """hover, circle, figure-eight, square, random"""
    speed: str = "fast"
    """slow, medium, fast, or the largest on the path [m/s]"""
    controllers: tuple[str, str] = ("variational", "frozen")
    """the two that fly side by side, as in `sealegs evaluate quadrotor`"""


def run(config: DemoQuadrotorConfig, say: Progress) -> dict[str, Any]:
    """say(what, done, in all) reports progress. -> the summary, which is also written. Raises ConditionError, TrajectoryError,
    VehicleError, CheckpointError, UsageError before anything runs."""
    at_least(1, seeds=config.seeds, steps=config.steps)
    check_seeds(config.seed)
    if len(set(config.controllers)) < 2:
        raise UsageError(
            f"nothing to compare: controllers are {' and '.join(config.controllers)}; valid: two different ones"
        )
    robot = make_robot(config)
    text = config.condition or f"payload:0.4:1.0@{config.steps // 3}+none@{2 * config.steps // 3}"
    schedule = parse(text, robot.vehicle)
    check_target(config, [schedule])
    check_onsets(schedule, config.steps)
    seeds = [config.seed + i for i in range(config.seeds)]
    paths = [make_path(config.trajectory, config.speed, robot, [schedule], seed) for seed in seeds]
    pilots = make_pilots(config, robot, config.controllers)
    alone = make_robot(config)
    timed = make_pilots(config, alone, config.controllers)
    config.out.mkdir(parents=True, exist_ok=True)
    report.write_json(config.out / "config.json", asdict(config))
    begun = time.perf_counter()
    flights: dict[str, Flight] = {}
    rows = []
    for name, pilot in pilots.items():

        def tell(t: int, what: str = name) -> None:
            say(what, t, config.steps)

        flights[name] = fly(
            pilot, robot, paths, [schedule] * len(seeds), seeds, config.steps, config.target, progress=tell
        )
        times = step_times(timed[name], alone, flights[name].states[0], paths[0], schedule)
        rows.append(summarise(robot, name, schedule, flights[name], times))
    robot.close()
    summary = {
        "robot": robot.name, "engine": robot.engine, "vehicle": robot.vehicle.name, "target": config.target,
        "trajectory": config.trajectory, "speed": config.speed, "condition": schedule.text, "onsets": schedule.onsets,
        "steps": config.steps, "seeds": seeds, "controllers": rows, "seconds": time.perf_counter() - begun, "video": None,
    }  # fmt: skip
    plot(config.out / "demo.png", robot, flights, schedule)
    if config.video:
        try:
            film(config.out / "demo.mp4", robot, flights, schedule, paths[0])
            summary["video"] = "demo.mp4"
        except RenderError as e:
            summary["video_skipped"] = str(e)
    report.write_json(config.out / "summary.json", summary)
    return summary


def summarise(
    robot: Quadrotor, name: str, schedule: Schedule[Condition], f: Flight, times: tuple[float, float]
) -> dict[str, Any]:
    """stages: for each part of the episode between onsets, its first step, the RMS error [m] over all seeds, and the mean time after its
    beginning until the error has settled [s] (controller.score.settle)."""
    steps = f.error.shape[1] - 1
    edges = [0, *(o for o in schedule.onsets if o < steps), steps + 1]
    stages = []
    for begin, end in itertools.pairwise(edges):
        start = begin or counted(end, robot.dt)
        settled = np.array([score.settle(e, begin, robot.dt, end) for e in f.error])
        known = settled[np.isfinite(settled)]
        stages.append(
            {
                "step": begin,
                "rmse_m": report.rms(f.error[:, start:end]),
                "settle_s": float(known.mean()) if begin and len(known) else float("nan"),
            }
        )
    onset = schedule.onsets[0] if schedule.onsets else 0
    rmse, largest = tracking(f.error[:, counted(steps, robot.dt) :])
    return {
        "adapter": name,
        "rmse_m": rmse,
        "max_error_m": largest,
        "stages": stages,
        "crashed": int(f.crashed.sum()),
        "error_before": report.rms(f.error_before[:, onset:]),
        "error_after": report.rms(f.error_after[:, onset:]),
        "step_ms_p50": times[0],
        "step_ms_p99": times[1],
    }


def plot(path: Path, robot: Quadrotor, flights: dict[str, Flight], schedule: Schedule[Condition]) -> None:
    """The first seed's path, the tracking error, the prediction error of controllers that learn, and latency; onsets marked."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    learns = {n: f for n, f in flights.items() if np.isfinite(f.error_before).any()}
    figure = plt.figure(figsize=(12, 7.5 if learns else 5.5), layout="constrained")
    rows = 3 if learns else 2
    grid = figure.add_gridspec(rows, 2, width_ratios=[1, 1.6])
    asked = next(iter(flights.values())).wanted[0]
    for where, columns in ((0, (0, 1)), (1, (0, 2))):
        ax = figure.add_subplot(grid[where, 0])
        draw_paths(ax, asked, {name: f.position[0] for name, f in flights.items()}, columns)
        ax.legend(fontsize=8)
    axes = [figure.add_subplot(grid[0, 1])]
    axes += [figure.add_subplot(grid[i, 1], sharex=axes[0]) for i in range(1, rows)]
    draw_errors(axes[0], {name: f.error for name, f in flights.items()}, robot.dt)
    t = np.arange(len(next(iter(flights.values())).step_ms)) * robot.dt
    for j, (name, f) in enumerate(flights.items()):
        axes[-1].plot(t, f.step_ms, color=f"C{j}", lw=0.8, label=f"{name}, {len(f.states)} robots in one batch")
        if name in learns:
            for values, what, style in (
                (f.error_before, "before adaptation (theta)", ":"),
                (f.error_after, "after (phi)", "-"),
            ):
                axes[1].plot(
                    t, np.sqrt((np.nan_to_num(values) ** 2).mean(0)), style, color=f"C{j}", label=f"{name}, {what}"
                )
    if learns:
        axes[1].set_ylabel("one-step error, normalised")
    axes[-1].set_ylabel("step [ms]")
    axes[-1].set_ylim(0, 2 * max(float(np.quantile(f.step_ms, 0.95)) for f in flights.values()))
    axes[-1].set_xlabel("time [s]")
    for ax in axes:
        report.mark(ax, schedule, robot.dt)
        ax.legend(loc="lower left", fontsize=8)
        ax.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def film(
    path: Path, robot: Quadrotor, flights: dict[str, Flight], schedule: Schedule[Condition], asked: Trajectory
) -> None:
    """Both controllers on the first seed side by side, at real speed. Raises RenderError."""
    import imageio

    from robots.quadrotor_view import View

    every = max(1, round(1 / FRAMES / robot.dt))
    with View(robot.vehicle) as view:
        video: Any = imageio.get_writer(
            path, fps=1 / (every * robot.dt), codec="libx264", quality=7, macro_block_size=8
        )
        with video as writer:
            for t in range(0, len(next(iter(flights.values())).step_ms), every):
                tiles = [_tile(view, robot, name, f, schedule, asked, t) for name, f in flights.items()]
                writer.append_data(np.concatenate(tiles, 1))


def _tile(
    view: Any, robot: Quadrotor, name: str, f: Flight, schedule: Schedule[Condition], asked: Trajectory, t: int
) -> np.ndarray:
    from PIL import Image, ImageDraw

    s, now = f.states[0], schedule.at(t)
    seen = any(c.payload for onset, c in schedule.stages if onset <= t)  # one that was dropped is still to be seen
    trail = f.position[0, max(0, t - round(TRAIL / robot.dt)) : t + 1]
    picture = Image.fromarray(
        view.draw(
            s[t, :3],
            rotation(s[t : t + 1])[0],
            f.load[0, t] if seen else None,
            now.payload is not None,
            _around(asked),
            trail,
        )
    )
    draw = ImageDraw.Draw(picture)
    draw.text((10, 8), name, fill="white", font_size=22)
    error = f.error[0, t]
    off = f"{1e3 * error:5.0f} mm off" if np.isfinite(error) else "no payload"
    draw.text((10, 36), f"{off}   {t * robot.dt:5.1f} s", fill="white", font_size=18)
    if now.payload:
        fraction, cable = now.payload
        what = f"payload {1e3 * fraction * robot.vehicle.mass_kg:.0f} g on {cable:g} m"
        draw.text((10, 60), what, fill=(255, 200, 80), font_size=18)
    return np.asarray(picture)


def _around(path: Trajectory, n: int = 150) -> np.ndarray:
    """(n, 3) once around; of a hover one place."""
    if not np.isfinite(path.period):
        return np.repeat(path.at(np.zeros(1)).p, 2, 0)
    return path.at(2 * path.period + np.linspace(0, path.period, n)).p
