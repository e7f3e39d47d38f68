"""The MuJoCo backend: a batch of robots of one kind, each with its own condition, stepped by mujoco.rollout.

Conditions that a motor gain expresses cost nothing; the others are a model of their own, compiled once and kept.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import mujoco
import mujoco.rollout
import numpy as np

from robots.condition import HEALTHY, Condition

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
        gains = np.array([c.gain for c in conditions])
        control = np.repeat(actions * gains[:, None], self.substeps, axis=1)
        models = [self._model(c) for c in conditions]
        if all(m is models[0] for m in models):
            models = models[:1]
        states, _ = self._pool.rollout(models, self._data, raw, control)
        return np.asarray(states)[:, self.substeps - 1 :: self.substeps].reshape(b, t, -1)

    def split(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(*b, n_raw) -> qpos (*b, nq), qvel (*b, nv)."""
        nq, nv = self.model.nq, self.model.nv
        return raw[..., 1 : 1 + nq], raw[..., 1 + nq : 1 + nq + nv]

    def join(self, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """The inverse of split, at time 0."""
        return np.concatenate((np.zeros((*qpos.shape[:-1], 1)), qpos, qvel), -1)

    def close(self) -> None:
        self._pool.close()


def tilt_gravity(model: mujoco.MjModel, degrees: float) -> None:
    """Uphill along +x by turning gravity: the same physics as a tilted floor, in the floor's own frame."""
    g = 9.81
    angle = math.radians(degrees)
    model.opt.gravity[:] = (-g * math.sin(angle), 0.0, -g * math.cos(angle))
