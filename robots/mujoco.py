"""The MuJoCo backend: a batch of robots of one kind, each with its own condition, stepped by mujoco.rollout.

`Physics` is for robots whose motors are part of the MuJoCo model: conditions that a motor gain expresses cost nothing; the others are a
model of their own, compiled once and kept. `MujocoBodies` is for the quadrotor, whose forces come from outside (robots.bodies).
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import mujoco
import mujoco.rollout
import numpy as np

from robots.bodies import radius
from robots.condition import HEALTHY, Condition
from robots.vehicle import GRAVITY, Vehicle

FULL = mujoco.mjtState.mjSTATE_FULLPHYSICS


class Physics:
    """Steps raw MuJoCo states. Stateless but for its caches, so a planner may step imagined robots beside the real ones.

    A raw state is MuJoCo's mjSTATE_FULLPHYSICS vector: time, qpos, qvel, act. Constraint warm starts are not carried from step to
    step: that makes one robot in a batch identical to the same robot alone.
    """

    def __init__(
        self,
        load: Callable[[], mujoco.MjModel],
        alter: Callable[[mujoco.MjModel, Condition], None],
        substeps: int,
        threads: int = 2,
        fast: bool = False,
    ):
        """load makes a fresh healthy model, alter changes it to a condition. fast: semi-implicit Euler with fewer solver
        iterations, about three times the speed, for planning on the true dynamics only."""
        self._load, self._alter, self._fast = load, alter, fast
        self.substeps = substeps
        self._models: dict[Condition, mujoco.MjModel] = {}
        self.model = self._model(HEALTHY)
        self.n_raw = mujoco.mj_stateSize(self.model, FULL)
        self._data = [mujoco.MjData(self.model) for _ in range(threads)]
        self._pool = mujoco.rollout.Rollout(nthread=threads)

    @property
    def dt(self) -> float:
        """Control period [s]."""
        return float(self.model.opt.timestep) * self.substeps

    def _model(self, condition: Condition) -> mujoco.MjModel:
        body = replace(condition, gain=HEALTHY.gain)
        if body not in self._models:
            model = self._load()
            self._alter(model, body)
            if self._fast:
                model.opt.integrator = mujoco.mjtIntegrator.mjINT_EULER
                model.opt.iterations = 10
            self._models[body] = model
        return self._models[body]

    def run(self, raw: np.ndarray, actions: np.ndarray, conditions: Sequence[Condition]) -> np.ndarray:
        """(b, n_raw) states, (b, t, n_action) actions -> (b, t, n_raw) states after each control period."""
        b, t, _ = actions.shape
        states, _ = self.bare(raw, actions, conditions)()
        return np.asarray(states)[:, self.substeps - 1 :: self.substeps].reshape(b, t, -1)

    def bare(
        self, raw: np.ndarray, actions: np.ndarray, conditions: Sequence[Condition]
    ) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
        """As `run` -> nothing but mujoco.rollout's own work, to be called: (b, t * substeps, n_raw) states and the sensors."""
        gains = np.array([c.gain for c in conditions])
        control = np.repeat(actions * gains[:, None], self.substeps, axis=1)
        models = [self._model(c) for c in conditions]
        if all(m is models[0] for m in models):
            models = models[:1]
        return lambda: self._pool.rollout(models, self._data, raw, control)

    def split(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(*b, n_raw) -> qpos (*b, nq), qvel (*b, nv)."""
        nq, nv = self.model.nq, self.model.nv
        return raw[..., 1 : 1 + nq], raw[..., 1 + nq : 1 + nq + nv]

    def join(self, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """The inverse of split, at time 0."""
        return np.concatenate((np.zeros((*qpos.shape[:-1], 1)), qpos, qvel), -1)

    def close(self) -> None:
        self._pool.close()


BODIES = """
<mujoco model="quadrotor">
  <option timestep="{dt}" gravity="0 0 {gravity}"/>
  <worldbody>
    <geom name="ground" type="plane" size="0 0 1" contype="1" conaffinity="0"/>
    <body name="vehicle">
      <freejoint/>
      <inertial pos="0 0 0" mass="{mass}" diaginertia="{inertia}"/>
      <geom name="vehicle" type="sphere" size="{radius}" contype="0" conaffinity="1"/>
    </body>
    <body name="load">
      <freejoint/>
      <inertial pos="0 0 0" mass="{mass}" diaginertia="{inertia}"/>
      <geom name="load" type="sphere" size="{radius}" contype="0" conaffinity="1"/>
    </body>
  </worldbody>
</mujoco>
"""


class MujocoBodies:
    """robots.bodies.Bodies on MuJoCo. Each robot has a model of its own, changed in place: payloads are as many as episodes."""

    def __init__(self, vehicle: Vehicle, b: int):
        self._inertia = np.array(vehicle.inertia_kg_m2)
        inertia = " ".join(repr(float(x)) for x in self._inertia)
        model = mujoco.MjModel.from_xml_string(
            BODIES.format(
                dt=repr(1 / vehicle.inner_rate_hz), gravity=-GRAVITY, mass=repr(vehicle.mass_kg), inertia=inertia,
                radius=repr(radius(vehicle)),
            )
        )  # fmt: skip
        self._models = [copy.copy(model) for _ in range(b)]
        self._data = [mujoco.MjData(model)]
        # No threads: handing over one inner period takes longer than the physics of 40 vehicles.
        self._pool = mujoco.rollout.Rollout(nthread=0)
        self._raw = np.zeros((b, 1, mujoco.mj_stateSize(model, FULL)))
        self._next = np.zeros_like(self._raw)
        self._sensors = np.zeros((b, 1, 0))
        self._applied = np.zeros((b, 1, 3, 6))  # force and torque on world, vehicle and load
        self.qpos, self.qvel = self._raw[:, 0, 1:15], self._raw[:, 0, 15:27]
        for i in range(b):
            self.place(i, model.qpos0, np.zeros(12))

    def place(self, i: int, qpos: np.ndarray, qvel: np.ndarray) -> None:
        self.qpos[i], self.qvel[i] = qpos, qvel

    def alter(self, i: int, inertia: float, load_mass: float) -> None:
        model = self._models[i]
        model.body_inertia[1] = inertia * self._inertia
        model.body_mass[2] = load_mass
        model.body_inertia[2] = 0.4 * load_mass * model.geom_size[2, 0] ** 2  # a solid sphere
        mujoco.mj_setConst(model, self._data[0])

    def step(self, force: np.ndarray, torque: np.ndarray, pull: np.ndarray) -> None:
        applied = self._applied[:, 0]
        applied[:, 1, :3], applied[:, 1, 3:], applied[:, 2, :3] = force, torque, pull
        # Without checks, because they take longer than the physics of a small batch.
        self._pool.rollout(
            self._models, self._data, self._raw[:, 0], self._applied.reshape(len(applied), 1, 18),
            control_spec=mujoco.mjtState.mjSTATE_XFRC_APPLIED.value, skip_checks=True, nstep=1, state=self._next,
            sensordata=self._sensors,
        )  # fmt: skip
        self._raw[:] = self._next

    def close(self) -> None:
        self._pool.close()


def tilt_gravity(model: mujoco.MjModel, degrees: float) -> None:
    """Uphill along +x by turning gravity: the same physics as a tilted floor, in the floor's own frame."""
    g = 9.81
    angle = math.radians(degrees)
    model.opt.gravity[:] = (-g * math.sin(angle), 0.0, -g * math.cos(angle))
