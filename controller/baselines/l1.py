"""L1 adaptive augmentation of the nominal NMPC (Hanover, Foehn, Sun, Kaufmann, Scaramuzza 2022, Performance, Precision, and Payloads:
Adaptive Nonlinear MPC for Quadrotors; Wu et al. 2022, L1 Adaptive Augmentation for Geometric Tracking Control of Quadrotors).

What the nominal model lacks, sigma, is an acceleration (world) and an angular acceleration (body). A predictor runs beside the vehicle,
with z~ = z^ - z its error on velocity and body rates, and a piecewise-constant law drives that error to 0 every control period:

    z^' = nominal + sigma^ + A z~         sigma^ = -Phi^-1 exp(A dt) z~,   Phi = A^-1 (exp(A dt) - 1)         A = -a, diagonal
    compensation = sigma^ through a first-order low-pass filter

Two ways to use it. `inside`: as a constant acceleration in the NMPC's own model, which then compensates matched and unmatched alike.
Otherwise as in the papers, added to the NMPC's commands: thrust against what lies along the rotors' axis, body rates against the angular part;
what lies across the rotors' axis is left.

By default it works inside, and on the acceleration alone. Over the training episodes of controller.baselines.tune the NMPC alone makes 25
mm, added to its commands 19 mm whatever the cutoff, inside 15 mm at a = cutoff = 100. Below a hanging load's own frequency (4 to 7 rad/s)
the estimate comes too late and harms (28 mm at a cutoff of 4). A faster filter or a smaller a follows the load better at first, but pumps
its swing: with a = 30, cutoff = 25 one training episode diverges within six seconds. The price of a = 100 is that the law's gain at rest, a
dt exp(-a dt) / (1 - exp(-a dt)), is 0.58, so 42% of a constant load's effect stays. Compensating the angular part gains nothing, because
the vehicle's own rate loop has an integral, and from a cutoff of 2 rad/s on it crashes where the state comes two control periods late.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from controller.baselines.baseline import limit, rotation, turn
from controller.baselines.nmpc import Tracker
from dynamics.nominal import Nominal
from native.symbolic import Symbolic
from planners import nmpc
from robots.trajectory import Reference


class Memory(NamedTuple):
    planner: nmpc.Memory
    z: (
        np.ndarray
    )  # (b, 6) velocity (world) and body rates that the nominal model expects now, NaN before the first step
    error: np.ndarray  # (b, 6) z~ one period ago, less the newest surprise
    sigma: np.ndarray  # (b, 6) adapted [m/s^2], [rad/s^2]
    filtered: np.ndarray  # (b, 6)


@dataclass(frozen=True)
class L1:
    """Settings: see controller.baselines.tune."""

    tracker: Tracker
    a: tuple[float, float] = (100.0, 5.0)  # of velocity and body rates [1/s]
    cutoff: tuple[float, float] = (100.0, 0.0)  # [rad/s]; 0 switches the compensation off
    inside: bool = True

    @property
    def preview(self) -> int:
        return self.tracker.preview

    @cached_property
    def _nominal(self) -> Symbolic:
        return Symbolic(Nominal(self.tracker.vehicle).symbolic())

    def init(self, b: int) -> Memory:
        zero = np.zeros((b, 6))
        return Memory(self.tracker.init(b), np.full((b, 6), np.nan), zero, zero, zero)

    def step(self, state: np.ndarray, reference: Reference, memory: Memory) -> tuple[np.ndarray, Memory]:
        vehicle, dt = self.tracker.vehicle, self.tracker.vehicle.dt
        rot = rotation(state)
        a, cutoff = np.repeat(self.a, 3), np.repeat(self.cutoff, 3)
        decay = np.exp(-a * dt)
        phi = (1 - decay) / a
        # The predictor's error one period on: it decays, is driven by sigma^, and grows by what the nominal model did not expect.
        surprise = np.nan_to_num(memory.z - _watched(state))
        error = decay * memory.error + phi * memory.sigma + surprise
        sigma = -decay / phi * error
        filtered = memory.filtered + (1 - np.exp(-cutoff * dt)) * (sigma - memory.filtered)

        push = filtered[:, :3] if self.inside else None
        command, planner = self.tracker.step(state, reference, memory.planner, push)
        rates = command[:, 1:] - filtered[:, 3:] * np.array(vehicle.rate_time_constant_s)
        thrust = command[:, 0]
        if not self.inside:
            thrust = thrust - vehicle.mass_kg * (filtered[:, :3] * rot[:, :, 2]).sum(1)
        command = limit(vehicle, thrust, rates)
        (expected,) = self._nominal(state[:, :16], vehicle.action(command), np.zeros((len(state), 1)))
        return command, Memory(planner, _watched(expected), error, sigma, filtered)


def _watched(s: np.ndarray) -> np.ndarray:
    """(b, >= 16) -> (b, 6) velocity in the world, body rates."""
    return np.concatenate((turn(rotation(s), s[:, 9:12]), s[:, 12:15]), 1)
