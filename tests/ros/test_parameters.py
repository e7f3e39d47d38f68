"""Parameters of real nodes: a number is taken however it is written, and what is none is refused in a sentence, at the start and later."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; valid: pip install 'sealegs[ros]'")

import rclpy
from rclpy.context import Context

from controller.ros.bench import Probe
from controller.ros.commands import Nodes


@pytest.mark.parametrize(
    ("node", "argument", "words"),
    [
        ("controller", "slop_ms:=fast", "slop_ms is 'fast'; valid: "),
        ("robot", "delay_ms:=[1.0, 2.0]", "delay_ms is [1.0, 2.0]; valid: "),
        ("record", "robot:=5", "robot is 5; valid: ant, quadrotor"),
        ("record", "use_sim_time:=5", "'use_sim_time' to '5' of type 'INTEGER', expecting type 'BOOL'"),
        ("record", "out=5", "'-p out=5'"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_in_a_sentence(node, argument, words, domain):
    argv = [sys.executable, "-m", "controller.ros", node, "--ros-args", "-p", argument]
    env = os.environ | {"ROS_DOMAIN_ID": str(domain)}
    ran = subprocess.run(argv, env=env, check=False, capture_output=True, text=True, timeout=60)
    (said,) = [line for line in ran.stdout.splitlines() if line.startswith("sealegs: ")]
    assert ran.returncode == 2 and words in said and "Traceback" not in ran.stdout + ran.stderr


def test_whole_numbers_do_for_any_number_and_nonsense_leaves_the_old_value(tmp_path, domain):
    nodes, context = Nodes(tmp_path, domain, ""), Context()
    rclpy.init(context=context, domain_id=domain)
    probe = Probe(context)
    try:
        nodes.start("controller", {"robot": "quadrotor", "slop_ms": 5, "flight.speed": 1.5})
        assert probe.set("controller", {"max_delay_ms": 60, "flight.speed": 2}) == []
        for value, shown in (("soon", "'soon'"), (True, "True"), ([60.0], "[60.0]"), (None, "None")):
            (reason,) = probe.set("controller", {"max_delay_ms": value})
            assert reason.startswith("max_delay_ms is ") and shown in reason and "valid: " in reason
        assert [probe.get("controller", name) for name in ("slop_ms", "max_delay_ms", "flight.speed")] == [5, 60, 2]
        assert nodes.processes["controller"].poll() is None
    finally:
        nodes.stop(*nodes.processes)
        probe.destroy_node()
        rclpy.try_shutdown(context=context)
