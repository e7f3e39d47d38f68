"""The oracle: the same planner on the true simulator, told the damage. A reference for offline use; it does not run in real time.

Imagined steps use semi-implicit Euler with fewer solver iterations (about three times faster than the robot's RK4).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from controller.run import Record
from planners.planner import Cost, Terminal
from planners.shooting import Shooting
from robots.ant import Ant, physics
from robots.condition import Schedule


def episodes(
    robot: Ant,
    planner: Shooting,
    schedules: Sequence[Schedule],
    seeds: Sequence[int],
    steps: int,
    cost: Cost | None = None,
    terminal: Terminal | None = None,
    threads: int = 2,
    progress: Callable[[int, np.ndarray], None] | None = None,
) -> Record:
    """As controller.run.episodes. cost: the robot's own where it is None."""
    imagined = physics(threads, fast=True)
    s = robot.reset([schedule.at(0) for schedule in schedules], seeds)
    b = len(seeds)
    rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
    memory = planner.init(b)
    states, actions = [s], []

    def predict(s: Tensor, a: Tensor) -> Tensor:
        n = s.shape[1]
        raw = imagined.join(*robot.space.to_mujoco(s.double().numpy().reshape(b * n, -1)))
        conditions = [c for c in robot.conditions for _ in range(n)]
        after = imagined.run(raw, a.double().numpy().reshape(b * n, 1, -1), conditions)[:, 0]
        return torch.as_tensor(robot.observe(after).reshape(b, n, -1), dtype=torch.float32)

    for t in range(steps):
        robot.conditions = [schedule.at(t) for schedule in schedules]
        plan, memory = planner.plan(
            memory, predict, torch.as_tensor(s, dtype=torch.float32), cost or robot.cost, rngs, terminal
        )
        action = plan.actions[:, 0].numpy()
        s = robot.step(action)
        states.append(s)
        actions.append(action)
        if progress is not None:
            progress(t, s)
    imagined.close()
    nan = np.full((b, steps), np.nan)
    zero = np.zeros((b, steps), np.int64)
    return Record(
        np.stack(states, 1), np.stack(actions, 1), nan, nan, zero, np.full(steps, np.nan), np.full(steps, np.nan)
    )
