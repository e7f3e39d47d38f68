"""The quadrotor's controller behind messages.

In: Odometry of the vehicle (twist in its own frame) and, where the payload is seen, its position as a PointStamped: in the odometry's frame, or in
the vehicle's, where (0, 0, 0) says that nothing hangs there. Out: Float64MultiArray, collective thrust [N] and body rates [rad/s].

What robots.space.Flying wants beside is found here: the thrust that the rotors give by now follows from the commands, and the payload's velocity
from its last positions.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from controller import flyer
from controller.baselines.baseline import rotation, turn
from controller.controller import Diagnostics
from controller.flyer import Flyer
from controller.guard import GuardMemory
from controller.make_flyer import make_flyer
from controller.ros import convert
from controller.ros.acting import Timing
from controller.ros.controller_config import ControlConfig
from controller.ros.flight_config import make_robot, make_trajectory
from controller.ros.topics import PAYLOAD, TOPICS
from robots.space import quaternion_to_rotation
from robots.trajectory import Reference, Trajectory
from robots.vehicle import Vehicle

AWAY = 100.0  # periods without a state, after which the reference has waited
GAP_S = 0.1  # [s]; older positions of the payload say nothing about its velocity
WHOLE = 1e-3  # periods; less is missing from what is known to have acted only by rounding
AROUND = 120  # points of the path that is drawn
IGNORE_ATTITUDE = 128  # of mavros_msgs/AttitudeTarget's type_mask
N_BASE = 15  # p, f, u, v, w of robots.space.Flying

Seen = tuple[int, np.ndarray]  # stamp [ns], payload minus vehicle in the world (3,) [m]


class Memory(NamedTuple):
    pilot: flyer.Memory
    thrust: float  # Flying's T [N]
    at: float  # where the reference is [periods since its start]
    stamp: int | None  # of the last state
    held: bool  # by the operator since then: the reference waits
    seen: tuple[Seen, ...]  # the last positions of the payload, the newest last, at most two
    missed: bool = False  # commands without a plan went out since the last state


@dataclass(frozen=True)
class QuadrotorBrain:
    """State (15,), or (18,) with the payload seen: Flying's p, f, u, v, w, and the payload's position less the vehicle's in the world, 0 without
    one. Action: the command (4,) [N], [rad/s]."""

    pilot: Flyer
    vehicle: Vehicle
    path: Trajectory
    payload_seen: bool
    output: ClassVar[str] = TOPICS["quadrotor"].command
    # Without a state the guard has two periods, and a machine that stops just then takes most of one; a plan that is being made is soon there.
    patience: ClassVar[float] = 1.1
    thinking: ClassVar[float] = 1.2
    corrects: ClassVar[bool] = (
        False  # a held plan is as good, and a correction in the place of the next command is one less to get through
    )

    @property
    def dt(self) -> float:
        return self.vehicle.dt

    @property
    def inputs(self) -> dict[str, str]:
        return {t: kind for t, kind in TOPICS["quadrotor"].state.items() if self.payload_seen or kind != PAYLOAD}

    # --- messages

    def decode(self, messages: dict[str, Any]) -> np.ndarray:
        return decode_quadrotor(messages, self.payload_seen)

    def fill(self, message: Any, action: np.ndarray, label: convert.Label) -> None:
        convert.fill_command(message, action, label, convert.message_type("std_msgs/msg/MultiArrayDimension")())

    def read(self, message: Any) -> np.ndarray:
        return convert.command(message, 4)

    def rest(self) -> np.ndarray:
        start = self.path.at(np.zeros(1)).p[0]
        level = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
        return np.concatenate((start, level, np.zeros(6), [0.0, 0.0, -0.7] if self.payload_seen else []))

    # --- the loop

    def init(self, seed: int) -> Memory:
        return Memory(self.pilot.init(1), self.vehicle.hover_thrust_n, 0.0, None, False, ())

    def step(
        self, memory: Memory, state: np.ndarray, stamp: int, timing: Timing | None
    ) -> tuple[np.ndarray, Memory, Diagnostics]:
        begun = time.perf_counter()
        period = round(1e9 * self.dt)
        periods = 0.0 if memory.stamp is None else (stamp - memory.stamp) / period
        steady = memory.stamp is not None and 0 <= periods <= AWAY
        # What has acted since the last state, as far as it is known; without its times, the last command.
        acted = [(min(periods, AWAY), self._action(memory.pilot))] if timing is None else timing.acted
        thrust = rotors(self.vehicle, memory.thrust, acted) if steady else memory.thrust
        # The reference goes with the stamps; where they tell of no time that has passed, or the operator held it, by one period.
        at = memory.at + (0.0 if memory.stamp is None else periods if steady and not memory.held else 1.0)
        s, seen = flying(state, stamp, thrust, memory.seen, self.payload_seen)
        pilot, pending = memory.pilot, ()
        if timing is None and memory.missed:  # which command acted when is not known
            pilot = self.interrupt(memory).pilot
        if timing is not None:
            # Before its first command others act: of that there is nothing to learn, and the vehicle is taken to hover.
            if abs(sum(share for share, _ in timing.acted) - periods) > WHOLE:
                pilot = self.interrupt(memory).pilot
            pending = tuple((share, self.vehicle.action(action)[None]) for share, action in timing.pending)
            mean = self.vehicle.command(self.pilot.guard.safe.double().numpy())
            if timing.acted:
                weight = sum(share for share, _ in timing.acted)
                mean = sum((share / weight * a for share, a in timing.acted), np.zeros(4))
            action = torch.as_tensor(self.vehicle.action(mean)[None], dtype=torch.float32)
            pilot = pilot._replace(guard=pilot.guard._replace(action=action))
        lead = 0.0 if timing is None else timing.lead
        command, pilot = self.pilot.feedback(s[None], self.window(at + lead), pilot, pending)
        d = pilot.diagnostics
        told = Diagnostics(
            d.error_before, d.error_after, np.full(1, np.nan), d.event, d.adapt_ms, d.plan_ms, 1e3 * (time.perf_counter() - begun),
        )  # fmt: skip
        return command[0], Memory(pilot, thrust, at, stamp, False, seen), told

    def conclude(self, memory: Memory) -> tuple[Memory, dict[str, float]]:
        if memory.pilot.passed is None:
            return memory, {}
        pilot = self.pilot.conclude(memory.pilot)
        d = pilot.diagnostics
        told = {"error_before": d.error_before[0], "error_after": d.error_after[0], "adapt_ms": d.adapt_ms}
        return memory._replace(pilot=pilot), told

    def prepare(self, memory: Memory) -> Memory:
        return memory._replace(pilot=self.pilot.prepare(memory.pilot))

    def foresee(self, memory: Memory) -> Memory:
        return memory  # its plan says as much of its later steps

    def miss(self, memory: Memory, relax: bool) -> tuple[np.ndarray, Memory, int]:
        guard = memory.pilot.guard
        if relax:
            guard = guard._replace(failures=torch.full_like(guard.failures, guard.plan.shape[1]))
        action, guard, event = self.pilot.guard.step(guard, guard.plan, torch.zeros(1, dtype=torch.bool))
        pilot = memory.pilot._replace(guard=guard)
        memory = memory._replace(pilot=pilot, held=memory.held or relax, missed=True)
        return self.vehicle.command(action[0].double().numpy()), memory, int(event)

    def late(self, memory: Memory, planned: Memory, misses: int) -> Memory:
        made = planned.pilot.guard
        guard = GuardMemory(made.plan, made.failures + misses, memory.pilot.guard.action)
        pilot = planned.pilot._replace(guard=guard)
        if planned.stamp is None:  # forgotten, not planned: the vehicle and its reference are where they were
            return self.interrupt(memory._replace(pilot=pilot))
        return planned._replace(pilot=pilot, held=memory.held, missed=misses > 0)

    def interrupt(self, memory: Memory) -> Memory:
        pilot = memory.pilot
        nothing = {"last_s": np.full_like(pilot.last_s, np.nan), "seen_s": np.full_like(pilot.seen_s, np.nan)}
        return memory._replace(pilot=pilot._replace(**nothing))

    def lines(self, memory: Memory) -> dict[str, np.ndarray]:
        """The vehicle under the plan; what is asked for over the same time, and once around."""
        t = np.linspace(0.0, min(self.path.period, 60.0), AROUND)
        return {
            "plan": memory.pilot.planner.nodes[0, :, :3], "reference": self.window(memory.at).p[0],
            "path": self.path.at(t + 2 * self.path.period if np.isfinite(self.path.period) else t).p,
        }  # fmt: skip

    @property
    def others(self) -> dict[str, str]:
        return {"attitude_target": "mavros_msgs/msg/AttitudeTarget"}

    def fill_other(self, message: Any, action: np.ndarray) -> None:
        """mavros_msgs/AttitudeTarget: body rates in base_link [rad/s], thrust as a share of the largest (0 to 1); no attitude. What share of the
        largest thrust an autopilot's throttle gives is to be calibrated there."""
        message.header.frame_id = "base_link"
        message.type_mask = IGNORE_ATTITUDE
        convert.fill_xyz(message.body_rate, action[1:])
        message.thrust = float(action[0] / self.vehicle.thrust_max_n)

    def _action(self, pilot: flyer.Memory) -> np.ndarray:
        """-> (4,) the command that was sent last."""
        return self.vehicle.command(pilot.guard.action[0].double().numpy())

    # --- what it is to follow

    @cached_property
    def _ahead(self) -> np.ndarray:
        return np.arange(self.pilot.preview + 1)

    def window(self, at: float) -> Reference:
        """(1, preview + 1, 3) each, from `at` periods on."""
        return Reference(*(x[None] for x in self.path.at((at + self._ahead) * self.dt)))


