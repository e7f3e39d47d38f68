"""Which command acts when: what a state that comes late, and a plan that takes its time, must take into account.

    state stamped          received      planned: the command that answers it acts
    |----------------------|-------------|
    |<------------ lead ---------------->|     meanwhile the commands before it act

A command acts from when it is sent until the next one is. Times are on the clock of the state's stamps, so the hosts' clocks must agree to a
fraction of a period. The way of a command to the robot is not measured and counts as nothing. Nothing here needs ROS.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

MOST = 0.5  # [s]; a longer lead is two clocks that disagree, not a latency
KEPT = 200  # commands

Window = tuple[float, np.ndarray]  # periods (0 to 1), mean command over them (n_action,)


class Timing(NamedTuple):
    """acted: since the last state that was planned from; pending: from this state until the command that answers it acts."""

    acted: tuple[Window, ...]
    pending: tuple[Window, ...]

    @property
    def lead(self) -> float:
        """[periods]"""
        return sum(share for share, _ in self.pending)


@dataclass
class Acting:
    """The last commands, each with when it began to act [ns]."""

    period: int  # [ns]
    kept: int = KEPT

    def __post_init__(self) -> None:
        self._sent: deque[tuple[int, int, np.ndarray]] = deque(maxlen=self.kept)

    def add(self, seq: int, time: int, command: np.ndarray) -> None:
        self._sent.append((seq, time, np.array(command)))

    def clear(self) -> None:
        self._sent.clear()

    def windows(self, start: int, end: int, seq: int) -> Iterator[Window]:
        """From start to end [ns], a period at a time, of the commands up to number `seq`. Time before the first command counts as nothing."""
        known = [(time, command) for number, time, command in self._sent if number <= seq]
        first = max((i for i, (time, _) in enumerate(known) if time <= start), default=0)
        return windows(known[first:], start, end, self.period)


def windows(known: Sequence[tuple[int, np.ndarray]], start: int, end: int, period: int) -> Iterator[Window]:
    """known: (when it began to act, command) [ns], of which none but the first acts before `start`."""
    while start < end:
        stop = min(start + period, end)
        pieces = []
        for i, (time, command) in enumerate(known):
            until = known[i + 1][0] if i + 1 < len(known) else stop
            if (length := min(until, stop) - max(time, start)) > 0:
                pieces.append((length, command))
        if pieces:
            lengths, commands = zip(*pieces, strict=True)
            whole = sum(lengths)
            yield whole / period, commands[0] if len(pieces) == 1 else np.average(commands, 0, lengths)
        start = stop
