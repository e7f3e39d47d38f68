"""The ant's commands, and `bench`: what each is asked, what it runs, what it shows."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.table import Table

from controller import collect as collecting
from controller import demo as demonstration
from controller import evaluate as evaluating
from controller import learn as learning
from controller import refine as refining
from controller import report, righting
from controller.config import AnyRobot, ControllerConfig, RobotName, UsageError, at_least, check_seeds, make_controller
from controller.fitting import FitConfig, fit_adapter
from controller.ros.subjects import AntSubject, Subject
from controller.screen import bar, console, say, tracker, written
from dynamics.data import shards
from robots.ant import Ant

ROBOTS = {"ant": Ant}
Robot = Annotated[RobotName, tyro.conf.Positional]


@dataclass(frozen=True)
class Demo(demonstration.DemoConfig):
    """Watch a robot lose a leg and walk on: the adapting controller beside the frozen one."""

    robot: AnyRobot = "ant"


@dataclass(frozen=True)
class Evaluate(evaluating.EvaluateConfig):
    """Conditions x controllers -> table.md, table.csv, table.json, table.png."""

    robot: AnyRobot = "ant"


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
class Train(FitConfig):
    """Meta-train an adapter (or fine-tune the network) on a dataset, from a checkpoint."""

    robot: Robot = "ant"


@dataclass(frozen=True)
class Collect:
    """Gather transitions into a dataset; what is there already is added to."""

    robot: AnyRobot = "ant"
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
class Bench:
    """Time adapt, rollout, plan and step on this machine, beside pytorch-mppi where it is installed."""

    out: Path = Path("runs/bench")
    seed: int = 0
    weights: Path | None = None


def demo(c: Demo) -> None:
    with bar() as shown:
        summary = demonstration.run(ROBOTS[c.robot](), c, tracker(shown))
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
    written(c.out)


def evaluate(c: Evaluate) -> None:
    with bar() as shown:
        rows = evaluating.evaluate(ROBOTS[c.robot](), c, tracker(shown), say)
    table = Table(title=f"{c.robot}: mean return per 500 steps")
    adapters = list(dict.fromkeys(r["adapter"] for r in rows))
    for name in ("condition", *adapters):
        table.add_column(name, justify="left" if name == "condition" else "right")
    by = evaluating.groups(rows)
    for condition in dict.fromkeys(c for c, _ in by):
        cells = [by.get((condition, a), []) for a in adapters]
        table.add_row(
            condition, *(f"{sum(r['return_per_500'] for r in cell) / len(cell):.0f}" if cell else "-" for cell in cells)
        )
    console.print(table)
    written(c.out)


def learn(c: Learn) -> None:
    config = learning.LearnConfig(**{k: getattr(c, k) for k in learning.LearnConfig.__dataclass_fields__})
    written(learning.learn(ROBOTS[c.robot](), config, c.out, say))


def refine(c: Refine) -> None:
    config = refining.RefineConfig(**{k: getattr(c, k) for k in refining.RefineConfig.__dataclass_fields__})
    written(refining.refine(ROBOTS[c.robot](), config, c.out, say))


def right(c: Right) -> None:
    at_least(1, rounds=c.rounds, scouts=c.scouts, starts=c.starts, steps=c.steps, elites=c.elites)
    at_least(c.elites, candidates=c.candidates)
    at_least(0, seed=c.seed)
    if not 0 <= c.keep < 1:
        raise UsageError(f"keep is {c.keep:g}; valid: 0 or more and less than 1")
    config = righting.SearchConfig(**{k: getattr(c, k) for k in righting.SearchConfig.__dataclass_fields__})
    c.out.mkdir(parents=True, exist_ok=True)
    gait, record = righting.search(ROBOTS[c.robot](), config, say)
    righting.save(c.out / "righting.json", c.robot, righting.gait(gait), record)
    written(c.out / "righting.json")


def train(c: Train) -> None:
    with bar() as shown:
        path, record = fit_adapter(ROBOTS[c.robot](), c, tracker(shown), say)
    say(f"written: {path}  validation loss {record['validation_before']:.4f} -> {record['validation']:.4f}")


def collect_recording(recording: Path, of: Subject, out: Path, skip: bool, config: dict[str, Any]) -> None:
    from controller.ros import dataset

    collecting.noted(out)
    summary = dataset.collect(recording, of, out, skip)
    report.write_json(out / "config.json", config)
    collecting.note(out, summary)
    say(f"{summary['transitions']} transitions in {summary['episodes']} episodes")
    written(out)


def collect(c: Collect) -> None:
    if c.from_bag is not None:
        return collect_recording(c.from_bag, AntSubject(), c.out, c.skip_bad, asdict(c))
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
    with bar() as shown:
        task = shown.add_task("transitions", total=c.batches * c.robots * c.steps)
        for batch in range(first, first + c.batches):
            seed = collecting.seed_of_batch(c.seed, batch)
            if controller is None:
                summary = collecting.explore(robot, c.out, dealt, c.steps, seed, c.policy)
            else:
                summary = collecting.on_policy(robot, controller, c.out, dealt, c.steps, seed)
            collecting.note(c.out, summary)
            shown.advance(task, c.robots * c.steps)
    written(c.out)


def bench(c: Bench) -> None:
    from controller import bench as timing

    timing.run(c.out, c.seed, c.weights)


Command = tuple[Any, Callable[[Any], None]]  # a config dataclass, what runs it
# By name, then by robot.
COMMANDS: dict[str, dict[str, Command]] = {
    "demo": {"ant": (Demo, demo)},
    "collect": {"ant": (Collect, collect)},
    "refine": {"ant": (Refine, refine)},
    "learn": {"ant": (Learn, learn)},
    "train": {"ant": (Train, train)},
    "right": {"ant": (Right, right)},
    "evaluate": {"ant": (Evaluate, evaluate)},
    "bench": {"": (Bench, bench)},
}
