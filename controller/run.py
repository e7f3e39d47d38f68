"""Episodes of a batch of robots under one controller, spread over threads."""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from controller.controller import Controller, Diagnostics, Memory
from robots.ant import Ant
from robots.condition import Schedule


class Record(NamedTuple):
    """b episodes of t steps."""

    s: np.ndarray  # (b, t + 1, s)
    a: np.ndarray  # (b, t, a)
    error_before: np.ndarray  # (b, t)
    error_after: np.ndarray  # (b, t)
    event: np.ndarray  # (b, t)
    adapt_ms: np.ndarray  # (t,) of the slowest slice of the batch
    step_ms: np.ndarray  # (t,)


class Fleet:
    """One controller over b robots, in as many slices as threads; each slice has its own memory. Where torch would spread one small
    product over threads it waits more than it works, so a thread takes whole robots instead."""

    def __init__(self, controller: Controller, seeds: Sequence[int], threads: int = 2):
        self.controller = controller
        edges = np.linspace(0, len(seeds), min(threads, len(seeds)) + 1).astype(int)
        self.slices = [slice(a, b) for a, b in itertools.pairwise(edges)]
        self.memories: list[Memory] = [controller.init(seeds[i]) for i in self.slices]
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def step(self, s: np.ndarray) -> tuple[np.ndarray, list[Diagnostics]]:
        """(b, s) -> actions (b, a), diagnostics of each slice."""

        def one(j: int) -> tuple[np.ndarray, Memory, Diagnostics]:
            return self.controller.step(self.memories[j], s[self.slices[j]])

        results = list(self._pool.map(one, range(len(self.slices))))
        self.memories = [r[1] for r in results]
        return np.concatenate([r[0] for r in results]), [r[2] for r in results]

    def restart(self, which: np.ndarray) -> None:
        """which (b,) bool: those robots start a new episode."""
        self.memories = [self.controller.restart(m, which[i]) for m, i in zip(self.memories, self.slices, strict=True)]

    def close(self) -> None:
        self._pool.shutdown()


def episodes(
    controller: Controller,
    robot: Ant,
    schedules: Sequence[Schedule],
    seeds: Sequence[int],
    steps: int,
    threads: int = 2,
    progress: Callable[[int, np.ndarray], None] | None = None,
) -> Record:
    """Run one episode for each (schedule, seed). Nothing terminates: a robot that has fallen goes on as it lies."""
    s = robot.reset([schedule.at(0) for schedule in schedules], seeds)
    fleet = Fleet(controller, seeds, threads)
    states, actions, rows = [s], [], []
    try:
        for t in range(steps):
            robot.conditions = [schedule.at(t) for schedule in schedules]
            action, d = fleet.step(s)
            s = robot.step(action)
            states.append(s)
            actions.append(action)
            rows.append(d)
            if progress is not None:
                progress(t, s)
    finally:
        fleet.close()

    def gather(name: str) -> np.ndarray:
        return np.stack([np.concatenate([getattr(d, name) for d in row]) for row in rows], 1)

    return Record(
        np.stack(states, 1), np.stack(actions, 1), gather("error_before"), gather("error_after"), gather("event"),
        np.array([max(d.adapt_ms for d in row) for row in rows]), np.array([max(d.total_ms for d in row) for row in rows]),
    )  # fmt: skip
