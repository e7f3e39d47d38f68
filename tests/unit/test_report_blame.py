"""hil-report tells what made a plan late: no core, a slow core, or the program."""

import numpy as np
import pytest

from controller.ros.loop import LATE, STEP, Row
from controller.ros.report import _timing

DT = 0.01
SOUND = dict.fromkeys(Row._fields, 0.0) | {"latency_ms": 3.0, "arithmetic_us": 5.0}


def timing(**late):
    rows = [Row(**SOUND | {"kind": float(STEP), "seq": float(i), "sent_s": i * DT}) for i in range(9)]
    rows.append(Row(**SOUND | {"kind": float(LATE), "seq": 9.0, "sent_s": 9 * DT, "latency_ms": 12.0} | late))
    return _timing(rows, DT, False)


@pytest.mark.parametrize(
    ("late", "with_a_core", "at_usual_speed"),
    [
        ({}, 1, 1),
        ({"waited_ms": 3.0}, 0, 0),
        ({"stolen_ms": 10.0}, 0, 0),
        ({"arithmetic_us": 9.0}, 1, 0),
        ({"arithmetic_us": 5.5}, 1, 1),
        ({"arithmetic_us": 1.0}, 1, 1),  # a quick core makes nothing later
        ({"arithmetic_us": np.nan}, 1, 1),
    ],
)
def test_what_made_a_plan_late(late, with_a_core, at_usual_speed):
    found = timing(**late)
    assert found["deadline_misses"] == 1
    assert found["deadline_misses_with_a_core"] == with_a_core
    assert found["deadline_misses_at_usual_speed"] == at_usual_speed


def test_a_recording_of_before_tells_of_no_speed():
    rows = [Row(**SOUND | {"kind": float(STEP), "latency_ms": 12.0, "arithmetic_us": np.nan})]
    found = _timing(rows, DT, False)
    assert found["deadline_misses"] == found["deadline_misses_at_usual_speed"] == 1
