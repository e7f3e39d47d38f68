"""What `collect --from-bag` must know of each robot: how its messages are read, and what its state holds that no message says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from controller.ros import convert
from controller.ros.acting import Window
from controller.ros.brains import decode_ant, read_ant
from controller.ros.quadrotor_brain import Seen, decode_quadrotor, flying, rotors
from controller.ros.topics import TOPICS
from robots import quadrotor_condition
from robots.ant import Ant
from robots.vehicle import Vehicle

ROUNDING = 1e-6  # by which an action may be beyond [-1, 1], as the one that was sent in units at its bound is
Measured = Sequence[tuple[int, np.ndarray]]  # stamp [ns], state as decoded, ascending
Acted = Callable[[int, int], Sequence[Window]]  # what acted from one time to another [ns]


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

    def decode(self, messages: dict[str, Any]) -> np.ndarray:
        """Raises convert.BadMessage."""
        ...

    def read(self, message: Any) -> np.ndarray:
        """A command's message -> (n_action,). Raises convert.BadMessage."""
        ...

    def complete(self, measured: Measured, acted: Acted) -> np.ndarray:
        """-> (n, n_state)"""
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
        return ["+".join(dict.fromkeys(change.condition for change in changes))]

    def speed(self, s: np.ndarray, s_next: np.ndarray) -> float:
        return float(Ant.score(s, s_next).mean())


@dataclass(frozen=True)
class QuadrotorSubject:
    """With the payload seen, as `learn` wants it: without one its position is (0, 0, 0) in the vehicle's frame."""

    vehicle: Vehicle
    name: ClassVar[str] = "quadrotor"
    topics: ClassVar[tuple[str, ...]] = tuple(TOPICS["quadrotor"].state)
    n_action: ClassVar[int] = 4
    episode: ClassVar[int] = 300

    @property
    def dt(self) -> float:
        return self.vehicle.dt

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
        """The rotors' thrust by now, from the commands, and the payload's velocity, from its last positions, as the controller finds them. The
        first state is taken to hover."""
        thrust = now = self.vehicle.hover_thrust_n
        before, states = None, []
        seen: tuple[Seen, ...] = ()
        for stamp, state in measured:
            if before is not None:
                commands = [(share, self.vehicle.command(action)) for share, action in acted(before, stamp)]
                now = rotors(self.vehicle, thrust, commands)
            s, seen = flying(state, stamp, now, seen, payload_seen=True)
            states.append(s)
            before = stamp
            if np.isfinite(
                now
            ):  # else a command could not be read: that state cannot be used, and those after it are as if none had come
                thrust = now
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