def decode_quadrotor(messages: dict[str, Any], payload_seen: bool) -> np.ndarray:
    """-> (15,) or (18,), the brain's state. Raises convert.BadMessage."""
    odom = messages["odom"]
    base = convert.pose(odom)
    rot = quaternion_to_rotation(base.quaternion)
    state = np.concatenate((base.p, rot[0], rot[2], base.v, base.w))
    if not payload_seen:
        return state
    message = messages["payload"]
    at = message.point
    point = convert.finite("the payload's position", (at.x, at.y, at.z))
    frame, world, body = message.header.frame_id, odom.header.frame_id, odom.child_frame_id
    if frame not in (world, body):
        raise convert.BadMessage(
            f"the payload is in frame {frame!r}; valid: {world!r} or {body!r}, as the odometry says"
        )
    return np.concatenate((state, point - base.p if frame == world else rot @ point))


# --- what the state lacks


def rotors(vehicle: Vehicle, thrust: float, acted: Sequence[tuple[float, np.ndarray]]) -> float:
    """Flying's T [N], first order, over (periods, command)."""
    for periods, command in acted:
        wanted = vehicle.command(np.clip(vehicle.action(command), -1, 1))[0]
        thrust += (1 - math.exp(-periods * vehicle.dt / vehicle.rotor_time_constant_s)) * (wanted - thrust)
    return float(thrust)


