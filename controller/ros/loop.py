"""The loop as a machine of events, without ROS, clocks or threads: the node feeds it as things happen, `replay` as they were recorded.

    begin(state) .. finish   a state came and its plan was made: the command is the plan's first action
    conclude                 then: what the command does not wait for
    miss                     nothing usable came in time, or planning is not ready: the guard holds the last plan, then relaxes
    prepare                  until the next state comes: what needs no new state; the next step is the same without, but takes longer
    foresee                  then: what a miss sends in the place of the last plan's next action
    finish after a miss      late: the plan is not sent, but it is what the guard holds from now on, as old as it is; after one miss alone a
                             brain may want it sent, where it was made for the time at which it is ready

Every command is one row; rows in their order say everything that `replay` needs beside the states.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from controller.controller import Diagnostics
from controller.guard import HOLD, RELAX
from controller.ros.acting import MOST, Acting, Timing
from controller.ros.convert import Label

STEP, MISS, LATE, RESET = range(4)  # kinds of rows
STATE, PLANNING, BAD_STATE, OPERATOR, GIVEN_UP = range(5)  # why a command is not a fresh plan's
CAUSES = (
    "no state in time", "planning slower than the period", "unusable state", "held by the operator",
    "its plan failed, or settings changed meanwhile",
)  # fmt: skip
FOLLOWS, BREAK, FIRST = range(
    3
)  # how a state follows the one before: by one period, not so, or of that one nothing is known
TOLERANCE = 0.3  # of a period: states further apart or closer are not one transition


class Brain(Protocol):
    """The controller's side of one robot: it reads the state's messages, steps, and writes the command. Pure but for `fill`."""

    @property
    def dt(self) -> float: ...  # [s]

    @property
    def inputs(self) -> dict[str, str]: ...  # message types by topic; the first gives the stamp

    output: ClassVar[str]  # the command's message type
    patience: ClassVar[
        float
    ]  # [periods] after a planned command until one goes out that no state asked for, if none has come
    thinking: ClassVar[float]  # and if one has, and its plan is not ready
    corrects: ClassVar[bool]  # whether a plan that is ready just after that goes out, too

    def decode(self, messages: dict[str, Any]) -> np.ndarray:
        """-> (n_state,). Raises convert.BadMessage."""
        ...

    def fill(self, message: Any, action: np.ndarray, label: Label) -> None: ...
    def read(self, message: Any) -> np.ndarray:
        """The inverse of fill -> (n_action,), of the action's type."""
        ...

    def rest(self) -> np.ndarray: ...  # (n_state,) a state to warm up on
    def init(self, seed: int) -> Any: ...
    def step(
        self, memory: Any, state: np.ndarray, stamp: int, timing: Timing | None
    ) -> tuple[np.ndarray, Any, Diagnostics]:
        """stamp: of the state [ns]. timing: which commands acted and will act before this one; None: this one acts at once."""
        ...

    def conclude(self, memory: Any) -> tuple[Any, dict[str, float]]:
        """What a step left for after its command -> a memory from which the next step is the same, and the columns of the row that are known now."""
        ...

    def prepare(self, memory: Any) -> Any:
        """A memory from which the next step is the same, and quicker."""
        ...

    def foresee(self, memory: Any) -> Any:
        """A memory that was prepared -> one from which the next step is the same, and a miss is better founded."""
        ...

    def miss(self, memory: Any, relax: bool) -> tuple[np.ndarray, Any, int]:
        """A command without a new plan, memory, the guard's event. relax: do not follow the last plan even now."""
        ...

    def late(self, memory: Any, planned: Any, misses: int) -> Any:
        """The memory after `misses` misses, with what a step that began before them found out."""
        ...

    def interrupt(self, memory: Any) -> Any:
        """The next state does not follow the last one by one period."""
        ...

    def lines(self, memory: Any) -> dict[str, np.ndarray]:
        """To be drawn after a step, by name: (n, 3) [m] in the odometry's frame."""
        ...

    @property
    def others(self) -> dict[str, str]:
        """The command in other forms, for where they are installed: message types by topic."""
        ...

    def fill_other(self, message: Any, action: np.ndarray) -> None: ...


