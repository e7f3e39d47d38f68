"""A bad network between robot and controller, in one process on a simulated clock: what delay, jitter and loss cost, without the machine's noise.

    python -m controller.ros.links --delay-ms 20 --jitter-ms 10 --drop 0.05 --seeds 100 101 102

The nodes' own parts (intake, loop, brain, plant), with events in the place of threads and DDS. A message is delayed, reordered and lost by itself,
as the robot node's relay does it; planning and preparing take a fixed time. The same settings give the same run again.
"""

import heapq
import itertools
import json
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import torch
import tyro

from controller.config import ControllerConfig
from controller.guard import BLIND
from controller.ros.brains import BRAINS
from controller.ros.controller_config import ControlConfig, real_time
from controller.ros.delays import MS, blank
from controller.ros.flight_config import FlightConfig
from controller.ros.intake import Ignored, Intake
from controller.ros.loop import PLANNING, STATE, Loop
from controller.ros.plants import PLANTS
from controller.ros.robot_config import OVERTAKEN, SILENCE, RobotConfig

PLANNING_MS = {"ant": 9.0, "quadrotor": 0.7}
TIMED = 20  # plans whose median tells how long the next one will take


@dataclass(frozen=True)
class LinksConfig:
    """One line of JSON a seed: the quadrotor's RMS distance from its path [mm], or the ant's mean forward speed [m/s], from second 1 on, and
    what became of states and commands."""

    delay_ms: float = 20.0
    jitter_ms: float = 10.0
    """standard deviation"""
    drop: float = 0.05
    """probability that a message is lost"""
    both_ways: bool = False
    """commands, too, and the controller is told their mean delay"""
    repeat_commands: int = 0
    max_delay_ms: float = ControlConfig.max_delay_ms
    planning_ms: float = -1.0
    """and as long to prepare the next plan; by default 0.7 of the quadrotor, 9 of the ant"""
    condition: str = ""
    seeds: tuple[int, ...] = (100, 101, 102)
    duration: float = 4.0
    """[s]"""
    robot: Literal["ant", "quadrotor"] = "quadrotor"
    controller: ControllerConfig = field(default_factory=real_time)
    """of the ant"""
    flight: FlightConfig = field(default_factory=FlightConfig)
    """of the quadrotor"""


