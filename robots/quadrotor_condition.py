"""What a quadrotor carries, what the wind does, and which rotor is weak.

Written as in robots.schedule: `payload:0.4:1.0@120` hooks a payload of 0.4 vehicle masses to a cable of 1 m at step 120, and
`none@200` drops it and ends everything else too.
"""

import math
from dataclasses import dataclass, replace

from robots import schedule
from robots.schedule import ConditionError, Entry, Schedule
from robots.vehicle import Vehicle

MASS_FRACTION = (0.01, 1.0)  # of the vehicle's mass
CABLE = (0.1, 2.0)  # [m]
# Of the largest thrust: what is left turns, climbs and brakes.
LIFT = 0.8

KINDS = {
    "none": "none",
    "payload": f"payload:MASS_FRACTION:CABLE_M ({MASS_FRACTION[0]:g}-{MASS_FRACTION[1]:g} of the vehicle, "
    f"{CABLE[0]:g}-{CABLE[1]:g} m)",
    "wind": "wind:SPEED:HEADING (0-20 m/s, blowing towards HEADING degrees from world x to y, -360 to 360)",
    "gust": "gust:SPEED (0-10 m/s, standard deviation of each component)",
    "rotor": "rotor:ROTOR:STRENGTH (0-3, 0.5-1)",
    "inertia": "inertia:FACTOR (0.5-3)",
}


@dataclass(frozen=True)
class Condition:
    """The state of one vehicle and its air.

    payload  mass as a fraction of the vehicle's, cable length [m]; None: nothing on the cable
    wind     mean air velocity in the world, x and y [m/s]
    gust     standard deviation of each component of the air velocity around it [m/s]
    gain     thrust of each rotor as a factor of what it should give
    inertia  factor on the moments of inertia
    """

    payload: tuple[float, float] | None = None
    wind: tuple[float, float] = (0.0, 0.0)
    gust: float = 0.0
    gain: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    inertia: float = 1.0


NONE = Condition()


def carried(condition: Condition) -> str:
    """What hangs on the cable, in the notation of `parse`, without the rest."""
    return "none" if condition.payload is None else "payload:{:g}:{:g}".format(*condition.payload)


def liftable(vehicle: Vehicle) -> float:
    """The largest payload as a fraction of the vehicle's mass."""
    return LIFT * vehicle.thrust_max_n / vehicle.hover_thrust_n - 1


def parse(text: str, vehicle: Vehicle) -> Schedule[Condition]:
    """`payload:0.4:1.0@120+none@200` -> Schedule.

    Raises ConditionError naming the entry and what is valid, also on a payload that this vehicle does not lift.
    """
    return schedule.parse(text, KINDS, NONE, lambda condition, entry: _apply(condition, entry, vehicle))


def _apply(c: Condition, entry: Entry, vehicle: Vehicle) -> Condition:
    kind = entry.kind
    entry.takes({"none": 0, "gust": 1, "inertia": 1}.get(kind, 2))
    if kind == "none":
        return NONE
    if kind == "payload":
        return replace(c, payload=_payload(entry, vehicle))
    if kind == "wind":
        speed, heading = entry.number(0, 0.0, 20.0), math.radians(entry.number(1, -360.0, 360.0))
        return replace(c, wind=(speed * math.cos(heading), speed * math.sin(heading)))
    if kind == "gust":
        return replace(c, gust=entry.number(0, 0.0, 10.0))
    if kind == "rotor":
        gain = list(c.gain)
        gain[entry.index(0, 4)] = entry.number(1, 0.5, 1.0)
        return replace(c, gain=(gain[0], gain[1], gain[2], gain[3]))
    return replace(c, inertia=entry.number(0, 0.5, 3.0))


def _payload(entry: Entry, vehicle: Vehicle) -> tuple[float, float]:
    fraction, cable = entry.number(0, *MASS_FRACTION), entry.number(1, *CABLE)
    most = liftable(vehicle)
    if fraction > most:
        raise entry.bad(
            f"{fraction * vehicle.mass_kg:.3g} kg is above the lift margin of vehicle {vehicle.name!r}, {most * vehicle.mass_kg:.3g} kg "
            f"or a fraction of {most:.2f} ({LIFT:.0%} of its thrust)"
        )
    return fraction, cable


__all__ = ["KINDS", "NONE", "Condition", "ConditionError", "Schedule", "liftable", "parse"]
