"""Reference trajectories, for the vehicle's position or the payload's, with their derivatives for feed-forward.

    p(t) = path(phase(t)),   phase' rises smoothly from 0 to its cruising value over RAMP seconds

so every trajectory starts at rest, and at rest is where a robot starts. `speed` is the largest on the path while cruising. Paths are
closed: circle, figure-eight and random are Fourier series in the phase, which goes round once in 2 pi; a square's sides are flown from
rest to rest (minimum jerk: Flash, Hogan 1985), so that its corners are corners and yet can be flown.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from robots.vehicle import GRAVITY, Vehicle

RAMP = 2.0  # [s]
KINDS = ("hover", "circle", "figure-eight", "square", "random")
SPEEDS = {"slow": 0.5, "medium": 1.0, "fast": 2.0}  # [m/s]
RADIUS = 1.0  # [m], half the extent of every path
CENTRE = (0.0, 0.0, 2.5)  # [m]
THRUST_SHARE = 0.95  # of the largest: the rest steers


class TrajectoryError(ValueError):
    """A trajectory that is unknown or cannot be flown. The message names the value and what is valid."""


class Reference(NamedTuple):
    """In the world, at n times."""

    p: np.ndarray  # (*b, n, 3) position [m]
    v: np.ndarray  # (*b, n, 3) velocity [m/s]
    a: np.ndarray  # (*b, n, 3) acceleration [m/s^2]
    j: np.ndarray  # (*b, n, 3) jerk [m/s^3]


@dataclass(frozen=True)
class Trajectory:
    """kind: of KINDS. rate: of the phase while cruising [1/s]. cos, sin: (k, 3) coefficients of the harmonics 1 to k [m]."""

    kind: str
    speed: float
    rate: float
    centre: tuple[float, float, float]
    cos: tuple[tuple[float, float, float], ...] = ()
    sin: tuple[tuple[float, float, float], ...] = ()

    @property
    def period(self) -> float:
        """Once around while cruising [s]; inf for hover."""
        return 2 * math.pi / self.rate if self.rate else math.inf

    def at(self, t: np.ndarray) -> Reference:
        """Times (n,) [s] -> Reference. Before 0 it waits at the start."""
        phase = _ramp(np.asarray(t, float), self.rate)
        path = _square(phase[0]) if self.kind == "square" else self._series(phase[0])
        p, d1, d2, d3 = path
        r1, r2, r3 = (x[:, None] for x in phase[1:])
        return Reference(p + self.centre, d1 * r1, d2 * r1**2 + d1 * r2, d3 * r1**3 + 3 * d2 * r1 * r2 + d1 * r3)

    def _series(self, phase: np.ndarray) -> tuple[np.ndarray, ...]:
        k = np.arange(1, len(self.cos) + 1)
        c, s = np.cos(np.outer(phase, k)), np.sin(np.outer(phase, k))
        a, b = np.reshape(self.cos, (-1, 3)), np.reshape(self.sin, (-1, 3))
        n1, n2, n3 = (k[:, None] ** i for i in (1, 2, 3))
        return c @ a + s @ b, c @ (n1 * b) - s @ (n1 * a), -c @ (n2 * a) - s @ (n2 * b), s @ (n3 * a) - c @ (n3 * b)


def make(
    kind: str, speed: float | str = "medium", rng: np.random.Generator | None = None,
    centre: tuple[float, float, float] = CENTRE,
) -> Trajectory:  # fmt: skip
    """speed [m/s] or one of SPEEDS; rng draws the random path. Raises TrajectoryError, also where it is None and needed."""
    if kind not in KINDS:
        raise TrajectoryError(f"unknown trajectory {kind!r}; valid: {', '.join(KINDS)}")
    if isinstance(speed, str):
        if speed not in SPEEDS:
            raise TrajectoryError(f"unknown speed {speed!r}; valid: {', '.join(SPEEDS)}, or a number above 0 [m/s]")
        speed = SPEEDS[speed]
    if not (math.isfinite(speed) and speed > 0):
        raise TrajectoryError(
            f"speed {speed:g} m/s is not above 0; valid: {', '.join(SPEEDS)}, or a number above 0 [m/s]"
        )
    x, y, none = (RADIUS, 0.0, 0.0), (0.0, RADIUS, 0.0), (0.0, 0.0, 0.0)
    unit = {
        "hover": Trajectory("hover", 0.0, 0.0, centre),
        "circle": Trajectory("circle", speed, 1.0, centre, (x,), (y,)),
        "figure-eight": Trajectory("figure-eight", speed, 1.0, centre, (none, none), (x, (0.0, RADIUS / 2, 0.0))),
        "square": Trajectory("square", speed, 1.0, centre),
        "random": None,
    }[kind]
    if unit is None:
        if rng is None:
            raise TrajectoryError("a random trajectory needs a generator; valid: a numpy.random.Generator")
        unit = _random(speed, rng, centre)
    if kind == "hover":
        return unit
    return replace(unit, rate=speed / _steady(unit)["v"])


def check(trajectory: Trajectory, vehicle: Vehicle, load_kg: float = 0.0) -> None:
    """Raises TrajectoryError where the vehicle, with its load, has not the thrust or the body rate for it: m |a + g| and drag against
    the rotors' largest thrust, and the rate at which the thrust must turn, |j| across it over |a + g|."""
    at = _steady(trajectory, vehicle, load_kg)
    what = f"trajectory {trajectory.kind!r} at {trajectory.speed:g} m/s"
    most = THRUST_SHARE * vehicle.thrust_max_n
    slower = f"valid: a lower speed, e.g. {_slower(trajectory, vehicle, load_kg):.3g} m/s"
    if at["thrust"] > most:
        raise TrajectoryError(
            f"{what} accelerates at {at['a']:.3g} m/s^2 and needs a thrust of {at['thrust']:.3g} N, above the {most:.3g} N "
            f"({THRUST_SHARE:.0%} of the largest) of vehicle {vehicle.name!r}; {slower}"
        )
    if at["rate"] > min(vehicle.rate_max_rad_s[:2]):
        raise TrajectoryError(
            f"{what} needs a body rate of {at['rate']:.3g} rad/s, above the {min(vehicle.rate_max_rad_s[:2]):.3g} rad/s of vehicle "
            f"{vehicle.name!r}; {slower}"
        )


