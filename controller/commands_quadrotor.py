"""The quadrotor's commands."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.table import Table

from controller import demo_quadrotor, evaluate_quadrotor, learn_quadrotor, report, targets_quadrotor
from controller.commands import Command, collect_recording
from controller.config import AnyRobot
from controller.ros.subjects import QuadrotorSubject
from controller.screen import bar, console, say, tracker, written
from robots.vehicle import load


@dataclass(frozen=True)
class DemoQuadrotor(demo_quadrotor.DemoQuadrotorConfig):
    """Watch a quadrotor pick up an unknown load in mid-air and drop it: two controllers side by side."""

    robot: AnyRobot = "quadrotor"


@dataclass(frozen=True)
class CollectQuadrotor:
    """Add a recording, of a simulated or a real quadrotor, to a dataset; `learn` gathers its own flights, in the folder `data` of its --out."""

    from_bag: Path
    """rosbag2, MCAP, with the payload seen"""
    robot: AnyRobot = "quadrotor"
    out: Path = Path("runs/learn-quadrotor/data")
    vehicle: str = "1kg"
    """that was recorded: 1kg, 80g, or the path of a vehicle's .toml file"""
    skip_bad: bool = False
    """leave out what of a recording cannot be used (not finite, a gap, another shape); an episode ends there. Otherwise it is refused"""


@dataclass(frozen=True)
class EvaluateQuadrotor(evaluate_quadrotor.EvaluateQuadrotorConfig):
    """Trajectories x conditions x controllers -> table.md, table.csv, table.json, and a plot for each trajectory."""

    robot: AnyRobot = "quadrotor"


@dataclass(frozen=True)
class LearnQuadrotor(learn_quadrotor.LearnConfig):
    """From nothing to the quadrotor's weights: flights with random loads, then training. Run it again to go on where it was cut off."""

    robot: AnyRobot = "quadrotor"
    out: Path = Path("runs/learn-quadrotor")


@dataclass(frozen=True)
class Targets(targets_quadrotor.TargetsConfig):
    """Tables of `sealegs evaluate quadrotor` -> ratios, settling times, crashes and what PyBullet keeps, with intervals."""

    robot: Annotated[Literal["quadrotor"], tyro.conf.Positional] = "quadrotor"


def demo(c: DemoQuadrotor) -> None:
    with bar() as shown:
        summary = demo_quadrotor.run(c, tracker(shown))
    table = Table(
        title=f"{c.robot}, {c.trajectory} {c.speed}, {summary['condition']}, {len(summary['seeds'])} seeds: RMSE [mm] (settled after)"
    )
    stages = summary["controllers"][0]["stages"]
    parts = [f"from step {stage['step']}" for stage in stages]
    for title in ("controller", *parts, "largest", "crashed", "p50 / p99 ms"):
        table.add_column(title, justify="left" if title == "controller" else "right")
    for row in summary["controllers"]:
        cells = [
            report.number(1e3 * stage["rmse_m"], 1)
            + (f" ({stage['settle_s']:.2f} s)" if math.isfinite(stage["settle_s"]) else "")
            for stage in row["stages"]
        ]
        times = f"{row['step_ms_p50']:.1f} / {row['step_ms_p99']:.1f}"
        table.add_row(row["adapter"], *cells, report.number(1e3 * row["max_error_m"], 0), str(row["crashed"]), times)
    console.print(table)
    if "video_skipped" in summary:
        console.print(summary["video_skipped"], soft_wrap=True)
    written(c.out)


def collect(c: CollectQuadrotor) -> None:
    collect_recording(c.from_bag, QuadrotorSubject(load(c.vehicle), c.vehicle), c.out, c.skip_bad, asdict(c))


def evaluate(c: EvaluateQuadrotor) -> None:
    with bar() as shown:
        rows = evaluate_quadrotor.evaluate(c, tracker(shown), say)
    adapters = list(dict.fromkeys(r["adapter"] for r in rows))
    table = Table(title=f"{c.robot}, {c.engine}, {c.target} on the trajectory: mean RMSE [mm]")
    columns = ("trajectory", "speed", "condition")
    for title in (*columns, *adapters):
        table.add_column(title, justify="left" if title in columns else "right")
    for key, cell in evaluate_quadrotor.by(rows, *columns).items():
        of = evaluate_quadrotor.by(cell, "adapter")
        table.add_row(
            *(x or "-" for x in key), *(report.number(1e3 * report.mean(of[a,], "rmse_m"), 1) for a in adapters)
        )
    console.print(table)
    written(c.out)


def learn(c: LearnQuadrotor) -> None:
    config = learn_quadrotor.LearnConfig(**{k: getattr(c, k) for k in learn_quadrotor.LearnConfig.__dataclass_fields__})
    for path in learn_quadrotor.learn(config, c.out, say):
        written(path)


def targets(c: Targets) -> None:
    found = targets_quadrotor.targets(c)
    console.print(targets_quadrotor.describe(found), soft_wrap=True, markup=False)
    written(c.out)


# By name, then by robot.
COMMANDS: dict[str, dict[str, Command]] = {
    "demo": {"quadrotor": (DemoQuadrotor, demo)},
    "collect": {"quadrotor": (CollectQuadrotor, collect)},
    "learn": {"quadrotor": (LearnQuadrotor, learn)},
    "evaluate": {"quadrotor": (EvaluateQuadrotor, evaluate)},
    "targets": {"quadrotor": (Targets, targets)},
}
