"""Real nodes in processes of their own, each test in a ROS domain of its own. Without ROS these tests are skipped, and say so."""

import itertools
import os
import shutil
import subprocess
import sys
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


@pytest.fixture(scope="session")
def prefix(tmp_path_factory) -> Path:
    """sealegs installed as colcon installs it: share/sealegs, the ament index, and its executables in lib/sealegs."""
    source, prefix = tmp_path_factory.mktemp("source") / "sealegs", tmp_path_factory.mktemp("prefix")
    skip = shutil.ignore_patterns(
        ".*", "runs", "results", "docs", "tests", "benchmarks", "build", "*.egg-info", "__pycache__"
    )
    shutil.copytree(
        Path(__file__).parents[2], source, ignore=skip
    )  # a build folder of before would be installed with the rest
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    # Without --ignore-installed the one that is being tested would be taken away.
    subprocess.run([*pip, "--ignore-installed", "--prefix", str(prefix), str(source)], check=True)
    (prefix / "lib/sealegs").symlink_to(prefix / "bin")  # where setup.cfg has colcon put them
    return prefix


@pytest.fixture(scope="session")
def installed(prefix) -> dict[str, str]:
    """The environment that a workspace's setup file makes of it."""
    modules = next(prefix.rglob("controller/__init__.py")).parents[1]
    return os.environ | {
        "AMENT_PREFIX_PATH": os.pathsep.join([str(prefix), os.environ.get("AMENT_PREFIX_PATH", sys.prefix)]),
        "PYTHONPATH": os.pathsep.join([str(modules), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
