"""Episodes of quadrotors on a reference trajectory under one controller."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from controller.baselines.baseline import Baseline
from robots.bodies import LOAD
from robots.quadrotor import Quadrotor
from robots.quadrotor_condition import Condition
from robots.schedule import Schedule
from robots.trajectory import Reference, Trajectory


class Flight(NamedTuple):
    """b episodes of t steps. Positions are those of what tracks: vehicle or payload."""

    position: np.ndarray  # (b, t + 1, 3) [m]
    wanted: np.ndarray  # (b, t + 1, 3) [m]
    states: np.ndarray  # (b, t + 1, s)
    commands: np.ndarray  # (b, t, 4) [N], [rad/s]
    crashed: np.ndarray  # (b,) bool
    step_ms: np.ndarray  # (t,) of the controller, for the whole batch
    load: np.ndarray  # (b, t + 1, 3) of the payload, hooked on or not [m]
    # What a learned controller says of itself; NaN of one that does not.
    error_before: np.ndarray  # (b, t) one-step prediction error of theta, normalised
    error_after: np.ndarray  # (b, t) and of phi
    adapt_ms: np.ndarray  # (t,) for the whole batch

    @property
    def error(self) -> np.ndarray:
        """(b, t + 1) distance from the reference [m]; NaN where the payload tracks and there is none."""
        return np.linalg.norm(self.position - self.wanted, axis=-1)

    def rmse(self, start: int = 0) -> np.ndarray:
        """(b,) root mean square of the error from step `start` on [m]."""
        return np.sqrt(np.nanmean(self.error[:, start:] ** 2, 1))


def fly(
    controller: Baseline,
    robot: Quadrotor,
    trajectories: Sequence[Trajectory],
    schedules: Sequence[Schedule[Condition]],
    seeds: Sequence[int],
    steps: int,
    target: str = "vehicle",
    progress: Callable[[int], None] | None = None,
) -> Flight:
    """One episode for each (trajectory, schedule, seed), which start where the trajectory does; where the payload tracks, a cable's length
    above. A vehicle that crashes lies where it is; nothing terminates. Of a controller whose memory carries `diagnostics`, a tuple with
    error_before (b,), error_after (b,) and adapt_ms, these are recorded."""
    b, dt = len(seeds), robot.dt
    starts = np.array([path.at(np.zeros(1)).p[0] for path in trajectories])
    conditions = [schedule.at(0) for schedule in schedules]
    if target == "payload":
        starts[:, 2] += [c.payload[1] if c.payload else 0.0 for c in conditions]
    s = robot.reset(conditions, seeds, starts)
    # The whole reference once: a step only takes a window of it.
    t = np.arange(steps + 1 + controller.preview) * dt
    whole = Reference(*(np.stack(x) for x in zip(*(path.at(t) for path in trajectories), strict=True)))
    memory = controller.init(b)
    states, commands, positions, step_ms = [s], [], [_tracked(robot, s, target)], []
    loads, told = [_load(robot)], []
    for i in range(steps):
        robot.conditions = [schedule.at(i) for schedule in schedules]
        window = Reference(*(x[:, i : i + 1 + controller.preview] for x in whole))
        start = time.perf_counter()
        command, memory = controller.step(s, window, memory)
        step_ms.append(1e3 * (time.perf_counter() - start))
        s = robot.step(robot.vehicle.action(command))
        states.append(s)
        commands.append(command)
        positions.append(_tracked(robot, s, target))
        loads.append(_load(robot))
        told.append(getattr(memory, "diagnostics", None))
        if progress is not None:
            progress(i + 1)
    return Flight(
        np.stack(positions, 1), whole.p[:, : steps + 1], np.stack(states, 1), np.stack(commands, 1), robot.crashed.copy(),
        np.array(step_ms), np.stack(loads, 1), _told(told, "error_before", b), _told(told, "error_after", b),
        np.array([getattr(d, "adapt_ms", np.nan) for d in told]),
    )  # fmt: skip


def _load(robot: Quadrotor) -> np.ndarray:
    return robot.bodies.qpos[:, LOAD].copy()


def _told(diagnostics: list[Any], name: str, b: int) -> np.ndarray:
    """-> (b, t)"""
    return np.stack([np.broadcast_to(getattr(d, name, np.nan), (b,)) for d in diagnostics], 1)


def _tracked(robot: Quadrotor, s: np.ndarray, target: str) -> np.ndarray:
    return s[:, :3].copy() if target == "vehicle" else robot.payload()[:, :3]
