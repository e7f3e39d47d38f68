"""A recorded run again: the same states and events through the same loop must give the same commands. Needs no ROS."""

import hashlib
import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from controller.config import UsageError
from controller.guard import BLIND
from controller.ros import bag, convert, told
from controller.ros.brains import BRAINS
from controller.ros.controller_config import ControlConfig
from controller.ros.intake import Intake, Taken
from controller.ros.loop import LATE, MISS, RESET, STATE, STEP, Brain, Loop, Row
from controller.ros.params import flatten, update

PAIRINGS = 256  # of messages within slop of one stamp; a hundred states a second, paired with a thousand, have ten


@dataclass(frozen=True)
class Counts:
    identical: int
    commands: int
    lost: int  # rows whose state or command is not in the recording
    told: int  # rows whose state's messages are not in it, but what the controller says it read


@dataclass
class Run:
    """One controller's start to its end, or to its next change of settings."""

    config: dict[str, Any]
    states: dict[int, np.ndarray]  # by stamp
    commands: dict[int, np.ndarray]  # by seq
    rows: list[Row]
    told: set[int]  # stamps of the states that are there in the controller's words alone


def runs(path: Path) -> Iterator[tuple[Loop, Run]]:
    """What a recording holds, a run at a time, each with a fresh loop of its settings. Raises UsageError, CheckpointError."""
    found: dict[int, Run] = {}
    stated: dict[str, list[tuple[str, int, Any]]] = {}
    messages = list(bag.read(path))
    for m in messages:
        if m.topic.endswith("/config"):
            config = json.loads(m.content.data)
            found[config["run"]] = Run(config, {}, {}, [], set())
    if not found:
        raise UsageError(
            f"{path} holds no settings of a controller (topic ~/config); valid: a recording made by `sealegs ros ROBOT --record DIR`"
        )
    loops = {run: _loop(path, r.config) for run, r in found.items()}
    for m in messages:
        if m.topic.endswith("/telemetry"):
            row, state = told.recorded(path, m.content)
            if int(row.run) in found:
                found[int(row.run)].rows.append(row)
                if state is not None:
                    found[int(row.run)].states[row.stamp] = state
        elif m.topic.endswith("/commands"):
            label = convert.label_of(m.content)
            if label is not None and label.run in found:
                found[label.run].commands[label.seq] = loops[label.run].brain.read(m.content)
        elif hasattr(m.content, "header") and not m.topic.startswith("/diagnostics"):
            stated.setdefault(m.topic, []).append((m.topic, convert.stamp_of(m.content), m.content))
    for run, r in found.items():
        # In the place of what the controller says it read: so the messages are read again, too, where the recorder heard them.
        read, unread = _states(loops[run], r.config, [x for xs in stated.values() for x in xs], r.states)
        r.states = {stamp: state for stamp, state in r.states.items() if stamp not in unread} | read
        r.told = set(r.states) - set(read)
        r.rows.sort(key=lambda row: row.seq)  # stable: rows of one seq stay in their order
        yield loops[run], r


def _loop(path: Path, record: dict[str, Any]) -> Loop:
    given, known = set(record["config"]), set(flatten(ControlConfig()))
    # One that it lacks would take today's default, and actions that differ for it would look like chance.
    for names, why in ((given - known, "is not known here"), (known - given, "is not recorded")):
        if names:
            raise UsageError(
                f"{path} was recorded by a controller of another version: its parameter {min(names)!r} {why}; valid: a recording of this "
                "version, or replay by the version that made it"
            )
    config = update(ControlConfig(), record["config"])
    weights = Path(record["weights"])
    if not weights.is_file():
        raise UsageError(
            f"the recording's checkpoint {weights} is gone; valid: the file with SHA-256 {record['sha256']} there"
        )
    if (got := hashlib.sha256(weights.read_bytes()).hexdigest()) != record["sha256"]:
        raise UsageError(
            f"{weights} has changed since the recording (SHA-256 {got[:12]}..); valid: the file with SHA-256 {record['sha256']}"
        )
    return Loop(BRAINS[config.robot](config, weights), config.seed, record["run"])


