"""Real nodes in processes of their own, each test in a ROS domain of its own. Without ROS these tests are skipped, and say so."""

import itertools
import os
from pathlib import Path

import pytest

os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
_used = itertools.count()


@pytest.fixture(scope="module")
def domain() -> int:
    """1 to 100: beyond 101 the ports of Linux's clients begin."""
    return 1 + (os.getpid() * 13 + next(_used) * 29) % 100


@pytest.fixture(scope="session")
def recording(tmp_path_factory) -> Path:
    """Of tests/ros/lockstep.py. Nobody may write to it."""
    from lockstep import record

    return record(tmp_path_factory.mktemp("lockstep") / "bag", 1 + (os.getpid() * 13 + next(_used) * 29) % 100)
