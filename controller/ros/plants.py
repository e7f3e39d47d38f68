"""The simulated robots behind the messages of real ones. A robot is one class and one line in PLANTS."""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import mujoco
import numpy as np

from controller.ros import convert
from controller.ros.brains import JOINTS, MOTORS
from controller.ros.quadrotor_plant import QuadrotorPlant
from controller.ros.robot_config import RobotConfig
from controller.ros.shapes import Disturb, Shape
from controller.ros.topics import TOPICS
from robots.ant import Ant, alter, load
from robots.condition import Condition, Schedule, parse
from robots.mujoco import Physics


class Plant(Protocol):
    """The robot's side: physics, the state's messages, and the command it obeys."""

    substeps: ClassVar[int]  # of a control period
    input: ClassVar[str]  # the command's message type

    @property
    def dt(self) -> float: ...  # control period [s]
    @property
    def outputs(self) -> dict[str, str]: ...  # message types by topic

    def conditions(self, text: str) -> Schedule[Any]:
        """Raises ConditionError."""
        ...

    def reset(self, condition: Any, seed: int) -> None: ...
    def step(self, action: np.ndarray, condition: Any) -> None:
        """(n_action,), one control period."""
        ...

    def substep(self, action: np.ndarray | None, condition: Any) -> None:
        """None: nobody commands, and the robot does what is safe."""
        ...

    def fill(self, messages: dict[str, Any], stamp: int, disturb: Disturb) -> None:
        """The state as a robot would publish it."""
        ...

    def read(self, message: Any) -> np.ndarray:
        """A command -> (n_action,), clipped to the bounds. Raises convert.BadMessage."""
        ...

    def shapes(self) -> list[Shape]: ...
    def asked(self, t: np.ndarray) -> np.ndarray:
        """(n,) [s] since the start -> (n, 3) where it is to be [m], NaN where no place is asked for."""
        ...

    def trouble(self) -> str:
        """What no command mends, in a sentence; empty where there is nothing of the kind."""
        ...


class AntPlant:
    """The other side of brains.AntBrain."""

    dt: float = Ant.dt
    substeps: ClassVar[int] = 5
    input: ClassVar[str] = TOPICS["ant"].command

    def __init__(self, config: RobotConfig) -> None:
        self._ant = Ant(threads=1)
        self._fine = Physics(load, alter, substeps=1, threads=1)
        self._data = mujoco.MjData(self._ant.physics.model)
        self._condition = Condition()
        self._action = Ant.safe_action  # in force until now

    @property
    def outputs(self) -> dict[str, str]:
        return TOPICS["ant"].state

    def conditions(self, text: str) -> Schedule[Condition]:
        return parse(text or "healthy")

    def reset(self, condition: Condition, seed: int) -> None:
        self._condition = condition
        self._ant.reset([condition], [seed])

    def step(self, action: np.ndarray, condition: Condition) -> None:
        self._condition, self._ant.conditions, self._action = condition, [condition], action
        self._ant.step(action[None])

    def substep(self, action: np.ndarray | None, condition: Condition) -> None:
        action = Ant.safe_action if action is None else action
        self._condition, self._action = condition, action
        self._ant.raw = self._fine.run(self._ant.raw, action[None, None], [condition])[:, 0]

    def fill(self, messages: dict[str, Any], stamp: int, disturb: Disturb) -> None:
        # The simulator's own quaternion goes out, so that the state which the controller makes of it is the simulator's to the bit.
        qpos, s = self._ant.physics.split(self._ant.raw[0])[0], self._ant.state()[0]
        linear, angular = Ant.space.velocity
        for message in messages.values():
            convert.set_stamp(message, stamp)
        convert.fill_joints(
            messages["joint_states"], JOINTS, disturb("joint_position", qpos[7:]), disturb("joint_velocity", s[23:]),
        )  # fmt: skip
        messages["joint_states"].effort = self._action[[MOTORS.index(j) for j in JOINTS]].astype(float).tolist()
        reading = convert.Pose(
            disturb("position", qpos[:3]), disturb("orientation", qpos[3:7]), disturb("velocity", s[linear]),
            disturb("rates", s[angular]),
        )  # fmt: skip
        convert.fill_pose(messages["odom"], reading)

    def asked(self, t: np.ndarray) -> np.ndarray:
        return np.full((len(t), 3), np.nan)

    def trouble(self) -> str:
        return ""

    def read(self, message: Any) -> np.ndarray:
        return convert.command(message, len(MOTORS)).clip(-1, 1).astype(np.float32)

    def shapes(self) -> list[Shape]:
        model, data = self._ant.physics.model, self._data
        data.qpos[:] = self._ant.physics.split(self._ant.raw[0])[0]
        mujoco.mj_kinematics(model, data)
        broken = set(self._ant.broken_geoms(self._condition))
        found = []
        for i in range(1, model.ngeom):  # 0 is the floor
            quaternion = np.zeros(4)
            mujoco.mju_mat2Quat(quaternion, data.geom_xmat[i])
            kind = "sphere" if model.geom_type[i] == mujoco.mjtGeom.mjGEOM_SPHERE else "capsule"
            found.append(Shape(kind, data.geom_xpos[i].copy(), quaternion, model.geom_size[i, :2].copy(), i in broken))
        return found


PLANTS: dict[str, Callable[[RobotConfig], Plant]] = {"ant": AntPlant, "quadrotor": QuadrotorPlant}