def flying(
    state: np.ndarray, stamp: int, thrust: float, before: tuple[Seen, ...], payload_seen: bool
) -> tuple[np.ndarray, tuple[Seen, ...]]:
    """-> Flying's state (16,) or (22,), and the positions of the payload to remember: the next one's `before`."""
    s = np.append(state[:N_BASE], thrust)
    if not payload_seen:
        return s, ()
    apart = state[N_BASE:]
    if not apart.any():
        return np.append(s, np.zeros(6)), ()
    known = [(at, r) for at, r in before if 0 < stamp - at < 1e9 * GAP_S]
    inverse = rotation(s[None]).transpose(0, 2, 1)
    relative = slope([(stamp - at) / 1e9 for at, _ in known], [r for _, r in known], apart)
    s = np.concatenate((s, turn(inverse, apart[None])[0], turn(inverse, relative[None])[0]))
    return s, (*known, (stamp, apart))[-2:]


def slope(ages: Sequence[float], before: Sequence[np.ndarray], now: np.ndarray) -> np.ndarray:
    """The derivative now of the parabola (line, constant) through the newest value and at most two before it, the newest last, which are `ages` [s]
    old. On a swinging payload the line would be half a period late."""
    if not ages:
        return np.zeros_like(now)
    near = ages[-1]
    line = (now - before[-1]) / near
    if len(ages) == 1:
        return line
    far = ages[-2]
    return line + near * (line - (before[-1] - before[-2]) / (far - near)) / far


def quadrotor(config: ControlConfig, weights: Path | None) -> QuadrotorBrain:
    """Raises VehicleError, TrajectoryError, CheckpointError, UsageError."""
    flight = config.flight
    robot = make_robot(flight)
    path = make_trajectory(flight, robot, config.seed)
    return QuadrotorBrain(
        make_flyer(flight.adapter, robot, flight.target, weights), robot.vehicle, path, flight.payload_seen
    )
