"""What the controller tells of every command on ~/telemetry: a row of numbers and, where it planned, the state that it planned from.

The state is in it because a recorder hears the robot by a way of its own: on a lossy network, and before it has found a robot that is started later,
it misses states that the controller acted on, and without them a recording could not be replayed.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from controller.config import UsageError
from controller.ros.convert import BadMessage
from controller.ros.loop import Row

STATE = "state"
NEEDED = set(Row._fields) - set(Row._field_defaults)


class Told(NamedTuple):
    """state: (n_state,) float64, as the brain decoded it; None where the row tells of no state, or a recording of before holds none."""

    row: Row
    state: np.ndarray | None


def fill(message: Any, row: Row, state: np.ndarray | None, dimension: Any) -> None:
    """Told -> Float64MultiArray, each number with a dimension that names it, and the state with one. dimension: MultiArrayDimension, the class."""
    message.layout.dim = [dimension(label=name, size=1, stride=1) for name in row._fields]
    message.data = [float(x) for x in row]
    if state is not None:
        message.layout.dim.append(dimension(label=STATE, size=len(state), stride=len(state)))
        message.data.extend(np.asarray(state, np.float64).tolist())


def read(message: Any) -> Told:
    """Raises BadMessage on what is no row. Numbers that this version's rows do not have are passed over."""
    sizes = [int(d.size) for d in message.layout.dim]
    if sum(sizes) != len(message.data):
        raise BadMessage(f"telemetry of {len(message.data)} numbers, labelled as {sum(sizes)}; wanted: as many of each")
    ends = np.cumsum(sizes)
    found = {
        d.label: message.data[end - size : end] for d, size, end in zip(message.layout.dim, sizes, ends, strict=True)
    }
    numbers = {name: float(found[name][0]) for name in Row._fields if len(found.get(name, ())) == 1}
    if lacking := NEEDED - set(numbers):
        raise BadMessage(f"telemetry without a number {min(lacking)!r}; wanted: those of controller/ros/loop.py, Row")
    return Told(Row(**numbers), np.array(found[STATE], np.float64) if STATE in found else None)


def recorded(path: Path, message: Any) -> Told:
    """Of the recording at `path`. Raises UsageError."""
    try:
        return read(message)
    except (BadMessage, AttributeError) as e:
        raise UsageError(f"{path} holds {e}; valid: a recording of this version") from None
