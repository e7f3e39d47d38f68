"""How the baselines' gains were found: `python -m controller.baselines.tune NAME [--sweeps N]`.

Coordinate search: every gain in turn is doubled and halved, and what lowers the score stays, until a sweep changes nothing. The score is
the RMSE [m], averaged over the episodes in TRAINING, of vehicle tracking on the 1 kg vehicle: the vehicle as specified, payloads within the
range that learned models may train on (5-35%, cables of 0.3-0.9 m), and gusts, added inertia and a weak rotor. A crash costs CRASH.
The search never sees held-out payloads.

Gains must have a margin: the same episodes are flown with the state two control periods late and with the noise of motion capture (`Rough`), and
what is worse there by more than SLACK is refused. Without that the search ends on gains that only an exact state without delay forgives: an
NMPC with position 800 and turn 0.125 tracks a load of 20% at 20 mm, and crashes with one of 50% once the state is one period late.

    clean, rough [mm]         pid 41, 95     geometric 107, 166     nmpc 25, 36     nmpc-l1 15, 36

The NMPC's search stopped after three sweeps, where another gained 5%; the oracle flies with its weights. L1's two gains were tried by hand
(controller.baselines.l1): their best lies between cliffs that doubling steps over. There held-out payloads did have a say, in the baseline's favour:
a = 5, cutoff = 50 was good on the training episodes and was dropped because it diverged with a load of 50% on 1.2 m.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from controller.baselines.baseline import Baseline
from controller.baselines.geometric import Geometric
from controller.baselines.l1 import L1
from controller.baselines.nmpc import Tracker
from controller.baselines.pid import PID
from controller.fly import fly
from robots.quadrotor import Quadrotor
from robots.quadrotor_condition import parse
from robots.space import Flying
from robots.trajectory import Reference, make
from robots.vehicle import Vehicle, load

TRAINING = (
    "none", "payload:0.05:0.6", "payload:0.2:0.3", "payload:0.35:0.9", "payload:0.35:0.3",
    "payload:0.2:0.6+gust:1", "payload:0.2:0.6+inertia:1.5+rotor:1:0.8",
)  # fmt: skip
STEPS, SKIPPED = 600, 100
CRASH = 10.0  # [m]
LATE = 2  # [control periods]
SLACK = 0.06  # [m]; at 2 m/s two periods late is 0.04 m behind

NOISE = np.repeat([0.002, 0.004, 0.02, 0.02], 3)  # position [m], rotation [rad], velocity [m/s], body rates [rad/s]


class RoughMemory(NamedTuple):
    inner: Any
    seen: tuple[np.ndarray, ...]  # (b, s) each, oldest first
    rng: np.random.Generator


@dataclass(frozen=True)
class Rough:
    """A controller that sees its state noisy and LATE control periods late."""

    controller: Baseline

    @property
    def preview(self) -> int:
        return self.controller.preview

    def init(self, b: int) -> RoughMemory:
        return RoughMemory(self.controller.init(b), (), np.random.default_rng(0))

    def step(self, state: np.ndarray, reference: Reference, memory: RoughMemory) -> tuple[np.ndarray, RoughMemory]:
        noise = np.zeros((len(state), state.shape[1] - 3))
        noise[:, :12] = NOISE * memory.rng.standard_normal((len(state), 12))
        space = Flying(load=state.shape[1] == 22)
        now = space.retract(torch.as_tensor(state), torch.as_tensor(noise)).numpy()
        seen = (*memory.seen, now)[-1 - LATE :]
        command, inner = self.controller.step(seen[0], reference, memory.inner)
        return command, RoughMemory(inner, seen, memory.rng)


@dataclass(frozen=True)
class Search:
    """gains: where it starts, as (name, value); make: vehicle, gains -> controller."""

    gains: dict[str, float]
    make: Callable[[Vehicle, dict[str, float]], Baseline]


def _tracker(vehicle: Vehicle, gains: dict[str, float]) -> Tracker:
    base = Tracker(vehicle)
    return replace(base, weights=replace(base.weights, **gains))


def _l1(vehicle: Vehicle, gains: dict[str, float], inside: bool) -> L1:
    base = L1(Tracker(vehicle), inside=inside)
    return replace(base, a=(gains["a"], base.a[1]), cutoff=(gains["cutoff"], base.cutoff[1]))


def _fields(x: Any, *names: str) -> dict[str, float]:
    return {name: getattr(x, name) for name in names}


def searches(vehicle: Vehicle) -> dict[str, Search]:
    """By the baseline's name, from the gains in force."""
    pid, geometric, tracker, l1 = PID(vehicle), Geometric(vehicle), Tracker(vehicle), L1(Tracker(vehicle))
    names = ("position", "velocity", "heading", "rates", "thrust", "turn", "final")
    adaptive = {"a": l1.a[0], "cutoff": l1.cutoff[0]}
    return {
        "pid": Search(
            _fields(pid, "position", "proportional", "integral", "derivative", "turning"),
            lambda v, g: replace(PID(v), **g),
        ),
        "geometric": Search(
            _fields(geometric, "position", "velocity", "turning"), lambda v, g: replace(Geometric(v), **g)
        ),
        "nmpc": Search(_fields(tracker.weights, *names), _tracker),
        "nmpc-l1": Search(adaptive, lambda v, g: _l1(v, g, True)),
        "nmpc-l1-added": Search(adaptive, lambda v, g: _l1(v, g, False)),
    }


def score(controller: Baseline, vehicle: Vehicle) -> float:
    """[m]"""
    robot = Quadrotor(vehicle)
    schedules = [parse(text, vehicle) for text in TRAINING]
    paths = [make("figure-eight" if i % 2 else "square", "fast") for i in range(len(TRAINING))]
    flight = fly(controller, robot, paths, schedules, list(range(len(TRAINING))), STEPS)
    errors = np.where(flight.crashed, CRASH, flight.rmse(SKIPPED))
    robot.close()
    return float(errors.mean())


def tune(name: str, vehicle: Vehicle, sweeps: int) -> tuple[dict[str, float], float]:
    """-> gains, score. Prints every improvement."""
    search = searches(vehicle)[name]
    gains = dict(search.gains)
    controller = search.make(vehicle, gains)
    best, rough = score(controller, vehicle), score(Rough(controller), vehicle)
    print(f"{name} {gains} {best:.4f} m, rough {rough:.4f} m", flush=True)
    best = best if rough < best + SLACK else CRASH
    for _ in range(sweeps):
        improved = False
        for gain in search.gains:
            for factor in (2.0, 0.5):
                trial = {**gains, gain: (gains[gain] or 0.05) * factor}
                controller = search.make(vehicle, trial)
                reached = score(controller, vehicle)
                if reached < 0.995 * best and score(Rough(controller), vehicle) < reached + SLACK:
                    gains, best, improved = trial, reached, True
                    print(f"{name} {gains} {best:.4f} m", flush=True)
                    break
        if not improved:
            break
    return gains, best


def main() -> None:
    vehicle = load("1kg")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", choices=list(searches(vehicle)))
    parser.add_argument("--sweeps", type=int, default=4)
    args = parser.parse_args()
    tune(args.name, vehicle, args.sweeps)


if __name__ == "__main__":
    main()
