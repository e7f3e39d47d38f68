"""What a delay costs, with and without predicting the state over it: robot and loop in one process, on a simulated clock.

    python -m controller.ros.delays --delays-ms 0 20 50 100 --seeds 100 101 102 --out results/ros/delays

A state reaches the controller `delay` after its stamp, planning takes `planning`, and then the command acts, in the middle of a period where
that is when it comes. The same states, commands and rows as over DDS, but no noise of the machine: every run is the same again.
"""

import itertools
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
import tyro

from controller.config import ControllerConfig, UsageError
from controller.ros.brains import BRAINS
from controller.ros.controller_config import ControlConfig
from controller.ros.flight_config import FlightConfig
from controller.ros.loop import Loop
from controller.ros.plants import PLANTS
from controller.ros.robot_config import RobotConfig
from controller.score import recovery

MS = 1_000_000  # [ns]


@dataclass(frozen=True)
class DelaysConfig:
    """Delays x seeds, each with and without compensation: delays.json, delays.md."""

    robot: Literal["ant", "quadrotor"] = "ant"
    delays_ms: tuple[float, ...] = (0.0, 20.0, 50.0, 100.0)
    """of the state on its way"""
    planning_ms: float = -1.0
    """by default half a period"""
    condition: str = ""
    seeds: tuple[int, ...] = (100, 101, 102)
    steps: int = 200
    out: Path = Path("runs/delays")
    controller: ControllerConfig = field(default_factory=ControllerConfig)
    """of the ant"""
    flight: FlightConfig = field(default_factory=FlightConfig)
    """of the quadrotor"""


def blank(kind: str) -> Any:
    """A message of that type, as far as plants fill it and brains read it."""
    stamp = SimpleNamespace(sec=0, nanosec=0)
    header = SimpleNamespace(stamp=stamp, frame_id="")
    if kind.endswith("JointState"):
        return SimpleNamespace(header=header, name=[], position=[], velocity=[], effort=[])
    if kind.endswith("PointStamped"):
        return SimpleNamespace(header=header, point=SimpleNamespace(x=0.0, y=0.0, z=0.0))

    def xyz() -> Any:
        return SimpleNamespace(x=0.0, y=0.0, z=0.0)

    pose = SimpleNamespace(position=xyz(), orientation=SimpleNamespace(w=1.0, x=0.0, y=0.0, z=0.0))
    return SimpleNamespace(
        header=header, child_frame_id="", pose=SimpleNamespace(pose=pose),
        twist=SimpleNamespace(twist=SimpleNamespace(linear=xyz(), angular=xyz())),
    )  # fmt: skip


def run(c: DelaysConfig, delay_ms: float, compensated: bool, seed: int) -> dict[str, Any]:
    return episode(c, delay_ms, compensated, seed)[0]


def episode(c: DelaysConfig, delay_ms: float, compensated: bool, seed: int) -> tuple[dict[str, Any], np.ndarray]:
    """One episode -> what is kept of it, and the forward speed (steps - 1,) [m/s] of every period. Kept is the score: the ant's mean forward speed
    [m/s], or the quadrotor's RMS distance from its path [m], from second 1 on; and the ant's time to recover from the last change."""
    control = ControlConfig(robot=c.robot, seed=seed, controller=c.controller, flight=c.flight)
    brain = BRAINS[c.robot](control, None)
    plant = PLANTS[c.robot](RobotConfig(robot=c.robot, seed=seed, flight=c.flight))
    schedule = plant.conditions(c.condition)
    plant.reset(schedule.at(0), seed)
    loop, period = Loop(brain, seed, 0), round(1e9 * brain.dt)
    grain = period // plant.substeps
    planning = round(c.planning_ms * MS) if c.planning_ms >= 0 else period // 2
    if planning > period:
        raise UsageError(f"planning ms is {c.planning_ms:g}; valid: at most the period, {1e3 * brain.dt:g}")
    lead = round(delay_ms * MS) + planning
    due: list[tuple[int, np.ndarray]] = []  # commands on their way
    errors, at = [], []
    action: np.ndarray | None = None
    for k in range(c.steps):
        stamp = k * period
        messages = {topic: blank(kind) for topic, kind in plant.outputs.items()}
        plant.fill(messages, stamp, lambda what, x: x)
        state = brain.decode(messages)
        at.append(state[:3])
        job = loop.begin(state, stamp, stamp + lead - planning, lead if compensated else None)
        command, row = loop.finish(job, loop.plan(job), stamp + lead)
        assert command is not None and row is not None
        errors.append(loop.conclude(row).error_after)
        message = SimpleNamespace(layout=SimpleNamespace(dim=[]), data=[])
        brain.fill(message, command, loop.label)
        due.append((stamp + lead, plant.read(message)))
        for j in range(plant.substeps):
            now = stamp + j * grain
            while due and due[0][0] <= now:
                action = due.pop(0)[1]
            plant.substep(action, schedule.at(k))
    first = round(1 / brain.dt)
    places = np.array(at)
    if c.robot == "ant":
        score = float((places[-1, 0] - places[first, 0]) / (brain.dt * (c.steps - 1 - first)))
    else:
        asked = plant.asked(np.arange(c.steps) * brain.dt)
        score = float(np.sqrt(np.mean(np.sum((places - asked)[first:] ** 2, 1))))
    speed, onset = np.diff(places[:, 0]) / brain.dt, schedule.onsets[-1] if schedule.onsets else None
    recover = float("nan") if onset is None or c.robot != "ant" else recovery(speed, onset, brain.dt)
    kept = {
        "delay_ms": delay_ms, "lead_ms": lead / MS, "compensated": compensated, "seed": seed, "score": score,
        "error_after": float(np.nanmean(errors[first:])), "trouble": plant.trouble(),
        "recover_s": recover,
    }  # fmt: skip
    return kept, speed


def table(c: DelaysConfig, rows: list[dict[str, Any]]) -> str:
    unit = "mean forward speed [m/s]" if c.robot == "ant" else "RMS distance from the path [mm]"
    scale = 1.0 if c.robot == "ant" else 1e3
    lines = [
        f"| delay of the state [ms] | until the command acts [ms] | {unit}: plain | predicted |",
        "|---|---|---|---|",
    ]
    for delay in dict.fromkeys(r["delay_ms"] for r in rows):
        cells = []
        for compensated in (False, True):
            mine = [r for r in rows if r["delay_ms"] == delay and r["compensated"] == compensated]
            scores = [scale * r["score"] for r in mine] or [float("nan")]
            crashed = sum(bool(r["trouble"]) for r in mine)
            cells.append(
                f"{np.mean(scores):.2f} ({min(scores):.2f} to {max(scores):.2f})"
                + (f", {crashed} crashed" if crashed else "")
            )
        lead = next(r["lead_ms"] for r in rows if r["delay_ms"] == delay)
        lines.append(f"| {delay:g} | {lead:g} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    c = tyro.cli(DelaysConfig)
    torch.set_num_threads(1)
    c.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for delay, seed, compensated in itertools.product(c.delays_ms, c.seeds, (False, True)):
        rows.append(run(c, delay, compensated, seed))
        print(json.dumps(rows[-1]), flush=True)
        (c.out / "delays.json").write_text(json.dumps({"config": asdict(c), "rows": rows}, indent=1, default=str))
        (c.out / "delays.md").write_text(table(c, rows))


if __name__ == "__main__":
    main()
