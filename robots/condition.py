"""What is broken, what is carried, what the ground is like, and from which step on.

Written KIND:ARGUMENTS, joined by +, each with an optional @STEP: `leg:3@100+leg:0@300` loses leg 3 at step 100 and
leg 0 too at step 300; `leg:3+healthy@200` is repaired at step 200. Entries that share a step add up; `healthy` clears
everything before it.
"""

import math
import re
from dataclasses import dataclass, replace

N_LEGS = 4
N_MOTORS = 8

KINDS = {
    "healthy": "healthy",
    "leg": f"leg:LEG (0-{N_LEGS - 1}, no torque)",
    "leg-short": f"leg-short:LEG (0-{N_LEGS - 1}, no torque and half the size)",
    "reverse": f"reverse:MOTOR (0-{N_MOTORS - 1})",
    "weak": "weak:STRENGTH[:LEG] (0-1, all legs without LEG)",
    "lock": f"lock:JOINT (0-{N_MOTORS - 1})",
    "mass": "mass:FACTOR (0.1-10, of the torso)",
    "friction": "friction:FACTOR (0.01-10)",
    "slope": "slope:DEGREES (-30 to 30, uphill positive)",
}


class ConditionError(ValueError):
    """A condition that cannot be understood. The message names the entry and the valid kinds."""


@dataclass(frozen=True)
class Condition:
    """The state of one robot's body and ground.

    gain     strength of each motor as a factor of the commanded torque, in actuator order; 0 is dead, -1 reversed
    short    legs whose geometry is halved
    locked   joints that cannot move, in joint order
    mass     factor on the torso's mass and inertia
    friction factor on every contact's friction
    slope    uphill along world x [deg]
    """

    gain: tuple[float, ...] = (1.0,) * N_MOTORS
    short: frozenset[int] = frozenset()
    locked: frozenset[int] = frozenset()
    mass: float = 1.0
    friction: float = 1.0
    slope: float = 0.0


HEALTHY = Condition()


@dataclass(frozen=True)
class Schedule:
    """Conditions over the steps of an episode: (onset step, condition from then on), onsets ascending, the first 0."""

    text: str
    stages: tuple[tuple[int, Condition], ...]

    def at(self, step: int) -> Condition:
        return next(c for onset, c in reversed(self.stages) if onset <= step)

    @property
    def onsets(self) -> tuple[int, ...]:
        """Steps after 0 at which something changes."""
        return tuple(onset for onset, _ in self.stages[1:])


def motors_of_leg(leg: int) -> tuple[int, int]:
    """Leg i (bodies in the order of ant.xml) -> its hip and ankle motor. ant.xml lists the last leg's motors first."""
    first = 2 * ((leg + 1) % N_LEGS)
    return first, first + 1


def parse(text: str) -> Schedule:
    """`leg:3@100+leg:0@300` -> Schedule.

    Raises ConditionError naming the entry and the valid kinds.
    """
    entries: list[tuple[int, str, list[str]]] = []
    for entry in text.split("+"):
        match = re.fullmatch(r"\s*([a-z-]+)((?::[^:@\s]+)*)(?:@(\d+))?\s*", entry)
        if match is None or match[1] not in KINDS:
            raise ConditionError(
                f"unknown condition {entry!r} in {text!r}; valid: {', '.join(KINDS.values())}, "
                "each with an optional @STEP, joined by +"
            )
        entries.append((int(match[3] or 0), match[1], [a for a in match[2].split(":") if a]))
    entries.sort(key=lambda e: e[0])
    stages: list[tuple[int, Condition]] = [(0, HEALTHY)]
    for onset, kind, arguments in entries:
        now = _apply(stages[-1][1], kind, arguments, text)
        stages = [s for s in stages if s[0] != onset] + [(onset, now)]
    return Schedule(text, tuple(stages))


def _apply(c: Condition, kind: str, arguments: list[str], text: str) -> Condition:
    def bad(why: str) -> ConditionError:
        return ConditionError(f"condition {':'.join([kind, *arguments])!r} in {text!r}: {why}; valid: {KINDS[kind]}")

    def number(i: int, low: float, high: float) -> float:
        try:
            value = float(arguments[i])
        except ValueError:
            raise bad(f"{arguments[i]!r} is not a number") from None
        if not (math.isfinite(value) and low <= value <= high):
            raise bad(f"{arguments[i]} is outside {low:g} to {high:g}")
        return value

    def index(i: int, count: int) -> int:
        if not re.fullmatch(r"\d+", arguments[i]) or int(arguments[i]) >= count:
            raise bad(f"{arguments[i]!r} is not one of 0 to {count - 1}")
        return int(arguments[i])

    wanted = {"healthy": (0,), "weak": (1, 2)}.get(kind, (1,))
    if len(arguments) not in wanted:
        raise bad(f"takes {' or '.join(map(str, wanted))} argument(s), got {len(arguments)}")
    gain = list(c.gain)
    if kind == "healthy":
        return HEALTHY
    if kind in ("leg", "leg-short"):
        leg = index(0, N_LEGS)
        for motor in motors_of_leg(leg):
            gain[motor] = 0.0
        return replace(c, gain=tuple(gain), short=c.short | ({leg} if kind == "leg-short" else set()))
    if kind == "reverse":
        motor = index(0, N_MOTORS)
        gain[motor] = -gain[motor]
        return replace(c, gain=tuple(gain))
    if kind == "weak":
        strength = number(0, 0.0, 1.0)
        for leg in [index(1, N_LEGS)] if len(arguments) == 2 else range(N_LEGS):
            for motor in motors_of_leg(leg):
                gain[motor] = gain[motor] * strength
        return replace(c, gain=tuple(gain))
    if kind == "lock":
        return replace(c, locked=c.locked | {index(0, N_MOTORS)})
    if kind == "mass":
        return replace(c, mass=number(0, 0.1, 10.0))
    if kind == "friction":
        return replace(c, friction=number(0, 0.01, 10.0))
    return replace(c, slope=number(0, -30.0, 30.0))
