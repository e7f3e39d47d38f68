"""Faults that load the processor themselves: a planner that is too slow, a recorder that starts, and whose disk gives up.

Planner, recorder and watchdog share two processors with whatever else runs, and wait for them: 20 to 320 ms were seen. At a twentieth of real
time that is little against the half period between the watchdog's deadline and the limit.
"""

import time
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; valid: pip install 'sealegs[ros]'")

from controller.ros.bench import Bench
from controller.ros.faults import TRIALS, disk_full, folder_gone
from controller.ros.loop import MISS, PLANNING


@pytest.fixture(scope="module")
def bench(tmp_path_factory, domain) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("bench"), domain, speed=0.05)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def running(bench):
    bench.running()


@pytest.mark.parametrize("fault", ["disk-full", "folder-gone"])
def test_a_recorder_without_its_disk_says_so_and_nobody_else_notices(bench, fault):
    rng = np.random.default_rng(1)
    try:
        outcome = disk_full(bench, rng, kib=70) if fault == "disk-full" else folder_gone(bench, rng)
    except PermissionError as e:
        pytest.skip(str(e))
    assert outcome.safe, outcome
    assert outcome.recovered, outcome


def test_planning_slower_than_the_period_is_answered_for(bench):
    at = time.monotonic()
    outcome = TRIALS["slow"](bench, np.random.default_rng(1))
    rows = [r for t, r in bench.probe.rows if t > at]
    assert any(r.kind == MISS and r.cause == PLANNING for r in rows)
    assert outcome.safe, outcome
    assert outcome.recovered, outcome
