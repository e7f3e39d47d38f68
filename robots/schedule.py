"""Conditions over an episode, the same grammar for every robot: KIND:ARGUMENTS, joined by +, each with an optional @STEP.

`leg:3@100+leg:0@300` adds its entries at steps 100 and 300. Entries that share a step add up. What a kind does to a robot's condition
is the robot's own: robots.condition for the ant, robots.quadrotor_condition for the quadrotor.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

C = TypeVar("C")


class ConditionError(ValueError):
    """A condition that cannot be understood. The message names the entry and the valid kinds."""


@dataclass(frozen=True)
class Schedule(Generic[C]):
    """Conditions over the steps of an episode: (onset step, condition from then on), onsets ascending, the first 0."""

    text: str
    stages: tuple[tuple[int, C], ...]

    def at(self, step: int) -> C:
        return next(c for onset, c in reversed(self.stages) if onset <= step)

    @property
    def onsets(self) -> tuple[int, ...]:
        """Steps after 0 at which something changes."""
        return tuple(onset for onset, _ in self.stages[1:])


def onsets(text: str) -> list[int]:
    """Of each entry of a text, which need mean nothing: 0 without an @STEP."""
    return [int(match[1]) if (match := re.search(r"@(\d+)\s*$", entry)) else 0 for entry in text.split("+")]


def later(text: str, steps: int) -> str:
    """The same so many steps later."""
    entries = zip(text.split("+"), onsets(text), strict=True)
    return "+".join(f"{entry.partition('@')[0].strip()}@{onset + steps}" for entry, onset in entries)


@dataclass(frozen=True)
class Entry:
    """KIND:ARGUMENTS as written, with the text it came from and how its kind is used, for the messages."""

    kind: str
    arguments: tuple[str, ...]
    text: str
    usage: str

    def bad(self, why: str) -> ConditionError:
        entry = ":".join((self.kind, *self.arguments))
        return ConditionError(f"condition {entry!r} in {self.text!r}: {why}; valid: {self.usage}")

    def takes(self, *counts: int) -> None:
        """Raises ConditionError unless it has one of these numbers of arguments."""
        if len(self.arguments) not in counts:
            raise self.bad(f"takes {' or '.join(map(str, counts))} argument(s), got {len(self.arguments)}")

    def number(self, i: int, low: float, high: float) -> float:
        """Argument i. Raises ConditionError unless it is a number in [low, high]."""
        try:
            value = float(self.arguments[i])
        except ValueError:
            raise self.bad(f"{self.arguments[i]!r} is not a number") from None
        if not (math.isfinite(value) and low <= value <= high):
            raise self.bad(f"{self.arguments[i]} is outside {low:g} to {high:g}")
        return value

    def index(self, i: int, count: int) -> int:
        """Argument i. Raises ConditionError unless it is one of 0 to count - 1."""
        if not re.fullmatch(r"\d+", self.arguments[i]) or int(self.arguments[i]) >= count:
            raise self.bad(f"{self.arguments[i]!r} is not one of 0 to {count - 1}")
        return int(self.arguments[i])


def parse(text: str, kinds: Mapping[str, str], start: C, apply: Callable[[C, Entry], C]) -> Schedule[C]:
    """kinds: how each kind is used, by its name. start: the condition before any entry. apply: a condition, changed by an entry.

    Raises ConditionError naming the entry and the valid kinds.
    """
    entries: list[tuple[int, Entry]] = []
    for entry in text.split("+"):
        match = re.fullmatch(r"\s*([a-z-]+)((?::[^:@\s]+)*)(?:@(\d+))?\s*", entry)
        if match is None or match[1] not in kinds:
            raise ConditionError(
                f"unknown condition {entry!r} in {text!r}; valid: {', '.join(kinds.values())}, "
                "each with an optional @STEP, joined by +"
            )
        arguments = tuple(a for a in match[2].split(":") if a)
        entries.append((int(match[3] or 0), Entry(match[1], arguments, text, kinds[match[1]])))
    entries.sort(key=lambda e: e[0])
    stages: list[tuple[int, C]] = [(0, start)]
    for onset, entry in entries:
        now = apply(stages[-1][1], entry)
        stages = [s for s in stages if s[0] != onset] + [(onset, now)]
    return Schedule(text, tuple(stages))
