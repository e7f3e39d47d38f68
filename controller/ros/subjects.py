"""What `collect --from-bag` must know of each robot: how its messages are read, and what its state holds that no message says."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from controller.ros import convert
from controller.ros.acting import Window
from controller.ros.brains import decode_ant, read_ant
from controller.ros.quadrotor_brain import GAP_S, Seen, decode_quadrotor, flying, rotors
from controller.ros.topics import TOPICS
from robots import quadrotor_condition
from robots.ant import Ant
from robots.schedule import later
from robots.vehicle import Vehicle

ROUNDING = 1e-6  # by which an action may be beyond [-1, 1], as the one that was sent in units at its bound is
Measured = Sequence[tuple[int, np.ndarray]]  # stamp [ns], state as decoded, ascending
Acted = Callable[[int, int], Sequence[Window]]  # what acted from one time to another [ns]
LONGEST = 1.0  # [s] between two states, over which it is followed what acted
SETTLED = 5.0  # time constants after which it does not show what thrust the rotors began with


class Change(NamedTuple):
    """A condition's, as the robot announced it."""

    stamp: int  # [ns]
    condition: str  # all of the schedule
    step: int  # of the schedule, at that time


class Subject(Protocol):
    """n_action: of a command as the dataset holds it, in [-1, 1]. topics: that make a state. episode: steps after which one ends."""

    name: ClassVar[str]
    topics: ClassVar[tuple[str, ...]]
    n_action: ClassVar[int]
    episode: ClassVar[int]

    @property
    def dt(self) -> float: ...

    @property
    def meta(self) -> dict[str, str]:
        """What a shard says of the robot."""
        ...

    def other(self, settings: dict[str, Any]) -> str:
        """Of a recorded controller's settings: what of them tells of another robot, in words; empty: nothing."""
        ...

    def decode(self, messages: dict[str, Any]) -> np.ndarray:
        """Raises convert.BadMessage."""
        ...

    def read(self, message: Any) -> np.ndarray:
        """A command's message -> (n_action,). Raises convert.BadMessage."""
        ...

    def complete(self, measured: Measured, acted: Acted) -> np.ndarray:
        """-> (n, n_state), NaN where something is not known."""
        ...

    def conditions(self, changes: Sequence[Change], stamps: Sequence[int]) -> list[str]:
        """What was told of the transitions from these times on [ns], in the robot's notation."""
        ...

    def speed(self, s: np.ndarray, s_next: np.ndarray) -> float: ...


@dataclass(frozen=True)
class AntSubject:
    name: ClassVar[str] = Ant.name
    topics: ClassVar[tuple[str, ...]] = tuple(TOPICS["ant"].state)
    n_action: ClassVar[int] = Ant.space.n_action
    episode: ClassVar[int] = 100

    @property
    def dt(self) -> float:
        return Ant.dt

    @property
    def meta(self) -> dict[str, str]:
        return {"robot": self.name}

    def other(self, settings: dict[str, Any]) -> str:
        return ""

    def decode(self, messages: dict[str, Any]) -> np.ndarray:
        return decode_ant(messages)

    def read(self, message: Any) -> np.ndarray:
        command = read_ant(message)
        if np.abs(command).max() > 1:
            raise convert.BadMessage(f"{command.tolist()} is out of bounds [-1, 1]")
        return command

    def complete(self, measured: Measured, acted: Acted) -> np.ndarray:
        return np.array([state for _, state in measured])

    def conditions(self, changes: Sequence[Change], stamps: Sequence[int]) -> list[str]:
        """What was set first, then with the number of the first transition under it what was set in its place."""
        told, last = changes[0].condition, changes[0].condition
        for change in changes[1:]:
            if change.condition != last:
                told += f"+{later(f'healthy+{change.condition}', bisect_left(stamps, change.stamp))}"
                last = change.condition
        return [told]

    def speed(self, s: np.ndarray, s_next: np.ndarray) -> float:
        return float(Ant.score(s, s_next).mean())


@dataclass(frozen=True)
class QuadrotorSubject:
    """With the payload seen, as `learn` wants it: without one its position is (0, 0, 0) in the vehicle's frame. named: as the user named it."""

    vehicle: Vehicle
    named: str
    name: ClassVar[str] = "quadrotor"
    topics: ClassVar[tuple[str, ...]] = tuple(TOPICS["quadrotor"].state)
    n_action: ClassVar[int] = 4
    episode: ClassVar[int] = 300

    @property
    def dt(self) -> float:
        return self.vehicle.dt

    @property
    def meta(self) -> dict[str, str]:
        return {"robot": self.name, "vehicle": self.vehicle.name}

    def other(self, settings: dict[str, Any]) -> str:
        was = str(settings.get("flight.vehicle", self.named))
        return (
            f"vehicle {was!r}; valid: of {self.named!r}, or --vehicle {was}"
            if Path(was).name != Path(self.named).name
            else ""
        )

    def decode(self, messages: dict[str, Any]) -> np.ndarray:
        return decode_quadrotor(messages, payload_seen=True)

    def read(self, message: Any) -> np.ndarray:
        command = convert.command(message, self.n_action)
        action = self.vehicle.action(command)
        if np.abs(action).max() > 1 + ROUNDING:
            low, high = (self.vehicle.command(np.full(4, x)) for x in (-1.0, 1.0))
            raise convert.BadMessage(
                f"{command.tolist()} is out of bounds {low.tolist()} to {high.tolist()} of vehicle {self.vehicle.name!r}"
            )
        return np.clip(action, -1, 1)

    def complete(self, measured: Measured, acted: Acted) -> np.ndarray:
        """The rotors' thrust by now, from the commands, and the payload's velocity, from its last positions, as the controller finds them: known
        when the rotors have followed commands for SETTLED, and from a payload's third position on."""
        lag = round(1e9 * SETTLED * self.vehicle.rotor_time_constant_s)
        thrust, known, before, states = self.vehicle.hover_thrust_n, None, None, []
        seen: tuple[Seen, ...] = ()
        for stamp, state in measured:
            commands: list[Window] = []
            if before is not None and stamp - before <= 1e9 * LONGEST:
                commands = [(share, self.vehicle.command(action)) for share, action in acted(before, stamp)]
            now = rotors(self.vehicle, thrust, commands)
            if not commands or not np.isfinite(now):  # nobody knows what acted: from here on it is to be found anew
                now, known = thrust, stamp + lag
            recent = sum(0 < stamp - at < 1e9 * GAP_S for at, _ in seen)
            s, seen = flying(state, stamp, now, seen, payload_seen=True)
            if known is not None and stamp < known:
                s[15] = np.nan
            if state[15:].any() and recent < 2:
                s[19:] = np.nan
            states.append(s)
            before, thrust = stamp, now
        return np.array(states)

    def conditions(self, changes: Sequence[Change], stamps: Sequence[int]) -> list[str]:
        """The load alone, with the number of the first transition that has it: it is what `learn` is told."""
        told: list[str] = []
        schedules = [quadrotor_condition.parse(change.condition, self.vehicle) for change in changes]
        for i, stamp in enumerate(stamps):
            text = "none"
            for change, schedule in zip(changes, schedules, strict=True):
                if change.stamp <= stamp:
                    since = round((stamp - change.stamp) / 1e9 / self.dt)
                    text = quadrotor_condition.carried(schedule.at(change.step + since))
            if not told or told[-1].rpartition("@")[0] != text:
                told.append(f"{text}@{i}")
        return ["+".join(told)]

    def speed(self, s: np.ndarray, s_next: np.ndarray) -> float:
        return float(np.linalg.norm(s[..., 9:12], axis=-1).mean())