class Job(NamedTuple):
    memory: Any
    state: np.ndarray
    stamp: int  # [ns]
    received: int  # [ns]
    seq: int  # of the last command when it began
    epoch: int
    broken: int  # FOLLOWS, BREAK or FIRST
    lead: int | None  # [ns] from the stamp until the command is expected to act; None: not taken into account
    timing: Timing | None
    prepare_ms: float  # NaN where nothing is prepared


class Row(NamedTuple):
    """One event. nan where it has no such number. stamp is cut in two because a double cannot hold it."""

    run: float  # [ms] since the epoch: when this loop started
    seq: float  # of the last command
    kind: float  # STEP, MISS, LATE, RESET
    cause: float  # of a MISS
    begun: float  # STEP, LATE: seq when planning began
    broken: float  # STEP, LATE: how the state follows the one before
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
    acts_us: float = float("nan")  # STEP, MISS: from the stamp until the command acts
    lead_us: float = float("nan")  # STEP, LATE: what was expected of it, where the state was predicted over it
    waited_ms: float = float("nan")  # STEP, LATE: of latency_ms, how long the planning thread had no core to run on
    prepare_ms: float = float("nan")  # STEP, LATE: before the state came, on what its plan began with
    stolen_ms: float = float("nan")  # STEP, LATE: meanwhile, what the hypervisor took of all cores, in units of 10
    arithmetic_us: float = float("nan")  # STEP, LATE: how long a piece of arithmetic took after it, always the same one

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
    command_way: int = 0  # [ns] from sent to acting

    def __post_init__(self) -> None:
        self.memory = self.brain.init(self.seed)
        self.stamp = 0
        self._last: int | None = None  # stamp of the last state planned from
        self._acting = Acting(round(self.brain.dt * 1e9))
        self._prepare_ms = NAN
        self._cause = STATE  # of the last miss

    @property
    def label(self) -> Label:
        return Label(self.run, self.seq, self.stamp)

    def begin(
        self,
        state: np.ndarray,
        stamp: int,
        received: int,
        lead: int | None = None,
        broken: int | None = None,
        seq: int | None = None,
    ) -> Job:
        """lead [ns]: predict the state over this time, None: do not. For replay, broken overrides what the stamps say, and seq is the last
        command that was known."""
        period = self.brain.dt * 1e9
        if broken is None:
            near = self._last is not None and abs(stamp - self._last - period) <= TOLERANCE * period
            broken = FIRST if self._last is None else FOLLOWS if near else BREAK
        if broken == FIRST:  # also where replay knows nothing of the pause before it
            self._last = None
        seq = self.seq if seq is None else seq
        timing = None
        if lead is not None:
            lead = lead // 1000 * 1000  # what a row can hold
            gap = 0 if self._last is None else stamp - self._last
            acted = tuple(self._acting.windows(stamp - gap, stamp, seq)) if 0 < gap < MOST * 1e9 else ()
            timing = Timing(acted, tuple(self._acting.windows(stamp, stamp + lead, seq)))
        memory = self.brain.interrupt(self.memory) if broken else self.memory
        took = self._prepare_ms if memory is self.memory else NAN
        return Job(memory, state, stamp, received, seq, self.epoch, broken, lead, timing, took)

    def plan(self, job: Job) -> tuple[np.ndarray, Any, Diagnostics]:
        """The step itself, which takes its time; it reads nothing that changes meanwhile."""
        return self.brain.step(job.memory, job.state, job.stamp, job.timing)

    def finish(
        self,
        job: Job,
        planned: tuple[np.ndarray, Any, Diagnostics],
        now: int,
        waited_ms: float = NAN,
        stolen_ms: float = NAN,
    ) -> tuple[np.ndarray | None, Row | None]:
        """What `plan` gave -> the command to send, None where it is late, and the row, for `conclude`. now [ns], on the clock of the stamps."""
        action, memory, d = planned
        if job.epoch != self.epoch:  # reset meanwhile
            return None, None
        if self._last is not None and job.stamp < self._last:  # the clock was set back
            self._acting.clear()
        self._last, self._prepare_ms = job.stamp, NAN
        misses = self.seq - job.seq
        # Predicted over the time until it acts, it is right now, and it knows more than what the guard sent just before it.
        sound = d.event[0] not in (HOLD, RELAX) and job.lead is not None
        if self.brain.corrects and misses == 1 and sound and self._cause != OPERATOR:
            misses = 0
        acts = NAN
        if misses:
            self.memory = self.brain.late(self.memory, memory, misses)
        else:
            self.memory, self.stamp = memory, job.stamp
            self.seq += 1
            acts = self._acts(now, action)
        row = self._row(
            LATE if misses else STEP, begun=job.seq, broken=job.broken, event=d.event[0], error_before=d.error_before[0],
            error_after=d.error_after[0], plan_cost=d.plan_cost[0], adapt_ms=d.adapt_ms, plan_ms=d.plan_ms, total_ms=d.total_ms,
            latency_ms=(now - job.received) / 1e6, way_ms=(job.received - job.stamp) / 1e6, stamp=job.stamp,
            acts_us=acts, lead_us=NAN if job.lead is None else job.lead // 1000, prepare_ms=job.prepare_ms, waited_ms=waited_ms,
            stolen_ms=stolen_ms,
        )  # fmt: skip
        return (None if misses else action), row

    def conclude(self, row: Row) -> Row:
        """After `finish`, when the command is out: its row, complete."""
        self.memory, known = self.brain.conclude(self.memory)
        return row._replace(**known)

    def take(self, memory: Any, ready: Any, took_ms: float) -> bool:
        """What brain.prepare made of `memory`. -> False where that is no longer the one in force."""
        if memory is not self.memory:
            return False
        if ready is not memory:
            self.memory, self._prepare_ms = ready, took_ms
        return True

    def foresee(self, ready: Any, foreseen: Any) -> None:
        """What brain.foresee made of `ready`. Likewise."""
        if ready is self.memory:
            self.memory = foreseen

    def miss(self, cause: int, stamp: int | None = None, now: int | None = None) -> tuple[np.ndarray, Row]:
        """stamp: of the unusable state that this answers, in lockstep. now [ns], on the clock of the stamps."""
        action, self.memory, event = self.brain.miss(self.memory, cause == OPERATOR)
        self._prepare_ms, self._cause = NAN, cause
        self.seq += 1
        self.stamp = self.stamp if stamp is None else stamp
        acts = NAN if now is None else self._acts(now, action)
        return action, self._row(MISS, cause=cause, event=event, acts_us=acts)

    def _acts(self, now: int, action: np.ndarray) -> int:
        """Note that the newest command acts from now and its way on -> since the stamp [us], to which the time is cut as rows hold it."""
        since = (now + self.command_way - self.stamp) // 1000
        self._acting.add(self.seq, self.stamp + 1000 * since, action)
        return since

    def pause(self) -> None:
        """The next state does not follow the last, and a plan that is being made is for nothing."""
        self._last = None
        self.epoch += 1

    def reset(self) -> Row:
        """Forget what was adapted; the command goes on from where it is."""
        self.memory = self.brain.late(self.memory, self.brain.init(self.seed), 0)
        self.epoch += 1
        self._last, self._prepare_ms = None, NAN
        return self._row(RESET)

    def _row(self, kind: int, stamp: int | None = None, **known: float) -> Row:
        sec, nanosec = divmod(self.stamp if stamp is None else stamp, 1_000_000_000)
        values = dict.fromkeys(Row._fields, NAN) | known
        return Row(
            **values | {"run": self.run, "seq": self.seq, "kind": kind, "stamp_sec": sec, "stamp_nanosec": nanosec}
        )
