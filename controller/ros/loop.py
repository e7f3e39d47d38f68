"""The loop as a machine of events, without ROS, clocks or threads: the node feeds it as things happen, `replay` as they were recorded.

    begin(state) .. finish   a state came and its plan was made: the command is the plan's first action
    miss                     nothing usable came in time, or planning is not ready: the guard holds the last plan, then relaxes
    finish after a miss      late: the plan is not sent, but it is what the guard holds from now on, as old as it is

Every command is one row; rows in their order say everything that `replay` needs beside the states.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from controller.controller import Diagnostics
from controller.ros.convert import Label

STEP, MISS, LATE, RESET = range(4)  # kinds of rows
STATE, PLANNING, BAD_STATE, OPERATOR = range(4)  # why a command is not a fresh plan's
CAUSES = ("no state in time", "planning slower than the period", "unusable state", "held by the operator")
TOLERANCE = 0.3  # of a period: states further apart or closer are not one transition


class Brain(Protocol):
    """The controller's side of one robot: it reads the state's messages, steps, and writes the command. Pure but for `fill`."""

    @property
    def dt(self) -> float: ...  # [s]

    inputs: ClassVar[dict[str, str]]  # message types by topic; the first gives the stamp
    output: ClassVar[str]  # the command's message type

    def decode(self, messages: dict[str, Any]) -> np.ndarray:
        """-> (n_state,). Raises convert.BadMessage."""
        ...

    def fill(self, message: Any, action: np.ndarray, label: Label) -> None: ...
    def read(self, message: Any) -> np.ndarray:
        """The inverse of fill -> (n_action,) float32."""
        ...

    def rest(self) -> np.ndarray: ...  # (n_state,) a state to warm up on
    def init(self, seed: int) -> Any: ...
    def step(self, memory: Any, state: np.ndarray) -> tuple[np.ndarray, Any, Diagnostics]: ...
    def miss(self, memory: Any, relax: bool) -> tuple[np.ndarray, Any, int]:
        """A command without a new plan, memory, the guard's event. relax: do not follow the last plan even now."""
        ...

    def late(self, memory: Any, planned: Any, misses: int) -> Any:
        """The memory after `misses` misses, with what a step that began before them found out."""
        ...

    def interrupt(self, memory: Any) -> Any:
        """The next state does not follow the last one by one period."""
        ...


class Job(NamedTuple):
    memory: Any
    state: np.ndarray
    stamp: int  # [ns]
    received: int  # [ns]
    seq: int  # of the last command when it began
    epoch: int
    broken: bool


class Row(NamedTuple):
    """One event. nan where it has no such number. stamp is cut in two because a double cannot hold it."""

    run: float  # [ms] since the epoch: when this loop started
    seq: float  # of the last command
    kind: float  # STEP, MISS, LATE, RESET
    cause: float  # of a MISS
    begun: float  # STEP, LATE: seq when planning began
    broken: float  # STEP, LATE: 1 where the state does not follow the one before by one period
    stamp_sec: float  # of the state, or of the last one
    stamp_nanosec: float
    event: float  # the guard's, of guard.EVENTS
    error_before: float  # normalised, see Diagnostics
    error_after: float
    plan_cost: float
    adapt_ms: float
    plan_ms: float
    total_ms: float
    latency_ms: float  # last part of the state received -> command sent
    sent_s: float  # when the command was sent, on a clock of durations
    way_ms: float  # state stamped -> last part received, on two clocks where there are two hosts

    @property
    def stamp(self) -> int:
        return int(self.stamp_sec) * 1_000_000_000 + int(self.stamp_nanosec)


NAN = float("nan")


@dataclass
class Loop:
    """One robot's loop. run: a number [ms] that names it."""

    brain: Brain
    seed: int
    run: int
    seq: int = 0
    epoch: int = 0

    def __post_init__(self) -> None:
        self.memory = self.brain.init(self.seed)
        self.stamp = 0
        self._last: int | None = None

    @property
    def label(self) -> Label:
        return Label(self.run, self.seq, self.stamp)

    def begin(self, state: np.ndarray, stamp: int, received: int, broken: bool | None = None) -> Job:
        """broken overrides what the stamps say, for replay."""
        if broken is None:
            period = self.brain.dt * 1e9
            broken = self._last is None or abs(stamp - self._last - period) > TOLERANCE * period
        self._last = stamp
        memory = self.brain.interrupt(self.memory) if broken else self.memory
        return Job(memory, state, stamp, received, self.seq, self.epoch, broken)

    def finish(
        self, job: Job, planned: tuple[np.ndarray, Any, Diagnostics], now: int
    ) -> tuple[np.ndarray | None, Row | None]:
        """What brain.step(job.memory, job.state) gave -> the command to send, None where it is late, and the row."""
        action, memory, d = planned
        if job.epoch != self.epoch:  # reset meanwhile
            return None, None
        misses = self.seq - job.seq
        if misses:
            self.memory = self.brain.late(self.memory, memory, misses)
        else:
            self.memory, self.stamp = memory, job.stamp
            self.seq += 1
        row = self._row(
            LATE if misses else STEP, begun=job.seq, broken=job.broken, event=d.event[0], error_before=d.error_before[0],
            error_after=d.error_after[0], plan_cost=d.plan_cost[0], adapt_ms=d.adapt_ms, plan_ms=d.plan_ms, total_ms=d.total_ms,
            latency_ms=(now - job.received) / 1e6, way_ms=(job.received - job.stamp) / 1e6, stamp=job.stamp,
        )  # fmt: skip
        return (None if misses else action), row

    def miss(self, cause: int, stamp: int | None = None) -> tuple[np.ndarray, Row]:
        """stamp: of the unusable state that this answers, in lockstep."""
        action, self.memory, event = self.brain.miss(self.memory, cause == OPERATOR)
        self.seq += 1
        self.stamp = self.stamp if stamp is None else stamp
        return action, self._row(MISS, cause=cause, event=event)

    def pause(self) -> None:
        """The next state does not follow the last."""
        self._last = None

    def reset(self) -> Row:
        """Forget what was adapted; the command goes on from where it is."""
        self.memory = self.brain.late(self.memory, self.brain.init(self.seed), 0)
        self.epoch += 1
        self._last = None
        return self._row(RESET)

    def _row(self, kind: int, stamp: int | None = None, **known: float) -> Row:
        sec, nanosec = divmod(self.stamp if stamp is None else stamp, 1_000_000_000)
        values = dict.fromkeys(Row._fields, NAN) | known
        return Row(
            **values | {"run": self.run, "seq": self.seq, "kind": kind, "stamp_sec": sec, "stamp_nanosec": nanosec}
        )
