"""The command `sealegs`. Everything is typed and documented from frozen dataclasses; a user's error is one sentence and exit code 2."""

import os
import sys

# One thread for each torch product: the loop spreads whole robots over threads instead. To be set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from controller import collect as collecting
from controller import demo as demonstration
from controller import demo_quadrotor, evaluate_quadrotor, learn_quadrotor, report, righting, targets_quadrotor
from controller import learn as learning
from controller import refine as refining
from controller.config import ControllerConfig, RobotName, UsageError, at_least, check_seeds, make_controller
from controller.evaluate import EvaluateConfig, evaluate, groups
from controller.fitting import FitConfig, fit_adapter
from controller.ros import commands as ros_commands
from dynamics.checkpoint import CheckpointError
from dynamics.data import DataError, shards
from dynamics.train import ResumeError
from robots.ant import Ant
from robots.condition import ConditionError
from robots.trajectory import TrajectoryError
from robots.vehicle import VehicleError

ROBOTS = {"ant": Ant}
Robot = Annotated[RobotName, tyro.conf.Positional]
# Where several robots have the command; the name chooses the dataclass before anything is parsed (see `chosen`).
AnyRobot = Annotated[
    Literal["ant", "quadrotor"],
    tyro.conf.Positional,
    tyro.conf.arg(help="comes first; each robot has options of its own, e.g. `sealegs demo quadrotor --help`"),
]
USER_ERRORS = (
    UsageError, ConditionError, TrajectoryError, VehicleError, CheckpointError, DataError, ResumeError, FloatingPointError,
)  # fmt: skip
console = Console()


@dataclass(frozen=True)
class Demo(demonstration.DemoConfig):
    """Watch a robot lose a leg and walk on: the adapting controller beside the frozen one."""

    robot: AnyRobot = "ant"


@dataclass(frozen=True)
class DemoQuadrotor(demo_quadrotor.DemoQuadrotorConfig):
    """Watch a quadrotor pick up an unknown load in mid-air and drop it: two controllers side by side."""

    robot: AnyRobot = "quadrotor"


@dataclass(frozen=True)
class Evaluate(EvaluateConfig):
    """Conditions x controllers -> table.md, table.csv, table.json, table.png."""

    robot: AnyRobot = "ant"


@dataclass(frozen=True)
class EvaluateQuadrotor(evaluate_quadrotor.EvaluateQuadrotorConfig):
    """Trajectories x conditions x controllers -> table.md, table.csv, table.json, and a plot for each trajectory."""

    robot: AnyRobot = "quadrotor"


@dataclass(frozen=True)
class Learn(learning.LearnConfig):
    """From nothing to a model: rounds of acting and training. Run it again to go on where it was cut off."""

    robot: AnyRobot = "ant"
    out: Path = Path("runs/learn")


@dataclass(frozen=True)
class Refine(refining.RefineConfig):
    """Record a checkpoint's own behaviour and fit it to that, with weight on what came before falls -> model.safetensors. Run again to go on."""

    robot: Robot = "ant"
    out: Path = Path("runs/refine")


@dataclass(frozen=True)
class LearnQuadrotor(learn_quadrotor.LearnConfig):
    """From nothing to the quadrotor's weights: flights with random loads, then training. Run it again to go on where it was cut off."""

    robot: AnyRobot = "quadrotor"
    out: Path = Path("runs/learn-quadrotor")


@dataclass(frozen=True)
class Train(FitConfig):
    """Meta-train an adapter (or fine-tune the network) on a dataset, from a checkpoint."""

    robot: Robot = "ant"


