"""Where an unseen load swings: an extended Kalman filter on the nominal slung-load equations.

    x = (r, rd, z_0, d)       load minus vehicle position and velocity in the world, the load's share of the mass (dynamics.residual), and an
                              acceleration that the load does not explain (wind; Ornstein-Uhlenbeck)
    v_{t+1} = h(x_t; s_t, a_t) + noise         the vehicle's velocity, in body coordinates, is all that shows the load
    x_{t+1} = f(x_t; s_t, a_t) + noise

The direction in which the cable pulls is seen at once, its length only in how the load swings. The prior is a load that has just been hooked
on: at rest below the vehicle. Without a load the share goes to its least value, and r is nobody's business. A cumulative sum over the
normalised innovations (dynamics.adapt.variational, the same) notices a load that comes or goes and starts again from the prior.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import casadi
import numpy as np

from dynamics.nominal import Nominal
from dynamics.residual import LEAST, MOST, SHARE, SPREAD
from robots import symbolic
from robots.vehicle import Vehicle

N = 10


class Memory(NamedTuple):
    mean: np.ndarray  # (b, 10)
    cov: np.ndarray  # (b, 10, 10)
    alarm: np.ndarray  # (b,)
    restarts: np.ndarray  # (b,) int


@dataclass(frozen=True)
class Swing:
    """Settings, in SI units; deviations, those of the process per root second."""

    vehicle: Vehicle
    length: float = 0.7
    length_std: float = 0.25
    offset_std: float = 0.03
    speed_std: float = 0.15
    wind_std: float = 0.3
    wind_time: float = 2.0
    drive: float = 0.05
    noise: float = 0.1  # [m/s^2] of the acceleration over a control period
    cap: float = 40.0
    allowance: float = 4.0
    limit: float = 40.0

    @cached_property
    def _functions(self) -> tuple[casadi.Function, casadi.Function]:
        """(s, x, a) -> v_next and its Jacobian by x; x_next and its Jacobian by x."""
        s, x, a = casadi.SX.sym("s", 16), casadi.SX.sym("x", N), casadi.SX.sym("a", 4)
        r, rd, z, d = casadi.vertsplit(x, [0, 3, 6, 7, 10])
        rot, dt = symbolic.rotation(s), self.vehicle.dt
        part = SHARE + SPREAD * z  # within its bounds by `_one`
        mass = self.vehicle.mass_kg * part / (1 - part)
        s_next = Nominal(self.vehicle, load=True).symbolic()(casadi.vertcat(s, rot.T @ r, rot.T @ rd), a, mass)
        turned = symbolic.rotation(s_next)
        v = s_next[9:12] + dt * (turned.T @ d)
        x_next = casadi.vertcat(turned @ s_next[16:19], turned @ s_next[19:22], z, np.exp(-dt / self.wind_time) * d)
        v_out = [v, casadi.densify(casadi.jacobian(v, x))]
        x_out = [x_next, casadi.densify(casadi.jacobian(x_next, x))]
        return (
            casadi.Function("seen", [s, x, a], v_out, {"cse": True}),
            casadi.Function("moved", [s, x, a], x_out, {"cse": True}),
        )

    @cached_property
    def _prior(self) -> tuple[np.ndarray, np.ndarray]:
        mean = np.zeros(N)
        mean[2] = -self.length
        std = [self.offset_std, self.offset_std, self.length_std, *[self.speed_std] * 3, 1.0, *[self.wind_std] * 3]
        return mean, np.diag(np.square(std))

    def init(self, b: int) -> Memory:
        mean, cov = self._prior
        return Memory(np.tile(mean, (b, 1)), np.tile(cov, (b, 1, 1)), np.zeros(b), np.zeros(b, int))

    def step(self, memory: Memory, s: np.ndarray, a: np.ndarray, s_next: np.ndarray) -> Memory:
        """One transition of the vehicle alone: s, s_next (b, 16), a (b, 4). Rows that are not finite leave the belief as it is."""
        mean, cov, alarm, restarts = memory
        parts = [self._one(mean[i], cov[i], alarm[i], restarts[i], s[i], a[i], s_next[i]) for i in range(len(s))]
        found = Memory(*(np.array(x) for x in zip(*parts, strict=True)))
        lost = ~(np.isfinite(found.mean).all(1) & np.isfinite(found.cov).all((1, 2)))
        if lost.any():  # by numbers that no vehicle reaches
            found.mean[lost], found.cov[lost] = self._prior
            found.alarm[lost], found.restarts[lost] = 0.0, memory.restarts[lost] + 1
        return found

    def _one(
        self, mean: np.ndarray, cov: np.ndarray, alarm: float, restarts: int, s: np.ndarray, a: np.ndarray, s_next: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float, int]:  # fmt: skip
        if not (np.isfinite(s).all() and np.isfinite(s_next).all()):
            return mean, cov, alarm, restarts
        seen, moved = self._functions
        dt = self.vehicle.dt
        noise = (self.noise * dt) ** 2 * np.eye(3)

        def innovate(mean: np.ndarray, cov: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            v, h = (np.asarray(x) for x in seen(s, mean, a))
            return s_next[9:12] - v[:, 0], h, h @ cov @ h.T + noise

        e, h, spread = innovate(mean, cov)
        surprise = float(e @ np.linalg.solve(spread, e))
        alarm = max(0.0, alarm + min(surprise, self.cap) - 3 - self.allowance)
        if alarm > self.limit:
            mean, cov = self._prior
            alarm, restarts = 0.0, restarts + 1
            e, h, spread = innovate(mean, cov)
        gain = np.linalg.solve(spread, h @ cov).T
        mean, cov = mean + gain @ e, cov - gain @ h @ cov
        mean[6] = np.clip(mean[6], (LEAST - SHARE) / SPREAD, (MOST - SHARE) / SPREAD)
        x, f = (np.asarray(y) for y in moved(s, mean, a))
        cov = f @ cov @ f.T
        grown = [0.0] * 3 + [self.drive**2 * dt] * 3 + [0.0] + [2 * dt / self.wind_time * self.wind_std**2] * 3
        return x[:, 0], (cov + cov.T) / 2 + np.diag(grown), alarm, restarts

    def augment(self, memory: Memory, s: np.ndarray) -> np.ndarray:
        """(b, 16) -> (b, 22): the state as if the load were seen where it is believed to be."""
        f, u = s[:, 3:6], s[:, 6:9]
        rot = np.stack((f, np.cross(u, f), u), 1)
        r, rd = ((rot.swapaxes(1, 2) @ memory.mean[:, i : i + 3, None])[..., 0] for i in (0, 3))
        return np.concatenate((s, r, rd), 1)
