"""Whoever joins or leaves on the same host, nobody waits for them."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; valid: pip install 'sealegs[ros]'")

from controller.ros.bench import Bench


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nodes_share_no_memory_that_a_newcomer_could_hold_up(tmp_path, domain, monkeypatch):
    """Fast DDS's shared memory makes every publisher of a process wait for a newcomer's to be ready."""
    for name in ("FASTDDS_BUILTIN_TRANSPORTS", "FASTRTPS_DEFAULT_PROFILES_FILE", "ROS_STATIC_PEERS"):
        monkeypatch.delenv(name, raising=False)
    bench = Bench(tmp_path, domain, speed=0.2)
    try:
        for name, process in bench.nodes.processes.items():
            maps = Path(f"/proc/{process.pid}/maps").read_text()
            assert not [line for line in maps.splitlines() if "/dev/shm/fastrtps" in line], name
    finally:
        bench.close()