@dataclass(frozen=True)
class Collect:
    """Gather transitions into a dataset; what is there already is added to."""

    robot: Robot = "ant"
    out: Path = Path("runs/data")
    seed: int = 0
    """of the folder's batches, with each one's number; of two that gather into one folder at once each needs its own"""
    policy: Literal["noise", "cpg", "both", "planner"] = "both"
    """coloured noise, random central-pattern gaits, half of each, or the planner on a trained model"""
    conditions: tuple[str, ...] = ("healthy",)
    """dealt to the robots in turn"""
    robots: int = 32
    steps: int = 150
    """of each robot in a batch"""
    batches: int = 1
    weights: Path | None = None
    from_bag: Path | None = None
    """a recording (rosbag2, MCAP), of a simulated or a real robot, to be added in the place of new motion; of the other options only --out
    and --skip-bad count then"""
    skip_bad: bool = False
    """leave out what of a recording cannot be used (not finite, a gap, another shape); an episode ends there. Otherwise it is refused"""
    controller: ControllerConfig = field(default_factory=ControllerConfig)


@dataclass(frozen=True)
class Right(righting.SearchConfig):
    """Find the motion that turns a robot over that lies on its back -> righting.json."""

    robot: Robot = "ant"
    out: Path = Path("runs/right")


@dataclass(frozen=True)
class Targets(targets_quadrotor.TargetsConfig):
    """Tables of `sealegs evaluate quadrotor` -> ratios, settling times, crashes and what PyBullet keeps, with intervals."""

    robot: Annotated[Literal["quadrotor"], tyro.conf.Positional] = "quadrotor"


@dataclass(frozen=True)
class Bench:
    """Time adapt, rollout, plan and step on this machine, beside pytorch-mppi where it is installed."""

    out: Path = Path("runs/bench")
    seed: int = 0
    weights: Path | None = None


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description:>24}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(), TextColumn("eta"), TimeRemainingColumn(), console=console,
    )  # fmt: skip


def _tracker(bar: Progress) -> Callable[[str, int, int], None]:
    tasks: dict[str, Any] = {}

    def tell(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total)
        bar.update(tasks[what], completed=done, total=total)

    return tell


def _say(line: str) -> None:
    console.print(line, soft_wrap=True, markup=False)


def demo(c: Demo) -> None:
    with _bar() as bar:
        summary = demonstration.run(ROBOTS[c.robot](), c, _tracker(bar))
    table = Table(title=f"{c.robot}, {summary['condition']}, {len(summary['seeds'])} seeds")
    columns = {
        "adapter": "controller", "speed_before": "m/s before", "speed_after": "after", "falls": "falls", "recover_s": "recover s",
        "error_before": "error", "error_after": "adapted", "step_ms_p50": "p50 ms", "step_ms_p99": "p99",
    }  # fmt: skip
    for name, title in columns.items():
        table.add_column(title, justify="left" if name == "adapter" else "right")
    for row in summary["controllers"]:
        cells = (row[name] for name in columns)
        table.add_row(*(x if isinstance(x, str) else f"{x:.2f}" if isinstance(x, float) else str(x) for x in cells))
    console.print(table)
    if "video_skipped" in summary:
        console.print(summary["video_skipped"], soft_wrap=True)
    console.print(f"written: {c.out}", soft_wrap=True)


def demo_of_quadrotor(c: DemoQuadrotor) -> None:
    with _bar() as bar:
        summary = demo_quadrotor.run(c, _tracker(bar))
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
    console.print(f"written: {c.out}", soft_wrap=True)


def evaluate_of_quadrotor(c: EvaluateQuadrotor) -> None:
    with _bar() as bar:
        rows = evaluate_quadrotor.evaluate(c, _tracker(bar), _say)
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
    console.print(f"written: {c.out}", soft_wrap=True)


def run_evaluate(c: Evaluate) -> None:
    with _bar() as bar:
        rows = evaluate(ROBOTS[c.robot](), c, _tracker(bar), _say)
    table = Table(title=f"{c.robot}: mean return per 500 steps")
    adapters = list(dict.fromkeys(r["adapter"] for r in rows))
    for name in ("condition", *adapters):
        table.add_column(name, justify="left" if name == "condition" else "right")
    by = groups(rows)
    for condition in dict.fromkeys(c for c, _ in by):
        cells = [by.get((condition, a), []) for a in adapters]
        table.add_row(
            condition, *(f"{sum(r['return_per_500'] for r in cell) / len(cell):.0f}" if cell else "-" for cell in cells)
        )
    console.print(table)
    console.print(f"written: {c.out}", soft_wrap=True)


