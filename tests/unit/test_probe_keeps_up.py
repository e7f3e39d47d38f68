"""The judge of the faults asks before every message whether plans came: what that costs must not grow with the minutes that it has run."""

from types import SimpleNamespace

import pytest

from controller.ros.loop import MISS, STEP, Row

pytest.importorskip("rclpy")
from controller.ros.bench import Probe

ZEROS = dict.fromkeys(Row._fields, 0.0)


class Counted(list):
    looked = 0

    def __reversed__(self):
        for x in super().__reversed__():
            self.looked += 1
            yield x

    def __iter__(self):
        for x in super().__iter__():
            self.looked += 1
            yield x


def row(at, kind=STEP, run=1):
    return float(at), Row(**ZEROS | {"kind": float(kind), "run": float(run)})


@pytest.mark.parametrize(
    ("new", "n", "after", "fresh"),
    [
        ([], 1, -1, False),
        ([row(1001), row(1002)], 3, -1, False),
        ([row(1001), row(1002), row(1003)], 3, -1, True),
        ([row(1001), row(1002, MISS), row(1003)], 3, -1, False),
        ([row(1001), row(1002, run=2), row(1003, run=2)], 2, 1, True),
        ([row(1001), row(1002), row(1003, run=2)], 2, 1, False),
    ],
)
def test_plans_since_then_are_counted_and_no_older_one_is_looked_at(new, n, after, fresh):
    rows = Counted([row(t) for t in range(1001)] + new)
    assert Probe.fresh(SimpleNamespace(rows=rows), 1000.0, n, after) is fresh  # pyright: ignore[reportArgumentType]
    assert rows.looked <= len(new) + 1