class Link:
    """Robot and controller, and what is on its way between them. now [ns]."""

    def __init__(self, c: LinksConfig, seed: int):
        control = ControlConfig(robot=c.robot, seed=seed, controller=c.controller, flight=c.flight)
        self.c, self.brain = c, BRAINS[c.robot](control, None)
        self.plant = PLANTS[c.robot](RobotConfig(robot=c.robot, seed=seed, flight=c.flight))
        self.schedule = self.plant.conditions(c.condition)
        self.plant.reset(self.schedule.at(0), seed)
        self.period = round(1e9 * self.brain.dt)
        self.loop = Loop(self.brain, seed, 0, command_way=round(c.delay_ms * MS) if c.both_ways else 0)
        self._takes = round(MS * (c.planning_ms if c.planning_ms >= 0 else PLANNING_MS[c.robot]))
        slop, most = round(control.slop_ms * MS), round(c.max_delay_ms * MS)
        self._intake = Intake(tuple(self.brain.inputs), self.period, slop, most)
        self._state_rng, self._command_rng = (np.random.default_rng([seed, i]) for i in (1, 2))
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order, self.counts = itertools.count(), Counter()
        self.now = 0
        self._job: tuple[np.ndarray, int, int] | None = None
        self._busy = self._planning = False
        self._took: deque[int] = deque(maxlen=TIMED)
        self._origin: int | None = None  # stamp of the first state that was planned from: there the reference begins
        self._sent = 0  # commands, so that a watchdog knows whether another one came
        self._action: np.ndarray | None = None
        self._seq, self._heard, self._obeyed = -1, -1, -1

    def _at(self, time: int, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), do))

    def _send(self, rng: np.random.Generator, bad: bool, do: Callable[[], None]) -> None:
        if bad and rng.random() < self.c.drop:
            self.counts["lost"] += 1
            return
        late = self.c.delay_ms + self.c.jitter_ms * rng.standard_normal() if bad else 0.0
        self._at(self.now + max(0, round(late * MS)), do)

    # --- the controller

    def _receive(self, topic: str, message: Any, stamp: int) -> None:
        taken = self._intake.add(topic, stamp, self.now, message)
        if isinstance(taken, Ignored):
            self.counts[taken.reason] += 1
        elif taken is not None:
            self.counts["used"] += 1
            self._job = (self.brain.decode(taken.messages), taken.stamp, self.now)
            if not self._busy:
                self._plan()

    def _plan(self) -> None:
        self._busy = self._job is not None
        if self._job is None:
            return
        (state, stamp, received), self._job, begun = self._job, None, self.now
        self._origin = stamp if self._origin is None else self._origin
        lead = begun - stamp + round(float(np.median(self._took)) if self._took else 0) + self.loop.command_way
        job = self.loop.begin(state, stamp, received, lead)
        planned, takes = self.loop.plan(job), self._takes
        self._planning = True

        def finish() -> None:
            self._planning = False
            self._took.append(self.now - begun)
            action, _ = self.loop.finish(job, planned, self.now)
            if action is not None:
                self._command(action, True)
            memory = self.loop.memory
            ready = self.brain.prepare(memory)
            self._at(self.now + takes, lambda: self._prepared(memory, ready))

        self._at(begun + takes, finish)

    def _prepared(self, memory: Any, ready: Any) -> None:
        if self.loop.take(memory, ready, self._takes / MS) and self._job is None:
            foreseen = self.brain.foresee(ready)
            if foreseen is not ready:
                return self._at(self.now + self._takes, lambda: self._foreseen(ready, foreseen))
        self._plan()

    def _foreseen(self, ready: Any, foreseen: Any) -> None:
        self.loop.foresee(ready, foreseen)
        self._plan()

    def _command(self, action: np.ndarray, planned: bool) -> None:
        message = SimpleNamespace(layout=SimpleNamespace(dim=[]), data=[])
        self.brain.fill(message, action, self.loop.label)
        seq, wanted = self.loop.seq, self.plant.read(message)
        n = self.c.repeat_commands
        for i in range(n + 1):
            self._at(self.now + i * self.period // (n + 1), lambda: self._transmit(seq, wanted))
        self._sent += 1
        sent = self._sent
        patience = self.brain.patience if planned else 1.0
        self._at(self.now + round(patience * self.period) + 1, lambda: self._check(sent, planned))

    def _transmit(self, seq: int, action: np.ndarray) -> None:
        if seq == self.loop.seq:  # else another one is on its way
            self._send(self._command_rng, self.c.both_ways, lambda: self._obey(seq, action))

    def _check(self, sent: int, planned: bool) -> None:
        if sent != self._sent:
            return
        thinking, more = self._planning or self._job is not None, self.brain.thinking - self.brain.patience
        if planned and thinking and more > 0:  # a plan that is being made is waited for a little longer
            return self._at(self.now + round(more * self.period), lambda: self._check(sent, False))
        self.counts["missed"] += 1
        action, row = self.loop.miss(PLANNING if thinking else STATE, None, self.now)
        self.counts["blind"] += row.event == BLIND
        self._command(action, False)

    # --- the robot

    def _obey(self, seq: int, action: np.ndarray) -> None:
        if seq > self._seq:
            self._seq, self._action, self._obeyed = seq, action, self.now
        if self._seq - seq < OVERTAKEN and self.now - self._obeyed < OVERTAKEN * self.period:
            self._heard = self.now

    def _publish(self, stamp: int) -> np.ndarray:
        """-> where it is (3,)"""
        messages = {topic: blank(kind) for topic, kind in self.plant.outputs.items()}
        self.plant.fill(messages, stamp, lambda what, x: x)
        for topic, message in messages.items():
            self._send(self._state_rng, True, lambda topic=topic, message=message: self._receive(topic, message, stamp))
        return self.brain.decode(messages)[:3]

    def run(self) -> float:
        """-> the score: root mean square distance from the path [m], or mean forward speed [m/s]. The robot stays put until its first command
        comes."""
        steps, grain, places, k = round(self.c.duration / self.brain.dt), self.period // self.plant.substeps, [], 0
        for tick in itertools.count():
            target = tick * grain
            while self._events and self._events[0][0] <= target:
                self.now, _, do = heapq.heappop(self._events)
                do()
            self.now, moving = target, self._heard >= 0
            if tick % self.plant.substeps == 0:
                k += tick > 0 and moving
                places.append(self._publish(target))
                if k >= steps:
                    break
            if moving:
                silent = target + grain - self._heard > SILENCE * self.period
                self.counts["silent"] += silent
                self.plant.substep(None if silent else self._action, self.schedule.at(k))
        if self.c.robot == "ant":
            run = places[round(1 / self.brain.dt) :]
            return float((run[-1][0] - run[0][0]) / (self.brain.dt * (len(run) - 1)))
        t = np.arange(len(places)) * self.brain.dt - (self._origin or 0) / 1e9
        off = np.array(places) - self.plant.asked(np.maximum(t, 0.0))
        return float(np.sqrt(np.mean(np.sum(off[round(1 / self.brain.dt) :] ** 2, 1))))


def main() -> None:
    c = tyro.cli(LinksConfig)
    torch.set_num_threads(1)
    for seed in c.seeds:
        link = Link(c, seed)
        score = link.run()
        said = {"speed": round(score, 3)} if c.robot == "ant" else {"rmse_mm": round(1e3 * score, 3)}
        print(json.dumps({"seed": seed, **said, **link.counts}), flush=True)


if __name__ == "__main__":
    main()