def run_targets(c: Targets) -> None:
    found = targets_quadrotor.targets(c)
    console.print(targets_quadrotor.describe(found), soft_wrap=True, markup=False)
    console.print(f"written: {c.out}", soft_wrap=True)


def learn(c: Learn) -> None:
    config = learning.LearnConfig(**{k: getattr(c, k) for k in learning.LearnConfig.__dataclass_fields__})
    path = learning.learn(ROBOTS[c.robot](), config, c.out, _say)
    console.print(f"written: {path}", soft_wrap=True)


def refine(c: Refine) -> None:
    config = refining.RefineConfig(**{k: getattr(c, k) for k in refining.RefineConfig.__dataclass_fields__})
    path = refining.refine(ROBOTS[c.robot](), config, c.out, _say)
    console.print(f"written: {path}", soft_wrap=True)


def run_learn_quadrotor(c: LearnQuadrotor) -> None:
    config = learn_quadrotor.LearnConfig(**{k: getattr(c, k) for k in learn_quadrotor.LearnConfig.__dataclass_fields__})
    for path in learn_quadrotor.learn(config, c.out, _say):
        console.print(f"written: {path}", soft_wrap=True)


def right(c: Right) -> None:
    at_least(1, rounds=c.rounds, scouts=c.scouts, starts=c.starts, steps=c.steps, elites=c.elites)
    at_least(c.elites, candidates=c.candidates)
    at_least(0, seed=c.seed)
    if not 0 <= c.keep < 1:
        raise UsageError(f"keep is {c.keep:g}; valid: 0 or more and less than 1")
    config = righting.SearchConfig(**{k: getattr(c, k) for k in righting.SearchConfig.__dataclass_fields__})
    c.out.mkdir(parents=True, exist_ok=True)
    gait, record = righting.search(
        ROBOTS[c.robot](), config, lambda line: console.print(line, soft_wrap=True, markup=False)
    )
    righting.save(c.out / "righting.json", c.robot, righting.gait(gait), record)
    console.print(f"written: {c.out / 'righting.json'}", soft_wrap=True)


def train(c: Train) -> None:
    with _bar() as bar:
        path, record = fit_adapter(ROBOTS[c.robot](), c, _tracker(bar))
    console.print(
        f"written: {path}  validation loss {record['validation_before']:.4f} -> {record['validation']:.4f}",
        soft_wrap=True,
    )


def collect_recording(recording: Path, c: Collect) -> None:
    from controller.ros import dataset

    collecting.noted(c.out)
    summary = dataset.collect(recording, c.out, c.skip_bad)
    report.write_json(c.out / "config.json", asdict(c))
    collecting.note(c.out, summary)
    console.print(f"{summary['transitions']} transitions in {summary['episodes']} episodes", soft_wrap=True)
    console.print(f"written: {c.out}", soft_wrap=True)


def collect(c: Collect) -> None:
    if c.from_bag is not None:
        return collect_recording(c.from_bag, c)
    robot = ROBOTS[c.robot]()
    at_least(1, robots=c.robots, steps=c.steps, batches=c.batches, number_of_conditions=len(c.conditions))
    check_seeds(c.seed)
    for condition in c.conditions:
        collecting.steady(condition)
    dealt = [c.conditions[i % len(c.conditions)] for i in range(c.robots)]
    controller = make_controller(robot, c.controller, c.weights) if c.policy == "planner" else None
    c.out.mkdir(parents=True, exist_ok=True)
    collecting.noted(c.out)
    report.write_json(c.out / "config.json", asdict(c))
    first = len(shards(c.out))  # run again, it gathers other batches
    with _bar() as bar:
        task = bar.add_task("transitions", total=c.batches * c.robots * c.steps)
        for batch in range(first, first + c.batches):
            seed = collecting.seed_of_batch(c.seed, batch)
            if controller is None:
                summary = collecting.explore(robot, c.out, dealt, c.steps, seed, c.policy)
            else:
                summary = collecting.on_policy(robot, controller, c.out, dealt, c.steps, seed)
            collecting.note(c.out, summary)
            bar.advance(task, c.robots * c.steps)
    console.print(f"written: {c.out}", soft_wrap=True)


