"""A quadrotor's specification, read from a TOML file in SI units and checked field by field.

A field's unit is the end of its name (`mass_kg`), so a value in another unit is a field that does not exist. Rotors are in X
configuration, numbered counter-clockwise from the front left seen from above; 0 and 2 turn clockwise, so their drag turns the body
counter-clockwise (positive yaw). Body axes: x forward, y left, z up.
"""

import difflib
import math
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

GRAVITY = 9.81  # [m/s^2]
PRESETS = Path(__file__).parent / "vehicles"
# Unit vectors from the centre to the rotors, and the sign of the yaw torque of each.
ROTOR_X = np.array([1.0, -1.0, -1.0, 1.0]) / math.sqrt(2)
ROTOR_Y = np.array([1.0, 1.0, -1.0, -1.0]) / math.sqrt(2)
ROTOR_YAW = np.array([1.0, -1.0, 1.0, -1.0])

Triple = tuple[float, float, float]


class VehicleError(ValueError):
    """A specification that cannot be flown. The message names the file, the field, its value and what is valid."""


@dataclass(frozen=True)
class Vehicle:
    """Thrusts and torques act on a rigid body with its centre of mass at the centre. Vectors are in body axes."""

    name: str
    mass_kg: float
    arm_m: float
    inertia_kg_m2: Triple
    rotor_thrust_max_n: float
    rotor_torque_per_thrust_m: float
    rotor_time_constant_s: float
    drag_n_s_per_m: Triple
    rate_gain_per_s: Triple
    rate_integral_per_s2: Triple
    rate_max_rad_s: Triple
    inner_rate_hz: float
    control_rate_hz: float

    @property
    def dt(self) -> float:
        """Control period [s]."""
        return 1 / self.control_rate_hz

    @property
    def substeps(self) -> int:
        """Inner periods in a control period."""
        return round(self.inner_rate_hz / self.control_rate_hz)

    @property
    def thrust_max_n(self) -> float:
        """Largest collective thrust [N]."""
        return 4 * self.rotor_thrust_max_n

    @property
    def hover_thrust_n(self) -> float:
        """Weight without payload [N]."""
        return self.mass_kg * GRAVITY

    @property
    def rate_time_constant_s(self) -> Triple:
        """Of a first-order model of the body-rate loop: rotor and loop together answer a step with this mean delay."""
        x, y, z = self.rate_gain_per_s
        return 1 / x, 1 / y, 1 / z

    @cached_property
    def command_scale(self) -> np.ndarray:
        """(4,) collective thrust [N] and body rates [rad/s] per unit of action. command = scale * action + offset."""
        return np.array([self.thrust_max_n / 2, *self.rate_max_rad_s])

    @cached_property
    def command_offset(self) -> np.ndarray:
        """(4,) the command of action 0: half the largest thrust, no rotation."""
        return np.array([self.thrust_max_n / 2, 0.0, 0.0, 0.0])

    def command(self, action: np.ndarray) -> np.ndarray:
        """(*b, 4) in [-1, 1] -> (*b, 4) collective thrust [N], body rates [rad/s]."""
        return self.command_scale * action + self.command_offset

    def action(self, command: np.ndarray) -> np.ndarray:
        """The inverse of `command`; beyond [-1, 1] where the vehicle cannot follow."""
        return (command - self.command_offset) / self.command_scale

    @cached_property
    def allocation(self) -> np.ndarray:
        """(4, 4) rotor thrusts [N] -> collective thrust [N] and body torque [N m]."""
        arm = self.arm_m
        return np.stack((np.ones(4), arm * ROTOR_Y, -arm * ROTOR_X, self.rotor_torque_per_thrust_m * ROTOR_YAW))


class Spec(NamedTuple):
    """A field: its name without the unit, what it is, and its range, without `low` where `above`."""

    quantity: str
    what: str
    low: float = 0.0
    above: bool = True
    high: float = math.inf


SPECS = {
    "mass_kg": Spec("mass", "mass without payload"),
    "arm_m": Spec("arm", "distance from the centre to a rotor"),
    "inertia_kg_m2": Spec("inertia", "principal moments of inertia"),
    "rotor_thrust_max_n": Spec("rotor_thrust_max", "largest thrust of one rotor"),
    "rotor_torque_per_thrust_m": Spec("rotor_torque_per_thrust", "drag torque of a rotor over its thrust"),
    "rotor_time_constant_s": Spec("rotor_time_constant", "first-order lag of a rotor's thrust"),
    "drag_n_s_per_m": Spec("drag", "body drag, linear in air speed", above=False),
    "rate_gain_per_s": Spec("rate_gain", "angular acceleration per body-rate error"),
    "rate_integral_per_s2": Spec("rate_integral", "angular acceleration per angle error", above=False),
    "rate_max_rad_s": Spec("rate_max", "largest body rate that may be commanded"),
    "inner_rate_hz": Spec("inner_rate", "body-rate loop and physics", 500.0, above=False),
    "control_rate_hz": Spec("control_rate", "commands", 50.0, above=False, high=100.0),
}


