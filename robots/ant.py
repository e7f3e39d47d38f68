"""The ant: gymnasium's ant.xml (Schulman et al. 2015), dt 0.05 s (0.01 x 5), eight motors, actions in [-1, 1], gear as shipped.

Score of a step: mean forward velocity over it, (x' - x) / dt [m/s]. Nothing terminates while scoring; falls are counted.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import gymnasium
import mujoco
import numpy as np
import torch
from torch import Tensor

from robots import symmetry
from robots.condition import N_MOTORS, Condition, motors_of_leg, parse
from robots.mujoco import Physics, tilt_gravity
from robots.space import FloatingBase
from robots.symmetry import Symmetry

XML = Path(gymnasium.__file__).parent / "envs/mujoco/assets/ant.xml"
LEGS = (  # geoms of leg and foot, as named in ant.xml
    ("left_leg_geom", "left_ankle_geom"),
    ("right_leg_geom", "right_ankle_geom"),
    ("back_leg_geom", "third_ankle_geom"),
    ("rightback_leg_geom", "fourth_ankle_geom"),
)
# [N m], large against the 150 of a motor and the impacts of a leg with its 1 kg m^2 of armature: a seized joint.
LOCK_TORQUE = 1e4
FALLEN = 0.0  # torso z axis . up below this is a fall
TIPPED = 0.2  # below this a fall is hardly to be averted
UPRIGHT = 0.5  # above this the robot has stood up again, so that one tumble is one fall

Array = TypeVar("Array", np.ndarray, Tensor)


def load() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_path(str(XML))


def alter(model: mujoco.MjModel, condition: Condition) -> None:
    """Change a healthy ant's model to a condition (motor gains excepted: those act on the control)."""
    for leg in condition.short:
        # The original benchmark's variant: leg and foot half as thick and half as long, the foot moved up to the leg
        # (Nagabandi, Clavera et al. 2019, crippled ant). As there, mass and inertia stay.
        upper, foot = (model.geom(name).id for name in LEGS[leg])
        model.geom_size[upper] /= 2
        model.geom_size[foot] /= 2
        model.geom_pos[foot] = model.geom_pos[upper]
        # Compiled as "at the body's centre of mass": a shortcut by which MuJoCo 3.3 (not 4.0) would ignore geom_pos.
        model.geom_sameframe[foot] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE
        for geom in (upper, foot):
            model.geom_rbound[geom] = model.geom_size[geom][0] + model.geom_size[geom][1]
    for joint in condition.locked:
        model.dof_frictionloss[6 + joint] = LOCK_TORQUE
        # MuJoCo's constraints are soft: at the default impedance the brake yields and the joint creeps by 0.06 rad in
        # 50 steps. This is the hardest that MuJoCo allows (mjMAXIMP).
        model.dof_solimp[6 + joint, :2] = 0.9999
    torso = model.body("torso").id
    model.body_mass[torso] *= condition.mass
    model.body_inertia[torso] *= condition.mass
    model.geom_friction[:] *= condition.friction
    tilt_gravity(model, condition.slope)
    mujoco.mj_setConst(model, mujoco.MjData(model))


def physics(threads: int = 2, fast: bool = False) -> Physics:
    return Physics(load, alter, substeps=5, threads=threads, fast=fast)