def bench(c: Bench) -> None:
    from controller import bench as timing

    timing.run(c.out, c.seed, c.weights)


Command = tuple[Any, Callable[[Any], None]]  # a config dataclass, what runs it
# By name, then by robot; the first robot is the default.
COMMANDS: dict[str, dict[str, Command]] = {
    "demo": {"ant": (Demo, demo), "quadrotor": (DemoQuadrotor, demo_of_quadrotor)},
    "collect": {"ant": (Collect, collect)},
    "refine": {"ant": (Refine, refine)},
    "learn": {"ant": (Learn, learn), "quadrotor": (LearnQuadrotor, run_learn_quadrotor)},
    "train": {"ant": (Train, train)},
    "right": {"ant": (Right, right)},
    "evaluate": {"ant": (Evaluate, run_evaluate), "quadrotor": (EvaluateQuadrotor, evaluate_of_quadrotor)},
    "targets": {"quadrotor": (Targets, run_targets)},
    "bench": {"": (Bench, bench)},
    **ros_commands.COMMANDS,
}


def chosen(argv: Sequence[str]) -> dict[str, Command]:
    """Of every command the one for the robot that the command line names, right after the command, or else the first.

    Raises UsageError on an option that only another robot has.
    """
    commands = {name: next(iter(robots.values())) for name, robots in COMMANDS.items()}
    name, *rest = argv or [""]
    robots = COMMANDS.get(name, {})
    named = rest and rest[0] in robots
    robot = rest[0] if named else next(iter(robots), "")
    if named:
        commands[name] = robots[robot]
    own = set(_options(robots[robot][0])) if robots else set()
    for given in rest:
        option = given.partition("=")[0].replace("_", "-")
        others = [r for r, (kind, _) in robots.items() if option in _options(kind)]
        if option not in own and others:
            raise UsageError(
                f"{option} is an option of {' and '.join(others)}, not of {robot}; valid: `sealegs {name} {others[0]} {option} ...`, or "
                f"what `sealegs {name} {robot} --help` lists"
            )
    return commands


def _options(kind: Any, prefix: str = "--") -> Iterator[str]:
    """As tyro names them."""
    for f in fields(kind):
        name = prefix + f.name.replace("_", "-")
        if is_dataclass(f.type):
            yield from _options(f.type, f"{name}.")
        elif f.name != "robot":
            yield name
            if f.type is bool:
                yield f"{prefix}no-{f.name.replace('_', '-')}"


def main(argv: list[str] | None = None) -> None:
    """Entry point. Exit codes: 0 done, 2 the user's error, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    config: Any = None
    try:
        commands = chosen(argv)
        config = tyro.extras.subcommand_cli_from_dict(
            {name: kind for name, (kind, _) in commands.items()},
            prog="sealegs",
            args=argv,
            description="The robot comes after the command: ant (where none is named) or quadrotor (demo, evaluate, learn, targets, ros).",
        )
        torch.set_num_threads(1)
        run = next(f for kind, f in commands.values() if type(config) is kind)
        if argv[0] in COMMANDS and len(robots := COMMANDS[argv[0]]) > 1 and robots[config.robot][0] is not type(config):
            raise UsageError(
                f"robot {config.robot!r} comes after options; valid: `sealegs {argv[0]} {config.robot} ...`, the robot first"
            )
        run(config)
    except USER_ERRORS as e:
        print(f"sealegs: {e}", file=sys.stderr)
        sys.exit(2)
    except OSError as e:
        # A full disk is told where something is closed, without a name.
        where = e.filename if e.filename is not None else getattr(config, "out", "a file")
        print(
            f"sealegs: {where} cannot be used ({e.strerror or e}); valid: a folder that can be written to, with room left",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
