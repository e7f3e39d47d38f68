"""The controller's side of each robot. A robot is one class and one line in BRAINS; its other side is in plants.py."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from controller.config import make_controller, weights_of
from controller.controller import Controller, Diagnostics, Memory
from controller.guard import GuardMemory
from controller.ros import convert
from controller.ros.acting import Timing
from controller.ros.controller_config import ControlConfig
from controller.ros.loop import Brain
from controller.ros.quadrotor_brain import quadrotor
from controller.ros.topics import TOPICS
from robots.ant import Ant
from robots.condition import HEALTHY
from robots.space import quaternion_to_rotation

JOINTS = tuple(
    f"{part}_{leg}" for leg in range(1, 5) for part in ("hip", "ankle")
)  # the state's order, as ant.xml names them
AHEAD = 2.0  # [m] of the ant's way that is drawn
MOTORS = (*JOINTS[6:], *JOINTS[:6])  # the command's order: ant.xml lists the last leg's motors first


def decode_ant(messages: dict[str, Any]) -> np.ndarray:
    """-> (31,), see robots.space.FloatingBase. Raises convert.BadMessage."""
    q, qd = convert.joints(messages["joint_states"], JOINTS)
    base = convert.pose(messages["odom"])
    rot = quaternion_to_rotation(base.quaternion)
    return np.concatenate((base.p, rot[0], rot[2], q, base.v, base.w, qd))


def read_ant(message: Any) -> np.ndarray:
    """-> (8,) float32. Raises convert.BadMessage."""
    return convert.command(message, len(MOTORS)).astype(np.float32)


@dataclass(frozen=True)
class AntBrain:
    """In: JointState with the eight joints of JOINTS in any order, and Odometry of the torso (twist in its own frame). Out:
    Float64MultiArray, eight torques in the order of MOTORS as a fraction of each motor's largest."""

    controller: Controller
    dt: float = Ant.dt
    patience: ClassVar[float] = 1.2  # what goes out then is a plan; what is lost by it is a transition to learn from
    thinking: ClassVar[float] = 1.2
    corrects: ClassVar[bool] = True
    output: ClassVar[str] = TOPICS["ant"].command

    @property
    def inputs(self) -> dict[str, str]:
        return TOPICS["ant"].state

    def decode(self, messages: dict[str, Any]) -> np.ndarray:
        return decode_ant(messages)

    def fill(self, message: Any, action: np.ndarray, label: convert.Label) -> None:
        convert.fill_command(message, action, label, convert.message_type("std_msgs/msg/MultiArrayDimension")())

    def read(self, message: Any) -> np.ndarray:
        return read_ant(message)

    def rest(self) -> np.ndarray:
        return Ant(threads=1).reset([HEALTHY], [0])[0]

    def init(self, seed: int) -> Memory:
        return self.controller.init([seed])

    def step(
        self, memory: Memory, state: np.ndarray, stamp: int, timing: Timing | None
    ) -> tuple[np.ndarray, Memory, Diagnostics]:
        pending = ()
        if timing is not None:
            pending = tuple((share, action[None]) for share, action in timing.pending)
            if timing.acted:  # what led from the last state to this one, in the place of the command that was sent last
                weight = sum(share for share, _ in timing.acted)
                mean = sum((share / weight * action for share, action in timing.acted), np.zeros(len(MOTORS)))
                acted = torch.as_tensor(mean[None], dtype=torch.float32)
                memory = memory._replace(guard=memory.guard._replace(action=acted))
        # Whether it came in time is decided by whoever waits for it, not by the step.
        action, memory, diagnostics = self.controller.step(memory, state[None], late=False, pending=pending)
        return action[0], memory, diagnostics

    def conclude(self, memory: Memory) -> tuple[Memory, dict[str, float]]:
        return memory, {}

    def prepare(self, memory: Memory) -> Memory:
        return self.controller.prepare(memory)

    def foresee(self, memory: Memory) -> Memory:
        return self.controller.foresee(memory)

    def miss(self, memory: Memory, relax: bool) -> tuple[np.ndarray, Memory, int]:
        if relax:
            guard = memory.guard
            guard = guard._replace(failures=torch.full_like(guard.failures, guard.plan.shape[1]))
            memory = memory._replace(guard=guard, ready=None)
        action, memory, event = self.controller.miss(memory)
        return action[0], memory, int(event[0])

    def late(self, memory: Memory, planned: Memory, misses: int) -> Memory:
        """What acted meanwhile is taken to be what acts now."""
        for _ in range(misses):
            planned = self.controller.skip(planned, memory.guard.action.numpy())
        guard = GuardMemory(planned.guard.plan, planned.guard.failures + misses, memory.guard.action)
        return planned._replace(guard=guard, last_s=torch.full_like(planned.last_s, torch.nan))

    def interrupt(self, memory: Memory) -> Memory:
        nowhere = torch.full_like(memory.last_s, torch.nan)
        return memory._replace(last_s=nowhere, expected=nowhere, ready=None)

    def lines(self, memory: Memory) -> dict[str, np.ndarray]:
        """The torso under the plan, and the way it is to run: along x, as fast as it can."""
        plan = self.controller.expected(memory)[0, :, :3].double().numpy()
        return {"plan": plan, "reference": plan[0] + np.array([[0.0, 0.0, 0.0], [AHEAD, 0.0, 0.0]])}

    @property
    def others(self) -> dict[str, str]:
        return {}

    def fill_other(self, message: Any, action: np.ndarray) -> None:
        raise NotImplementedError("an ant's command has one form")


def ant(config: ControlConfig, weights: Path | None) -> AntBrain:
    """Raises CheckpointError, UsageError."""
    return AntBrain(make_controller(Ant(threads=1), config.controller, weights))


BRAINS: dict[str, Callable[[ControlConfig, Path | None], Brain]] = {"ant": ant, "quadrotor": quadrotor}


def adapter_of(config: ControlConfig) -> str:
    return config.controller.adapter if config.robot == "ant" else config.flight.adapter


def checkpoint_of(config: ControlConfig) -> tuple[Path, str]:
    """Whose weights act, and their SHA-256."""
    path = Path(config.weights) if config.weights else weights_of(config.robot, adapter_of(config))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()