def _slower(trajectory: Trajectory, vehicle: Vehicle, load_kg: float) -> float:
    """Just below the largest speed that can be flown, within 3% [m/s]."""
    low, high = 0.0, trajectory.speed
    while high - low > max(0.002 * high, 1e-6):
        middle = (low + high) / 2
        scaled = replace(trajectory, rate=trajectory.rate * middle / trajectory.speed)
        at = _steady(scaled, vehicle, load_kg)
        fits = at["thrust"] <= THRUST_SHARE * vehicle.thrust_max_n and at["rate"] <= min(vehicle.rate_max_rad_s[:2])
        low, high = (middle, high) if fits else (low, middle)
    return 0.98 * low


def _steady(trajectory: Trajectory, vehicle: Vehicle | None = None, load_kg: float = 0.0) -> dict[str, float]:
    """Largest values once around, cruising: v, a and, of a vehicle, thrust and rate."""
    period = trajectory.period if trajectory.rate else 1.0
    ref = trajectory.at(2 * RAMP + np.linspace(0, period, 2000))
    force = ref.a + np.array([0.0, 0.0, GRAVITY])
    norm = np.linalg.norm(force, axis=1)
    speed = np.linalg.norm(ref.v, axis=1)
    largest = {"v": speed.max(), "a": np.linalg.norm(ref.a, axis=1).max()}
    if vehicle is not None:
        turn = np.linalg.norm(np.cross(force, ref.j), axis=1) / norm**2
        thrust = (vehicle.mass_kg + load_kg) * norm + max(vehicle.drag_n_s_per_m) * speed
        largest |= {"thrust": thrust.max(), "rate": turn.max()}
    return {name: float(x) for name, x in largest.items()}


def _random(speed: float, rng: np.random.Generator, centre: tuple[float, float, float]) -> Trajectory:
    """Four harmonics with falling amplitudes, half as high as wide, scaled to reach RADIUS."""
    size = np.array([1.0, 1.0, 0.5]) / np.arange(1, 5)[:, None] ** 1.5
    cos, sin = rng.standard_normal((2, 4, 3)) * size
    path = Trajectory("random", speed, 1.0, centre, _rows(cos), _rows(sin))
    reach = np.abs(path._series(np.linspace(0, 2 * math.pi, 500))[0]).max()
    return replace(path, cos=_rows(cos * RADIUS / reach), sin=_rows(sin * RADIUS / reach))


def _rows(x: np.ndarray) -> tuple[tuple[float, float, float], ...]:
    return tuple((float(a), float(b), float(c)) for a, b, c in x)


def _ramp(t: np.ndarray, rate: float) -> tuple[np.ndarray, ...]:
    """-> phase and its first three derivatives, (n,) each. The phase's rate is rate (10 x^3 - 15 x^4 + 6 x^5), x = t / RAMP."""
    if t.size and t.min() >= RAMP:  # what follows, at x = 1
        constant = np.full_like(t, rate)
        return rate * (RAMP * 0.5 + (t - RAMP)), constant, 0 * constant, 0 * constant
    x = np.clip(t / RAMP, 0, 1)
    phase = rate * (RAMP * (2.5 * x**4 - 3 * x**5 + x**6) + np.maximum(t - RAMP, 0))
    first = rate * (10 * x**3 - 15 * x**4 + 6 * x**5)
    second = rate / RAMP * (30 * x**2 - 60 * x**3 + 30 * x**4)
    third = rate / RAMP**2 * (60 * x - 180 * x**2 + 120 * x**3)
    return phase, first, second, third


CORNERS = RADIUS * np.array([[1.0, 1.0, 0.0], [-1.0, 1.0, 0.0], [-1.0, -1.0, 0.0], [1.0, -1.0, 0.0]])


def _square(phase: np.ndarray) -> tuple[np.ndarray, ...]:
    """A side for every quarter of the phase, each from rest to rest."""
    quarter = phase / (math.pi / 2)
    side = np.floor(quarter).astype(int)
    x = (quarter - side)[:, None]
    side %= 4
    way = CORNERS[(side + 1) % 4] - CORNERS[side]
    k = 2 / math.pi
    p = CORNERS[side] + way * (10 * x**3 - 15 * x**4 + 6 * x**5)
    d1 = way * k * (30 * x**2 - 60 * x**3 + 30 * x**4)
    d2 = way * k**2 * (60 * x - 180 * x**2 + 120 * x**3)
    d3 = way * k**3 * (60 - 360 * x + 360 * x**2)
    return p, d1, d2, d3