def presets() -> list[str]:
    """Names of the vehicles that come along."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load(which: str | Path) -> Vehicle:
    """A preset's name or the path of a .toml file -> Vehicle. Raises VehicleError."""
    path = PRESETS / f"{which}.toml" if str(which) in presets() else Path(which)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise VehicleError(
            f"no vehicle {str(which)!r}: {e}; valid: {', '.join(presets())}, or the path of a .toml file"
        ) from None
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise VehicleError(f"{path} is not TOML: {e}; valid: lines like mass_kg = 1.0") from None
    for key in given:
        if key not in SPECS:
            raise VehicleError(f"{path}: {_unknown(key, given[key])}")
    for key in SPECS:
        if key not in given:
            raise VehicleError(f"{path}: {key} is missing; valid: {usage(key)}")
    vehicle = Vehicle(path.stem, **{key: _value(path, key, given[key]) for key in SPECS})
    _possible(path, vehicle)
    return vehicle


def usage(key: str) -> str:
    """What a field takes, in words."""
    spec = SPECS[key]
    count = "three numbers" if _is_triple(key) else "a number"
    high = f" and at most {spec.high:g}" if math.isfinite(spec.high) else ""
    low = f"{'above' if spec.above else 'at least'} {spec.low:g}"
    return f"{key} = {count} {low}{high} ({spec.what})"


def _is_triple(key: str) -> bool:
    return Vehicle.__annotations__[key] is Triple


def _unknown(key: str, value: object) -> str:
    for name, spec in SPECS.items():
        if key == spec.quantity or key.startswith(f"{spec.quantity}_"):
            return f"{key} = {value} has another unit or none; valid: {usage(name)}"
    close = difflib.get_close_matches(key, SPECS, 1)
    hint = f"is misspelt; valid: {usage(close[0])}" if close else f"is no field; valid: {', '.join(SPECS)}"
    return f"{key} = {value} {hint}"


def _value(path: Path, key: str, given: Any) -> Any:
    """-> float or Triple, as the field wants."""
    spec, triple = SPECS[key], _is_triple(key)
    numbers = given if triple else [given]

    def bad(why: str) -> VehicleError:
        return VehicleError(f"{path}: {key} = {given!r} {why}; valid: {usage(key)}")

    if not isinstance(numbers, list) or any(isinstance(x, bool) or not isinstance(x, int | float) for x in numbers):
        raise bad("is not three numbers" if triple else "is not a number")
    if len(numbers) != (3 if triple else 1):
        raise bad(f"has {len(numbers)} numbers")
    for x in numbers:
        if not math.isfinite(x):
            raise bad("is not finite")
        if x < spec.low or (spec.above and x == spec.low):
            raise bad("is too small" if spec.low else "is not positive" if spec.above else "is negative")
        if x > spec.high:
            raise bad("is too large")
    x, *rest = (float(x) for x in numbers)
    return (x, rest[0], rest[1]) if triple else x


def _possible(path: Path, v: Vehicle) -> None:
    """Raises VehicleError on what no rigid body or no flying vehicle can be, though each field alone is fine."""
    a, b, c = sorted(v.inertia_kg_m2)
    if c > a + b:
        raise VehicleError(
            f"{path}: inertia_kg_m2 = {list(v.inertia_kg_m2)} belongs to no rigid body; valid: no moment above the sum of the others"
        )
    ratio = v.thrust_max_n / v.hover_thrust_n
    if ratio <= 1:
        raise VehicleError(
            f"{path}: rotor_thrust_max_n = {v.rotor_thrust_max_n:g} does not lift mass_kg = {v.mass_kg:g}: thrust-to-weight is "
            f"{ratio:.2f}; valid: above 1, so rotor_thrust_max_n above {v.hover_thrust_n / 4:.3g}"
        )
    if not math.isclose(v.substeps * v.control_rate_hz, v.inner_rate_hz):
        raise VehicleError(
            f"{path}: inner_rate_hz = {v.inner_rate_hz:g} is no multiple of control_rate_hz = {v.control_rate_hz:g}; "
            f"valid: a whole multiple, e.g. {math.ceil(500 / v.control_rate_hz) * v.control_rate_hz:g}"
        )
