"""Two hosts: namespaces with a cable between them, a lossy relay both ways, and nothing left behind."""

import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; valid: pip install 'sealegs[ros]'")

from controller.config import ControllerConfig, PlannerConfig, UsageError
from controller.ros import two_hosts as module
from controller.ros.two_hosts import TwoHostsConfig, kept, run, two_hosts

QUICK = ControllerConfig(planner=PlannerConfig(samples=16, horizon=3, iterations=1))


def namespaces() -> str:
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout


def test_control_goes_over_the_cable_and_through_the_relay(domain, monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
    c = TwoHostsConfig(drop=0.2, duration=3.0, speed=0.5, domain=domain, controller=QUICK)
    try:
        with two_hosts() as hosts:
            assert all(host in namespaces() for host in hosts)
            row = run(c, "both ways", 1, hosts)
    except UsageError as e:
        pytest.skip(str(e))
    assert not any(host in namespaces() for host in hosts)
    assert row["commands"] > 30 and row["states_missing"] > 0
    assert row["stamp_to_command_ms"]["p50"] > c.delay_ms - c.jitter_ms


def test_without_root_one_sentence_says_what_is_needed(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(module.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["two_hosts", "--out", str(tmp_path)])
    for name in ("ROS_AUTOMATIC_DISCOVERY_RANGE", "FASTDDS_BUILTIN_TRANSPORTS"):
        monkeypatch.setenv(name, "")  # to be put back
    with pytest.raises(SystemExit) as stopped:
        module.main()
    said = capsys.readouterr().err.strip()
    assert stopped.value.code == 2 and said.startswith("sealegs: ") and "root" in said and "\n" not in said


def test_the_share_of_the_score_is_of_the_same_seed_and_an_error_counts_inversely():
    rows = [
        {"network": network, "seed": seed, "score": score}
        for network, seed, score in (("lossless", 1, 4.0), ("states", 1, 3.0), ("lossless", 2, 2.0), ("states", 2, 2.0))
    ]
    assert kept("ant", rows, "states") == [0.75, 1.0]
    assert kept("quadrotor", rows, "states") == [4 / 3, 1.0]
