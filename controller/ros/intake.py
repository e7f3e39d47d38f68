"""Which states may be acted on: pairs of messages of one moment, newer than the last, and not late.

    pairing      one message of every topic, stamps within `slop` of each other
    repeated     a stamp that was taken already: ignored
    reordered    older than the last taken: ignored
    early        less than 3/4 of a period after the last: ignored, so a source may publish faster than we control
    late         its way here took more than `max_delay` longer than the quickest of the last N did: ignored, until PATIENCE
                 of them have come in a row
    clock jump   a stamp more than JUMP off from where it should be, or OLDER of them in a row that are older than the last taken, each newer than
                 the one before: a new time line, and nothing is compared across it

Clocks need not agree: only changes of (received - stamp) count. Nothing here needs ROS.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

JUMP = 1.0  # [s]; no message is this late and still on its way
PATIENCE = 60  # late states in a row, after which the clocks are taken to have moved
OLDER = 8  # states in a row that a network would have had to hold back together, after which the clock was set back
RECENT = 20  # states over which the quickest way here is remembered
KEPT = 0.25  # [s] at least for which a message waits for the others of its moment
MOST_KEPT = 512  # of each topic


class Taken(NamedTuple):
    messages: dict[str, Any]  # by topic
    stamp: int  # [ns]
    received: int  # [ns], of its last part
    jumped: bool


class Ignored(NamedTuple):
    reason: str  # repeated, reordered, early, late
    stamp: int


@dataclass
class Intake:
    """topics that make a state, the first of which gives its stamp. period, slop and max_delay in ns; 0 of max_delay: never late."""

    topics: tuple[str, ...]
    period: int
    slop: int
    max_delay: int
    last: int | None = None
    _late: int = 0
    _older: list[int] = field(
        default_factory=list
    )  # stamps, ascending, that came in a row and are older than the last taken
    _waiting: dict[str, deque[tuple[int, Any]]] = field(default_factory=dict)
    _ways: deque[int] = field(default_factory=lambda: deque(maxlen=RECENT))

    def add(self, topic: str, stamp: int, received: int, message: Any) -> Taken | Ignored | None:
        """One more message; None while parts of its state are missing."""
        # By time and not by number: one topic may be much quicker than another, and the slower one late.
        keep = max(int(KEPT * 1e9), self.max_delay + self.slop)
        kept = [x for x in self._waiting.get(topic, ()) if abs(x[0] - stamp) <= keep]
        self._waiting[topic] = deque([*kept, (stamp, message)], maxlen=MOST_KEPT)
        parts = {}
        for name in self.topics:
            near = [(abs(at - stamp), at, m) for at, m in self._waiting.get(name, ()) if abs(at - stamp) <= self.slop]
            if not near:
                return None
            parts[name] = min(near, key=lambda x: x[0])[1:]
        for name, (at, _) in parts.items():  # a message is used once
            self._waiting[name] = deque((x for x in self._waiting[name] if x[0] != at), maxlen=MOST_KEPT)
        return self._judge({name: m for name, (_, m) in parts.items()}, parts[self.topics[0]][0], received)

    def _judge(self, messages: dict[str, Any], stamp: int, received: int) -> Taken | Ignored:
        way, jump = received - stamp, int(JUMP * 1e9)
        quickest = min(self._ways, default=way)
        jumped = (
            abs(way - quickest) > jump or (self.last is not None and self.last - stamp > jump) or self._set_back(stamp)
        )
        if jumped:
            self._ways.clear()
            quickest = way
        elif self.last is not None and stamp <= self.last:
            return Ignored("repeated" if stamp == self.last else "reordered", stamp)
        elif self.last is not None and stamp - self.last < 0.75 * self.period:
            return Ignored("early", stamp)
        if self.max_delay and way - quickest > self.max_delay:
            self._late += 1
            if self._late < PATIENCE:
                return Ignored("late", stamp)
            self._ways.clear()  # nothing else has come for long: the clocks have moved against each other
            jumped = True
        self._ways.append(way)
        self._late, self._older = 0, []
        self.last = stamp
        return Taken(messages, stamp, received, jumped)

    def _set_back(self, stamp: int) -> bool:
        """Whether this one is the OLDER-th in a row of an older time line."""
        if self.last is None or stamp >= self.last:
            self._older = []
        elif not self._older or stamp > self._older[-1]:
            self._older.append(stamp)
        return len(self._older) >= OLDER

    def waits_for(self) -> str:
        """Why no state has become whole lately, in words; "" where no message waits for another."""
        waiting = {name: [at for at, _ in self._waiting.get(name, ())] for name in self.topics}
        came, silent = ([n for n in self.topics if bool(waiting[n]) == there] for there in (True, False))
        if not came or len(self.topics) == 1:
            return ""
        if silent:
            return f"{', '.join(came)} came, and nothing on {', '.join(silent)}"
        first, *others = self.topics
        apart, name = max((min(abs(x - y) for x in waiting[first] for y in waiting[name]), name) for name in others)
        return f"stamps of {first} and {name} are {apart / 1e6:.1f} ms apart at least; valid: slop_ms ({self.slop / 1e6:g}) or less"

    def forget(self) -> None:
        """Start over, as when control starts."""
        self.last = None
        self._older = []
        self._waiting.clear()
        self._ways.clear()