def _states(
    loop: Loop, record: dict[str, Any], messages: list[tuple[str, int, Any]], said: dict[int, np.ndarray]
) -> tuple[dict[int, np.ndarray], set[int]]:
    """Every state that can be made of the recorded messages, by stamp, and the stamps of those that cannot be read. Which of them were acted on
    is the rows' to say. said: what the controller says it read."""
    prefix = record["namespace"].rstrip("/")
    names = {f"{prefix}/{topic}": topic for topic in loop.brain.inputs}
    slop = round(record["config"]["slop_ms"] * 1e6)
    found: dict[int, np.ndarray] = {}
    unread: set[int] = set()
    intake = Intake(tuple(loop.brain.inputs), 0, slop, 0)
    messages = sorted((m for m in messages if m[0] in names), key=lambda m: m[1])
    for topic, stamp, message in messages:
        taken = intake.add(names[topic], stamp, stamp, message)
        if isinstance(taken, Taken):
            try:
                found[taken.stamp] = loop.brain.decode(taken.messages)
            except convert.BadMessage:
                unread.add(taken.stamp)
    at = [m[1] for m in messages]
    for stamp in found.keys() & said.keys():
        if not np.array_equal(found[stamp], said[stamp], equal_nan=True):
            within = messages[bisect_left(at, stamp - slop) : bisect_right(at, stamp + slop)]
            near = [(names[topic], stamped, m) for topic, stamped, m in within]
            if _made(loop.brain, near, stamp, said[stamp]):
                found[stamp] = said[stamp]
    return found, unread


def _made(brain: Brain, near: list[tuple[str, int, Any]], stamp: int, state: np.ndarray) -> bool:
    """Whether messages of one moment make that state, paired otherwise than here: where topics are not equally quick it depends on the order in
    which they arrived."""
    first, *others = brain.inputs
    parts = [
        [m for name, at, m in near if name == topic and (topic != first or at == stamp)] for topic in (first, *others)
    ]
    for chosen in islice(product(*parts), PAIRINGS):
        try:
            if np.array_equal(brain.decode(dict(zip(brain.inputs, chosen, strict=True))), state, equal_nan=True):
                return True
        except convert.BadMessage:
            continue
    return False


def _acts(row: Row, stamp: int) -> int | None:
    """When the row's command acted [ns], None where it does not say."""
    return stamp + 1000 * int(row.acts_us) if np.isfinite(row.acts_us) else None


def redo(loop: Loop, row: Row, memories: dict[int, Any], states: dict[int, np.ndarray]) -> np.ndarray | None:
    """What the row tells of, once more. memories: after every command, by its seq; states by stamp. -> the command that was sent, if any."""
    if row.kind == RESET:
        loop.reset()
        return None
    if row.kind == MISS:
        if row.event == BLIND:  # what the loop had made by then
            loop.foresee(loop.memory, loop.brain.foresee(loop.brain.prepare(loop.memory)))
        return loop.miss(int(row.cause), now=_acts(row, loop.stamp))[0]
    before = int(row.begun) if row.kind == LATE or row.begun < row.seq - 1 else None  # commands came meanwhile
    lead = 1000 * int(row.lead_us) if np.isfinite(row.lead_us) else None
    job = loop.begin(states[row.stamp], row.stamp, row.stamp, lead, int(row.broken), before)
    if before is not None:
        job = job._replace(memory=loop.brain.interrupt(memories[before]) if row.broken else memories[before])
    return loop.finish(job, loop.plan(job), _acts(row, row.stamp) or row.stamp)[0]


def replay(path: Path) -> Counts:
    """Raises UsageError, CheckpointError."""
    torch.set_num_threads(1)
    identical = commands = lost = from_told = 0
    for loop, run in runs(path):
        memories = {0: loop.memory}
        for row in run.rows:
            action = None
            if row.kind in (STEP, LATE) and (row.stamp not in run.states or int(row.begun) not in memories):
                lost += 1
                if row.kind == STEP:  # as if no state had come: everything after it will differ, and be counted
                    loop.miss(STATE)
                    commands += 1
            else:
                from_told += row.kind in (STEP, LATE) and row.stamp in run.told
                action = redo(loop, row, memories, run.states)
            memories[loop.seq] = loop.memory
            memories.pop(loop.seq - 100, None)
            if row.kind in (STEP, MISS) and action is not None:
                sent = run.commands.get(loop.seq)
                commands += 1
                lost += sent is None
                identical += sent is not None and np.array_equal(sent, action)
    return Counts(identical, commands, lost, from_told)
