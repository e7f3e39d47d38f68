"""A batch of quadrotors with a payload on a cable, on MuJoCo or PyBullet: same forces, same state, same actions.

An action is collective thrust and body rates, what PX4 and Crazyflie accept, each scaled to [-1, 1]: thrust from 0 to the largest [N],
rates to the largest that may be commanded [rad/s] (Vehicle.command and Vehicle.action convert). It is held for one control period,
in which the autopilot, rotors, drag, cable (robots.autopilot, robots.cable) and the engine take `substeps` inner periods.

A payload that is hooked on in mid-air hangs at rest below the vehicle, at the cable's length or on the ground if that is nearer. One
that is dropped falls. Cable and vehicle meet at the centre of mass, so the cable turns nothing.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from robots import autopilot, vehicle
from robots.autopilot import Autopilot
from robots.bodies import LOAD, QUATERNION, RATES, V_LOAD, V_VEHICLE, VEHICLE, Bodies, radius
from robots.inner import Batch, Inner, turn
from robots.mujoco import MujocoBodies
from robots.quadrotor_condition import NONE, Condition
from robots.space import FloatingBase, Flying, quaternion_to_rotation
from robots.vehicle import Vehicle

ENGINES = ("mujoco", "pybullet")
ARENA = 10.0  # [m] from the origin to each side, and up: beyond is a crash
START = (0.0, 0.0, 2.0)  # [m]
GUST_TIME = 0.5  # [s], correlation time of a gust
TILTED = 0.0  # body z axis . up below this is a crash


class Quadrotor:
    """State (b, 16), or (b, 22) where the payload is seen: see robots.space.Flying.

    crashed (b,) bool: touched the ground, turned over or left the arena since its start; its motors are cut for good.
    conditions: one a robot; assign others at any time, they hold from the next step on.
    """

    name = "quadrotor"
    low: ClassVar[float] = -1.0
    high: ClassVar[float] = 1.0

    def __init__(self, which: Vehicle | str = "1kg", engine: str = "mujoco", payload_seen: bool = False):
        """which: a Vehicle, or what robots.vehicle.load takes. Raises VehicleError, ValueError on an unknown engine."""
        if engine not in ENGINES:
            raise ValueError(f"unknown engine {engine!r}; valid: {', '.join(ENGINES)}")
        self.vehicle = which if isinstance(which, Vehicle) else vehicle.load(which)
        self.engine = engine
        self.space = Flying(load=payload_seen)
        self.dt = self.vehicle.dt  # [s]
        hover = np.array([self.vehicle.hover_thrust_n, 0.0, 0.0, 0.0])
        self.safe_action = self.vehicle.action(hover).astype(np.float32)
        self.autopilot = Autopilot(self.vehicle)
        self._inner = Inner(self.autopilot)
        self.conditions: list[Condition] = []
        self.crashed = np.zeros(0, bool)
        self._bodies: Bodies | None = None

    def reset(
        self, conditions: Sequence[Condition], seeds: Sequence[int], positions: np.ndarray | None = None
    ) -> np.ndarray:
        """-> states. Starts hovering near positions (b, 3) [m], or START: off by up to 5 cm and 3 degrees, at up to a few cm/s. Raises ValueError,
        with nothing changed, where conditions or positions are not one a seed."""
        b = len(seeds)
        starts = np.tile(START, (b, 1)) if positions is None else np.array(positions, float)
        if len(conditions) != b or starts.shape != (b, 3) or not np.isfinite(starts).all():
            raise ValueError(
                f"{len(conditions)} conditions and positions of shape {starts.shape} for {b} seeds; valid: {b} and ({b}, 3), finite"
            )
        if self._bodies is None or len(self.crashed) != b:
            self.close()
            self._bodies = _bodies(self.engine, self.vehicle, b)
        self.conditions = list(conditions)
        self._current = [NONE] * b
        self._positions = starts
        # These four are written into, never replaced: `_acting` has their addresses.
        self._memory = autopilot.init(self.vehicle, np.zeros((b, 3)))
        self._command, self._air, self._works = (np.zeros((b, n)) for n in (4, 3, 4))  # of the control period that runs
        self._thrust = np.zeros(b)  # as Flying's T
        self._gust = np.zeros((b, 3))  # of unit standard deviation
        self._rngs = [np.random.default_rng(seed) for seed in seeds]
        self.crashed = np.zeros(b, bool)
        return self.restart(np.arange(b), seeds)

    def restart(self, where: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
        """Put the robots listed in `where` back to a start. -> all states."""
        for i, seed in zip(where, seeds, strict=True):
            rng = self._rngs[i] = np.random.default_rng(seed)
            position = self._positions[i] + rng.uniform(-0.05, 0.05, 3)
            quaternion = np.concatenate(([1.0], rng.uniform(-0.025, 0.025, 3)))
            lying = [*position[:2], radius(self.vehicle)]
            qpos = np.concatenate((position, quaternion / np.linalg.norm(quaternion), lying, [1.0, 0.0, 0.0, 0.0]))
            qvel = np.concatenate((rng.normal(0, 0.02, 6), np.zeros(6)))
            self.bodies.place(i, qpos, qvel)
            for memory, start in zip(self._memory, autopilot.init(self.vehicle, qvel[None, RATES]), strict=True):
                memory[i] = start[0]
            self._thrust[i] = self.vehicle.hover_thrust_n
            self._gust[i] = rng.standard_normal(3)
            self.crashed[i] = False
            self._current[i] = NONE
            self.bodies.alter(i, 1.0, 0.1 * self.vehicle.mass_kg)
        self._change()
        return self.state()

    @property
    def bodies(self) -> Bodies:
        if self._bodies is None:
            raise RuntimeError("the quadrotor has no state yet; call reset first")
        return self._bodies

    def _change(self) -> None:
        """Make the bodies what the conditions say."""
        for i, (now, was) in enumerate(zip(self.conditions, self._current, strict=True)):
            if now == was:
                continue
            fraction, cable = now.payload or was.payload or (0.1, 1.0)
            self.bodies.alter(i, now.inertia, fraction * self.vehicle.mass_kg)
            if now.payload not in (None, was.payload):
                qpos, qvel = self.bodies.qpos[i].copy(), self.bodies.qvel[i].copy()
                qpos[LOAD] = qpos[VEHICLE]
                qpos[LOAD][2] = max(qpos[2] - cable, min(qpos[2], radius(self.vehicle)))
                qvel[V_LOAD], qvel[9:] = qvel[V_VEHICLE], 0
                self.bodies.place(i, qpos, qvel)
        self._current = list(self.conditions)
        vehicle_mass = self.vehicle.mass_kg
        self._hooked = np.array([c.payload is not None for c in self._current])
        payload = np.array([c.payload or (0.1, 1.0) for c in self._current], float)
        length, reduced = payload[:, 1].copy(), self._hooked * vehicle_mass * payload[:, 0] / (1 + payload[:, 0])
        gain = np.array([c.gain for c in self._current], float)
        self._wind = np.array([(*c.wind, 0.0) for c in self._current])
        self._gust_std = np.array([c.gust for c in self._current])
        batch = Batch(self.bodies.qpos, self.bodies.qvel, self._command, self._air, self._works, gain, length, reduced)
        self._acting = self._inner.of(batch, self._memory)

    def step(self, actions: np.ndarray) -> np.ndarray:
        """(b, 4) in [-1, 1], clipped -> states. Raises ValueError on an action that is not finite or of another shape."""
        self.part(actions, self.vehicle.substeps)
        return self.state()

    def part(self, actions: np.ndarray, substeps: int) -> None:
        """As step, over so many inner periods: for commands that come in the middle of a control period."""
        actions = np.asarray(actions, float)
        if actions.shape != (len(self.crashed), 4) or not np.isfinite(actions).all():
            raise ValueError(
                f"actions have shape {actions.shape} or are not finite; valid: ({len(self.crashed)}, 4) finite numbers"
            )
        if any(now != was for now, was in zip(self.conditions, self._current, strict=True)):
            self._change()
        self._command[:] = self.vehicle.command(actions.clip(-1, 1))
        self._air[:] = self._blow(substeps / self.vehicle.substeps)
        self._works[:] = ~self.crashed[:, None]
        for _ in range(substeps):
            self.bodies.step(*self._acting())
        lag = 1 - math.exp(-self.dt * (substeps / self.vehicle.substeps) / self.vehicle.rotor_time_constant_s)
        self._thrust += lag * (self._command[:, 0] - self._thrust)
        self._watch()

    def _blow(self, periods: float = 1.0) -> np.ndarray:
        """-> air velocity in the world over so much of a control period, (b, 3) [m/s]; a gust is an Ornstein-Uhlenbeck process, drawn whether it
        blows or not."""
        keep = math.exp(-self.dt * periods / GUST_TIME)
        noise = np.array([rng.standard_normal(3) for rng in self._rngs])
        self._gust = keep * self._gust + math.sqrt(1 - keep**2) * noise
        return self._wind + self._gust_std[:, None] * self._gust

    def _watch(self) -> None:
        position = self.bodies.qpos[:, VEHICLE]
        w, x, y, z = self.bodies.qpos[:, QUATERNION].T
        up = (w * w + z * z - x * x - y * y) / (w * w + x * x + y * y + z * z)  # body z axis . up
        grounded = position[:, 2] <= radius(self.vehicle)
        outside = (np.abs(position) > ARENA).any(1)
        self.crashed |= grounded | outside | (up < TILTED)

    def state(self) -> np.ndarray:
        """(b, 16) or (b, 22) float64."""
        qpos, qvel = self.bodies.qpos, self.bodies.qvel
        parts = [_BASE.from_mujoco(qpos[:, :7], qvel[:, :6]), self._thrust[:, None]]
        if self.space.load:
            inverse = quaternion_to_rotation(qpos[:, QUATERNION]).transpose(0, 2, 1)
            seen = self._hooked[:, None]
            parts.append(seen * turn(inverse, qpos[:, LOAD] - qpos[:, VEHICLE]))
            parts.append(seen * turn(inverse, qvel[:, V_LOAD] - qvel[:, V_VEHICLE]))
        return np.concatenate(parts, 1)

    def payload(self) -> np.ndarray:
        """(b, 6) the payload's position [m] and velocity [m/s] in the world, whether it is observed or not; NaN without one."""
        seen = np.concatenate((self.bodies.qpos[:, LOAD], self.bodies.qvel[:, V_LOAD]), 1)
        return np.where(self._hooked[:, None], seen, np.nan)

    def close(self) -> None:
        if self._bodies is not None:
            self._bodies.close()
            self._bodies = None


_BASE = FloatingBase(n_joints=0, n_action=0)


def _bodies(engine: str, v: Vehicle, b: int) -> Bodies:
    if engine == "mujoco":
        return MujocoBodies(v, b)
    from robots.bullet import BulletBodies  # importing PyBullet prints a line: only who uses it gets that

    return BulletBodies(v, b)
