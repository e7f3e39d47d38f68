"""Gather transitions: open-loop exploration, or the planner in closed loop. Falls end a training episode."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from controller import report as reports
from controller.controller import Controller
from controller.run import Fleet
from dynamics import data
from robots.ant import FALLEN, Ant
from robots.condition import Condition, ConditionError, parse

LYING = 15  # steps a fallen robot is left to get up by itself: enough to learn how, too few to fill the dataset
RETRY = (
    6,
    17,
)  # steps before its fall to which a robot goes back: from ten on the true dynamics hardly ever need to fall (docs/trials/ant.md)

Report = Callable[[int, int], None]  # steps done, steps in all


def steady(condition: str) -> Condition:
    """What a recording is made under: it holds one condition throughout, since training is told one for each. Raises ConditionError."""
    schedule = parse(condition)
    if schedule.onsets:
        raise ConditionError(
            f"condition {condition!r} changes at step {schedule.onsets[0]}, and a recording has one condition from its first step to its last; "
            f"valid: conditions without @STEP, such as {condition.partition('@')[0]}"
        )
    return schedule.at(0)


def explore(
    robot: Ant, folder: Path, conditions: Sequence[str], steps: int, seed: int, policy: str = "both"
) -> dict[str, Any]:
    """One shard of open-loop motion, one robot a condition: coloured noise (policy "noise"), random central-pattern gaits ("cpg": each motor
    a sine of random offset, amplitude and phase, one frequency of 1.5-4.5 Hz a robot), or half of each ("both")."""
    b, n = len(conditions), robot.space.n_action
    rng = np.random.default_rng([seed, 1])
    white = rng.standard_normal((b, steps, n))
    beta = rng.uniform(0.3, 0.95, (b, 1))
    for t in range(1, steps):
        white[:, t] = beta * white[:, t - 1] + np.sqrt(1 - beta**2) * white[:, t]
    noise = white * rng.uniform(0.4, 1.2, (b, 1, 1))
    phase = (
        2
        * np.pi
        * (rng.uniform(1.5, 4.5, (b, 1, 1)) * robot.dt * np.arange(steps)[:, None] + rng.uniform(0, 1, (b, 1, n)))
    )
    gait = rng.uniform(-0.3, 0.3, (b, 1, n)) + rng.uniform(0.3, 1.2, (b, 1, n)) * np.sin(phase)
    gait += 0.2 * rng.standard_normal((b, steps, n))
    first = {"noise": np.ones(b, bool), "cpg": np.zeros(b, bool), "both": rng.permutation(b) % 2 == 0}[policy]
    actions = np.clip(np.where(first[:, None, None], noise, gait), -1, 1)
    s = robot.reset([steady(c) for c in conditions], seeds(seed, b))
    after = robot.rollout(actions)
    states = np.concatenate((s[:, None], after), 1)
    path = data.append(
        folder, torch.tensor(states[:, :-1]), torch.tensor(actions), torch.tensor(after), torch.zeros(b, steps),
        {"robot": robot.name, "conditions": list(conditions), "policy": policy, "seed": seed},
    )  # fmt: skip
    return {"shard": path.name, "transitions": b * steps, "speed": float(robot.score(states[:, :-1], after).mean())}


def on_policy(
    robot: Ant,
    controller: Controller,
    folder: Path,
    conditions: Sequence[str],
    steps: int,
    seed: int,
    report: Report | None = None,
    start: np.ndarray | None = None,
) -> dict[str, Any]:
    """One shard of the controller's own behaviour, one robot a condition. A robot that has lain for LYING steps starts again: every other time from
    rest, else from shortly before its fall, so that the model gets to know the states from which a fall can still be averted.
    start (b, s): where each robot begins; a row of NaN, or None, stands for a robot at rest."""
    b = len(conditions)
    s = robot.reset([steady(c) for c in conditions], seeds(seed, b))
    if start is not None and (moving := np.flatnonzero(np.isfinite(start).all(1))).size:
        s = robot.place(moving, start[moving])
    rng = np.random.default_rng([seed, 2])
    fleet = Fleet(controller, seeds(seed, b))
    episode = np.zeros(b, np.int64)
    rows: list[tuple[np.ndarray, ...]] = []
    falls = 0
    lying = np.zeros(b, np.int64)  # steps each robot has lain
    try:
        for t in range(steps):
            action, _ = fleet.step(s)
            after = robot.step(action)
            rows.append((s, action, after, episode.copy()))
            s = after
            lying = np.where(robot.upright(after) < FALLEN, lying + 1, 0)
            falls += int((lying == 1).sum())
            fallen = lying > LYING
            if fallen.any():
                lying[fallen] = 0
                episode += fallen
                fleet.restart(fallen)
                where = fallen.nonzero()[0]
                s = robot.restart(where, rng.integers(2**31, size=len(where)).tolist())
                for i in where:
                    back = t - LYING - int(rng.integers(*RETRY))
                    if back >= 0 and rows[back][3][i] == rows[t][3][i] and rng.random() < 0.5:
                        s = robot.place(np.array([i]), rows[back][0][[i]])
            if report is not None:
                report(t + 1, steps)
    finally:
        fleet.close()
    columns = [np.stack(column, 1) for column in zip(*rows, strict=True)]
    path = data.append(
        folder, torch.as_tensor(columns[0]), torch.as_tensor(columns[1]), torch.as_tensor(columns[2]), torch.as_tensor(columns[3]),
        {"robot": robot.name, "conditions": list(conditions), "policy": "planner", "seed": seed},
    )  # fmt: skip
    speed = robot.score(columns[0], columns[2]).mean(1)
    by_condition = {
        c: float(speed[[i for i, x in enumerate(conditions) if x == c]].mean()) for c in dict.fromkeys(conditions)
    }
    return {
        "shard": path.name, "transitions": b * steps, "speed": float(speed.mean()), "falls": falls, "by_condition": by_condition,
    }  # fmt: skip


def seed_of_batch(seed: int, batch: int) -> int:
    """Of neighbouring seeds no two batches are the same: sums would be."""
    return int(np.random.SeedSequence(seed, spawn_key=(batch,)).generate_state(1, np.uint64)[0])


def noted(folder: Path) -> list[dict[str, Any]]:
    """The batches in summary.json. Raises DataError where it is something else."""
    path = folder / "summary.json"
    try:
        earlier = json.loads(path.read_text()) if path.exists() else []
    except ValueError:
        earlier = None
    if not isinstance(earlier, list):
        raise data.DataError(f"{path} is not a list of batches; valid: what `sealegs collect` wrote, or no such file")
    return earlier


def note(folder: Path, summary: dict[str, Any]) -> None:
    """Adds a batch to summary.json, after those that are there. Raises DataError."""
    reports.write_json(folder / "summary.json", [*noted(folder), summary])


def seeds(seed: int, count: int) -> list[int]:
    """Seeds for `count` robots, disjoint between values of `seed`."""
    return [int(x) for x in np.random.SeedSequence(seed).generate_state(count)]
