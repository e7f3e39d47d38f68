"""The simulated quadrotor behind the messages of a real one: the other side of quadrotor_brain.

Where the payload is seen and none hangs there, it is at (0, 0, 0) of the vehicle's own frame.
"""

from typing import Any, ClassVar

import numpy as np

from controller.baselines.hold import Hold, Memory, velocity
from controller.ros import convert
from controller.ros.flight_config import make_robot, make_trajectory
from controller.ros.robot_config import RobotConfig
from controller.ros.shapes import Disturb, Shape
from controller.ros.topics import PAYLOAD, TOPICS
from robots.bodies import LOAD, QUATERNION, V_VEHICLE, VEHICLE
from robots.quadrotor_condition import Condition, Schedule, parse
from robots.space import FloatingBase, quaternion_to_rotation, rotation_to_quaternion
from robots.vehicle import ROTOR_X, ROTOR_Y, VehicleError

LINEAR, ANGULAR = FloatingBase(n_joints=0, n_action=0).velocity
UPRIGHT = np.array([1.0, 0.0, 0.0, 0.0])


class QuadrotorPlant:
    """Starts where the trajectory does; where the payload is to track, a cable's length above."""

    substeps: ClassVar[int] = 5
    input: ClassVar[str] = TOPICS["quadrotor"].command

    def __init__(self, config: RobotConfig) -> None:
        """Raises VehicleError, TrajectoryError."""
        self._flight = config.flight
        self._robot = make_robot(config.flight, config.engine)
        self._vehicle = self._robot.vehicle
        if self._vehicle.substeps % self.substeps:
            raise VehicleError(
                f"vehicle {self._vehicle.name!r} takes {self._vehicle.substeps} inner periods a control period; valid: a multiple of "
                f"{self.substeps}"
            )
        self._path = make_trajectory(config.flight, self._robot, config.seed)
        self._hold = Hold(self._vehicle)
        self._held: Memory | None = None  # while nobody commands
        self._before: np.ndarray | None = None  # velocity a substep ago (1, 3) [m/s]

    @property
    def dt(self) -> float:
        return self._vehicle.dt

    @property
    def outputs(self) -> dict[str, str]:
        topics = TOPICS["quadrotor"].state
        return {topic: kind for topic, kind in topics.items() if self._flight.payload_seen or kind != PAYLOAD}

    def conditions(self, text: str) -> Schedule[Condition]:
        return parse(text or "none", self._vehicle)

    def reset(self, condition: Condition, seed: int) -> None:
        start = self._path.at(np.zeros(1)).p.copy()
        if self._flight.target == "payload" and condition.payload:
            start[0, 2] += condition.payload[1]
        self._robot.reset([condition], [seed], start)
        self._held = self._before = None

    def step(self, action: np.ndarray, condition: Condition) -> None:
        self._robot.conditions = [condition]
        self._robot.step(action[None])

    def substep(self, action: np.ndarray | None, condition: Condition) -> None:
        self._robot.conditions = [condition]
        if action is None:
            action = self._stay()
        else:
            self._held, self._before = None, self._robot.bodies.qvel[:, V_VEHICLE].copy()
        self._robot.part(action[None], self._vehicle.substeps // self.substeps)

    def _stay(self) -> np.ndarray:
        """The autopilot's own command; it knows the vehicle's state, whatever is published."""
        state, dt = self._robot.state(), self._vehicle.dt / self.substeps
        if self._held is None:
            v = velocity(state)
            self._held = self._hold.init(state, (v - (v if self._before is None else self._before)) / dt)
        command, self._held = self._hold.step(state, self._held, dt)
        return self._vehicle.action(command[0]).clip(-1, 1)

    def fill(self, messages: dict[str, Any], stamp: int, disturb: Disturb) -> None:
        qpos, s = self._robot.bodies.qpos[0], self._robot.state()[0]
        for message in messages.values():
            convert.set_stamp(message, stamp)
        # The simulator's own quaternion goes out, so that the state which the controller makes of it is the simulator's to the bit.
        reading = convert.Pose(
            disturb("position", qpos[VEHICLE].copy()), disturb("orientation", qpos[QUATERNION].copy()),
            disturb("velocity", s[LINEAR]), disturb("rates", s[ANGULAR]),
        )  # fmt: skip
        convert.fill_pose(messages["odom"], reading)
        if "payload" in messages:
            hangs = self._robot.conditions[0].payload is not None
            messages["payload"].header.frame_id = "odom" if hangs else "base_link"
            where = disturb("position", qpos[LOAD].copy()) if hangs else np.zeros(3)
            convert.fill_xyz(messages["payload"].point, where)

    def read(self, message: Any) -> np.ndarray:
        return np.clip(self._vehicle.action(convert.command(message, 4)), -1, 1)

    def trouble(self) -> str:
        return (
            "the vehicle has crashed; its motors are off until the node starts again" if self._robot.crashed[0] else ""
        )

    def asked(self, t: np.ndarray) -> np.ndarray:
        """(n,) [s] since the start -> (n, 3) where the reference is [m]."""
        return self._path.at(t).p

    def shapes(self) -> list[Shape]:
        qpos, condition = self._robot.bodies.qpos[0], self._robot.conditions[0]
        p, rot, arm = qpos[VEHICLE].copy(), quaternion_to_rotation(qpos[QUATERNION]), self._vehicle.arm_m
        found = [Shape("sphere", p, UPRIGHT, np.array([0.25 * arm, 0.0]), False)]
        for x, y, gain in zip(ROTOR_X, ROTOR_Y, condition.gain, strict=True):
            end = p + rot @ (arm * np.array([x, y, 0.0]))
            found.append(_rod(p, end, 0.06 * arm, gain < 1))
            found.append(Shape("sphere", end, UPRIGHT, np.array([0.2 * arm, 0.0]), gain < 1))
        if condition.payload is not None:
            load = qpos[LOAD].copy()
            found += [Shape("sphere", load, UPRIGHT, np.array([0.25 * arm, 0.0]), False), _rod(p, load, 0.005, False)]
        return found


def _rod(a: np.ndarray, b: np.ndarray, radius: float, broken: bool) -> Shape:
    """From a to b (3,)."""
    length = float(np.linalg.norm(b - a))
    z = (b - a) / max(length, 1e-9)
    x = np.cross(z, [0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0])
    x /= np.linalg.norm(x)
    rot = np.stack((x, np.cross(z, x), z), 1)
    return Shape(
        "capsule", (a + b) / 2, rotation_to_quaternion(rot), np.array([radius, max(0.0, length / 2 - radius)]), broken
    )