class Ant:
    """A batch of ants on the true physics. State (b, 31): see FloatingBase."""

    name = "ant"
    space = FloatingBase(n_joints=8, n_action=8)
    dt = 0.05  # [s]
    safe_action = np.zeros(8, np.float32)  # motors off
    n_body = len(LEGS)  # parameters of the body: how short each leg is

    def __init__(self, threads: int = 2):
        self.physics = physics(threads)
        self.conditions: list[Condition] = []
        self.raw = np.zeros((0, self.physics.n_raw))

    def reset(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> np.ndarray:
        """-> (b, 31). Starts as gymnasium's Ant-v5 does: qpos0 + U(-0.1, 0.1), qvel 0.1 N(0, 1)."""
        self.conditions = list(conditions)
        self.raw = np.stack([self._start(np.random.default_rng(seed)) for seed in seeds])
        return self.state()

    def restart(self, where: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
        """Put the robots listed in `where` back to a start. -> all states (b, 31)."""
        for i, seed in zip(where, seeds, strict=True):
            self.raw[i] = self._start(np.random.default_rng(seed))
        return self.state()

    def place(self, where: np.ndarray, states: np.ndarray) -> np.ndarray:
        """Put the robots listed in `where` into states (len(where), 31). -> all states (b, 31)."""
        self.raw[where] = self.physics.join(*self.space.to_mujoco(np.asarray(states, np.float64)))
        return self.state()

    def _start(self, rng: np.random.Generator) -> np.ndarray:
        qpos = self.physics.model.qpos0 + rng.uniform(-0.1, 0.1, self.physics.model.nq)
        qpos[3:7] /= np.linalg.norm(qpos[3:7])
        return self.physics.join(qpos, 0.1 * rng.standard_normal(self.physics.model.nv))

    def state(self) -> np.ndarray:
        """(b, 31) float64."""
        return self.observe(self.raw)

    def observe(self, raw: np.ndarray) -> np.ndarray:
        return self.space.from_mujoco(*self.physics.split(raw))

    def step(self, actions: np.ndarray) -> np.ndarray:
        """(b, 8) in [-1, 1] -> (b, 31)."""
        self.raw = self.physics.run(self.raw, actions[:, None], self.conditions)[:, 0]
        return self.state()

    def rollout(self, actions: np.ndarray) -> np.ndarray:
        """(b, t, 8) -> states (b, t, 31); the robots end where the last step left them."""
        raw = self.physics.run(self.raw, actions, self.conditions)
        self.raw = raw[:, -1]
        return self.observe(raw)

    def broken_geoms(self, condition: Condition) -> list[int]:
        """Geoms of every leg with a motor that is not at full strength, or that is short: to be drawn in red."""
        broken = condition.short | {
            leg for leg in range(len(LEGS)) if any(condition.gain[m] != 1 for m in motors_of_leg(leg))
        }
        return [self.physics.model.geom(name).id for leg in broken for name in LEGS[leg]]

    @staticmethod
    def tell(condition: str) -> list[float]:
        """What training is told of a recording: the gain of each motor, then how short each leg is (0 whole, 1 half), NaN where it is to be found
        out. A shortness is a parameter of the body that no motor's gain expresses, so recordings of short legs say all; whether a motor
        is dead, weak or reversed is inferred, as it must be on a robot that nobody has looked at."""
        if not condition:
            return [np.nan] * (N_MOTORS + len(LEGS))
        told = []
        for _, stage in parse(condition).stages:
            gains = stage.gain if condition == "healthy" or stage.short else (np.nan,) * len(stage.gain)
            told.append([*gains, *(float(leg in stage.short) for leg in range(len(LEGS)))])
        # What changes is not told: it says of no episode which of its conditions it had.
        return [values[0] if len(set(values)) == 1 else np.nan for values in zip(*told, strict=True)]

    @staticmethod
    def symmetries() -> tuple[Symmetry, ...]:
        """The eight under which a healthy ant's physics do not change."""
        return symmetry.ant()

    @staticmethod
    def score(s: np.ndarray, s_next: np.ndarray) -> np.ndarray:
        """(*b, 31), (*b, 31) -> (*b) mean forward velocity over the step [m/s]."""
        return (s_next[..., 0] - s[..., 0]) / Ant.dt

    @staticmethod
    def upright(s: Array) -> Array:
        """(*b, 31) -> (*b) cosine between the torso's z axis and up."""
        return s[..., 8]

    @staticmethod
    def tipped(s: Tensor) -> Tensor:
        """(*b, 31) -> (*b) bool: falling, or fallen."""
        return s[..., 8] < TIPPED

    @staticmethod
    def cost(s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
        """What the planner minimises, per step: minus forward velocity, plus a push to stay upright and near the ground.

        (*b, 31), (*b, 8), (*b, 31) -> (*b). In the air the ant cannot choose how it lands: a plan that leaps is fast in the model and
        a fall on the robot. Stronger penalties fell less in one trial, at the same speed (docs/trials/ant.md).
        """
        speed = (s_next[..., 0] - s[..., 0]) / Ant.dt
        return 20.0 * torch.relu(0.9 - s_next[..., 8]) + 8.0 * torch.relu(s_next[..., 2] - 0.75) - speed
