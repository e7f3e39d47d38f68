"""`sealegs collect --from-bag`: a recording, of a simulated robot or a real one, as transitions for `train` (the quadrotor: `learn`). Needs no ROS.

A transition is two states a period apart and the mean of the commands that acted in between: from when each was sent, which telemetry says, until
the next one was. Where no telemetry was recorded, a command acts from when it was recorded, on the clock of the state recorded before it; one that
newer ones have overtaken does not act, as the robot does not obey it.
States before the first command and after the last are left out. An episode ends where the robot's condition was changed, and after Subject.episode
steps: of one long run training could hold out nothing.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from controller.config import UsageError
from controller.ros import bag, convert, told
from controller.ros.acting import Window, windows
from controller.ros.intake import Intake, Taken
from controller.ros.loop import MISS, STEP, TOLERANCE, Row
from controller.ros.robot_config import overtaken, tells_of_life
from controller.ros.subjects import Change, Subject
from dynamics import data

SILENCE = 2.5  # periods without a command, after which the robot's own safe action may act
SLOP = 5_000_000  # [ns], where the recording does not say


@dataclass
class Recording:
    path: Path
    of: Subject
    lockstep: bool = False
    slop: int = SLOP  # [ns]
    rows: dict[tuple[int, int], Row] = field(default_factory=dict)  # by run and seq
    messages: list[tuple[str, int, Any]] = field(default_factory=list)  # of the state: topic, stamp [ns]
    commands: list[tuple[int, convert.Label | None, np.ndarray]] = field(
        default_factory=list
    )  # on the stamps' clock [ns]
    changes: list[Change] = field(default_factory=list)


def collect(path: Path, of: Subject, out: Path, skip: bool) -> dict[str, Any]:
    """Append the recording to the dataset in out, one shard. skip: leave out what cannot be used, an episode ends there; otherwise it is refused.

    -> summary. Raises UsageError naming the first thing that cannot be used, before anything is written.
    """
    recording = _read(path, of, skip)
    states = _states(recording, skip)
    parts = list(_episodes(recording, states, skip))
    if not parts:
        raise UsageError(
            f"{path} holds no two states of robot {of.name!r} a period ({1e3 * of.dt:g} ms) apart with a command between them; valid: one with "
            f"{', '.join(of.topics)} and sealegs_controller/commands"
        )
    stamps = [row.stamp for part in parts for row in part]
    s, a, s_next = (
        torch.as_tensor(np.array([getattr(row, x) for part in parts for row in part]))[None]
        for x in ("s", "a", "s_next")
    )
    episode = torch.cat([torch.full((len(part),), i) for i, part in enumerate(parts)])[None]
    meta: dict[str, Any] = of.meta | {"policy": "recording", "recording": str(path)}
    if recording.changes:  # of a real robot nobody knows
        meta["conditions"] = of.conditions(recording.changes, stamps)
    shard = data.append(out, s, a, s_next, episode, meta)
    return {
        "shard": shard.name, "recording": str(path), "transitions": a.shape[1], "episodes": len(parts), "states": len(states),
        "conditions": meta.get("conditions"), "speed": of.speed(s.numpy(), s_next.numpy()),
    }  # fmt: skip


def _read(path: Path, of: Subject, skip: bool) -> Recording:
    found = Recording(path, of)
    last: tuple[int, int] | None = None  # the last state: stamp, recorded [ns]
    spaces: dict[str, str] = {}  # by topic: a vehicle and its payload may be seen by two programs
    for m in bag.read(path):
        name = next((t for t in of.topics if m.topic.endswith(f"/{t}")), None)
        if m.topic.endswith("sealegs_controller/config"):
            settings = json.loads(m.content.data)["config"]
            if (robot := settings["robot"]) != of.name:
                raise UsageError(
                    f"{path} is a recording of robot {robot!r}; valid: of {of.name!r}, the robot that `collect` was asked for"
                )
            if other := of.other(settings):
                raise UsageError(f"{path} is a recording of {other}")
            found.lockstep, found.slop = settings["lockstep"], round(1e6 * settings["slop_ms"])
        elif m.topic.endswith("sealegs_controller/telemetry"):
            row = told.recorded(path, m.content).row
            if row.kind in (STEP, MISS):  # the others have the number of the command before them
                found.rows[int(row.run), int(row.seq)] = row
        elif m.topic.endswith("sealegs_robot/condition"):
            try:
                said = json.loads(m.content.data)
                found.changes.append(
                    Change(int(said["stamp"]), str(said["condition"]), int(said["step"]) - int(said["since"]))
                )
            except (ValueError, KeyError, TypeError):
                _refuse(path, "an announced condition", f"{m.content.data!r} is not as the robot node writes it", skip)
        elif m.topic.endswith("/commands"):
            at = m.time if last is None else last[0] + m.time - last[1]
            try:
                command = of.read(m.content)
            except convert.BadMessage as e:
                _refuse(path, f"the command at {at / 1e9:.3f} s", str(e), skip)
                command = np.full(of.n_action, np.nan)  # nobody knows what acted
            found.commands.append((at, convert.label_of(m.content), command))
        elif name is not None:
            if (first := spaces.setdefault(name, space := m.topic.removesuffix(name))) != space:
                raise UsageError(f"{path} holds two robots, {first!r} and {space!r}; valid: a recording of one")
            last = (convert.stamp_of(m.content), m.time)
            found.messages.append((name, last[0], m.content))
    return found


def _refuse(path: Path, where: str, why: str, skip: bool) -> None:
    if not skip:
        raise UsageError(
            f"{path}: {where}: {why}; valid: a recording without, or --skip-bad, which ends an episode there"
        )


def _states(r: Recording, skip: bool) -> list[tuple[int, np.ndarray]]:
    """(stamp [ns], as decoded), in their order."""
    intake, found = Intake(r.of.topics, 0, r.slop, 0), []
    for name, stamp, message in sorted(
        r.messages, key=lambda m: m[1]
    ):  # stable: what came twice follows what it repeats
        taken = intake.add(name, stamp, stamp, message)
        if isinstance(taken, Taken):
            try:
                found.append((taken.stamp, r.of.decode(taken.messages)))
            except convert.BadMessage as e:
                _refuse(r.path, f"the state at {stamp / 1e9:.3f} s", str(e), skip)
    return found


def _acting(r: Recording) -> list[tuple[int, np.ndarray]]:
    """The commands and the times from which they act, ascending [ns]."""
    period = round(1e9 * r.of.dt)
    times: dict[int, np.ndarray] = {}
    newest, obeyed, acts = None, 0, np.full(r.of.n_action, np.nan)
    for recorded, label, sent in r.commands:
        row = None if label is None else r.rows.get((label.run, label.seq))
        at, command = recorded, sent
        if label is not None and r.lockstep:
            at = label.stamp
        elif row is not None and row.kind in (STEP, MISS) and np.isfinite(row.acts_us):
            at = row.stamp + 1000 * int(row.acts_us)
        elif overtaken(label, newest, since := (at - obeyed) / period):
            if not tells_of_life(label, newest, since):
                continue
            command = acts
        else:
            newest, obeyed, acts = label, at, command
        times[at] = command  # what was sent again is the same
    return sorted(times.items(), key=lambda x: x[0])


class Transition(NamedTuple):
    stamp: int  # of s [ns]
    s: np.ndarray
    a: np.ndarray
    s_next: np.ndarray


def _episodes(r: Recording, measured: list[tuple[int, np.ndarray]], skip: bool) -> Iterator[list[Transition]]:
    sent = _acting(r)
    if not sent:
        return
    period, at = round(1e9 * r.of.dt), np.array([time for time, _ in sent])

    def acted(start: int, end: int) -> list[Window]:
        first, last = np.searchsorted(at, start, "right") - 1, np.searchsorted(at, end, "left")
        return list(windows(sent[max(first, 0) : last], start, end, period))

    states = r.of.complete(measured, acted)
    rows: list[Transition] = []
    changes = {change.stamp for change in r.changes}
    for (t, _), (t_next, _), s, s_next in zip(measured, measured[1:], states, states[1:], strict=False):
        ends = len(rows) == r.of.episode or any(t - period < c <= t for c in changes)
        if ends and rows:
            yield rows
            rows = []
        if t < at[0] or t > at[-1] + SILENCE * period:
            continue  # not controlled yet, or no longer
        newest = at[np.searchsorted(at, t_next, "left") - 1]
        if abs(t_next - t - period) > TOLERANCE * period:
            _refuse(r.path, f"between the states at {t / 1e9:.3f} s and {t_next / 1e9:.3f} s", f"a gap of {(t_next - t) / 1e6:.0f} ms, a period is "
                    f"{period / 1e6:.0f} ms", skip)  # fmt: skip
        elif t_next - newest > SILENCE * period:
            _refuse(
                r.path,
                f"the state at {t_next / 1e9:.3f} s",
                f"no command for {(t_next - newest) / 1e6:.0f} ms before it",
                skip,
            )
        else:
            during = acted(t, t_next)
            weight = sum(share for share, _ in during)
            mean = sum((share / weight * command for share, command in during), np.zeros(r.of.n_action))
            if np.isfinite(mean).all() and np.isfinite(s).all() and np.isfinite(s_next).all():
                rows.append(Transition(t, s, mean, s_next))
                continue
        if rows:
            yield rows
            rows = []
    if rows:
        yield rows
