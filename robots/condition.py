"""What is broken, what is carried, what the ground is like, and from which step on.

Written KIND:ARGUMENTS, joined by +, each with an optional @STEP (robots.schedule): `leg:3@100+leg:0@300` loses leg 3 at
step 100 and leg 0 too at step 300; `leg:3+healthy@200` is repaired at step 200. `healthy` clears everything before it.
"""

from dataclasses import dataclass, replace

from robots import schedule
from robots.schedule import ConditionError, Entry, Schedule

__all__ = [
    "HEALTHY",
    "KINDS",
    "N_LEGS",
    "N_MOTORS",
    "Condition",
    "ConditionError",
    "Schedule",
    "motors_of_leg",
    "parse",
]

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


def motors_of_leg(leg: int) -> tuple[int, int]:
    """Leg i (bodies in the order of ant.xml) -> its hip and ankle motor. ant.xml lists the last leg's motors first."""
    first = 2 * ((leg + 1) % N_LEGS)
    return first, first + 1


def parse(text: str) -> Schedule[Condition]:
    """`leg:3@100+leg:0@300` -> Schedule.

    Raises ConditionError naming the entry and the valid kinds.
    """
    return schedule.parse(text, KINDS, HEALTHY, _apply)


def _apply(c: Condition, entry: Entry) -> Condition:
    kind = entry.kind
    entry.takes(*{"healthy": (0,), "weak": (1, 2)}.get(kind, (1,)))
    gain = list(c.gain)
    if kind == "healthy":
        return HEALTHY
    if kind in ("leg", "leg-short"):
        leg = entry.index(0, N_LEGS)
        for motor in motors_of_leg(leg):
            gain[motor] = 0.0
        return replace(c, gain=tuple(gain), short=c.short | ({leg} if kind == "leg-short" else set()))
    if kind == "reverse":
        motor = entry.index(0, N_MOTORS)
        gain[motor] = -gain[motor]
        return replace(c, gain=tuple(gain))
    if kind == "weak":
        strength = entry.number(0, 0.0, 1.0)
        for leg in [entry.index(1, N_LEGS)] if len(entry.arguments) == 2 else range(N_LEGS):
            for motor in motors_of_leg(leg):
                gain[motor] = gain[motor] * strength
        return replace(c, gain=tuple(gain))
    if kind == "lock":
        return replace(c, locked=c.locked | {entry.index(0, N_MOTORS)})
    if kind == "mass":
        return replace(c, mass=entry.number(0, 0.1, 10.0))
    if kind == "friction":
        return replace(c, friction=entry.number(0, 0.01, 10.0))
    return replace(c, slope=entry.number(0, -30.0, 30.0))
