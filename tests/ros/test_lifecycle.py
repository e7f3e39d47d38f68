"""The controller's life cycle by its own services: commands flow while it is active and only then, and what it plans is never stale."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; valid: pip install 'sealegs[ros]'")

import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import GetState
from rclpy.context import Context
from rosgraph_msgs.msg import Clock

from controller.ros.activation import ActivationConfig, activations, table
from controller.ros.bench import PATIENCE_S, QUICK, Probe
from controller.ros.commands import Nodes
from controller.ros.loop import LATE, STEP
from robots.ant import Ant

SPEED = 0.2  # times real time, by /clock
PERIOD = Ant.dt
SLOW = {"controller.planner.samples": 9000, "controller.planner.horizon": 8, "controller.planner.iterations": 2}
CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE, DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE
SHUTDOWN = {State.PRIMARY_STATE_ACTIVE: Transition.TRANSITION_ACTIVE_SHUTDOWN}


class Operator:
    """Both nodes, the controller not configured, and a probe with clients of the life cycle's services."""

    def __init__(self, folder: Path, domain: int):
        self.nodes, self.context = Nodes(folder, domain, ""), Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.probe = Probe(self.context)
        self._state = self.probe.create_client(GetState, "sealegs_controller/get_state")
        self.nodes.start("controller", {"robot": "ant", "use_sim_time": True, **QUICK})
        self.nodes.start("robot", {"robot": "ant", "mode": "fast", "speed": SPEED})
        assert self.probe.spin(60, self._state.service_is_ready)
        assert self.probe.spin(60, lambda: len(self.probe.efforts) > 0)

    def close(self) -> None:
        self.nodes.stop(*self.nodes.processes)
        self.probe.destroy_node()
        rclpy.try_shutdown(context=self.context)

    def state(self) -> int:
        future = self._state.call_async(GetState.Request())
        assert self.probe.spin(60, future.done)
        return future.result().current_state.id

    def periods(self, n: float) -> None:
        self.probe.spin(n * PERIOD / SPEED)

    @property
    def now(self) -> float:
        """The stamp of the newest state that was seen [s]."""
        return self.probe.efforts[-1][0] / 1e9

    def flows(self) -> None:
        """From now on, a command a period; the first one of a state of now, within about a period."""
        seen, now = len(self.probe.rows), self.now
        assert self.probe.spin(60, lambda: sum(r.kind == STEP for _, r in self.probe.rows[seen:]) >= 5)
        rows = [r for _, r in self.probe.rows[seen:]]
        assert rows[0].kind == STEP and rows[0].stamp / 1e9 >= now
        assert rows[0].sent_s - now < 2.5 * PERIOD  # one until the next state, and its plan
        assert max(np.diff([r.sent_s for r in rows])) < 2 * PERIOD
        last = self.probe.commands[-1].time
        assert self.probe.spin(60, lambda: self.probe.commands[-1].time > last)

    def is_silent(self) -> None:
        """From now on: not one command, and after 2 periods the robot's safe action."""
        self.probe.spin(0.05)  # what was sent before is to arrive
        seen, last = len(self.probe.commands), self.probe.rows[-1][1].sent_s
        at = len(self.probe.efforts)
        self.periods(12)
        assert len(self.probe.commands) == seen
        late = [effort for stamp, effort in self.probe.efforts[at:] if stamp / 1e9 > last + 3.2 * PERIOD]
        assert len(late) > 3 and not any(effort.any() for effort in late)


@pytest.fixture
def operator(tmp_path, domain) -> Iterator[Operator]:
    made = Operator(tmp_path, domain)
    yield made
    made.close()


def test_commands_flow_while_it_is_active_and_only_then(operator):
    probe = operator.probe
    assert operator.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert not operator.probe.change(ACTIVATE)
    probe.set("controller", {"weights": "/no/such/file"})
    assert not operator.probe.change(CONFIGURE) and operator.state() == State.PRIMARY_STATE_UNCONFIGURED
    probe.set("controller", {"weights": ""})

    assert operator.probe.change(CONFIGURE) and operator.state() == State.PRIMARY_STATE_INACTIVE
    held = probe.call("hold")
    assert not held.success and "not active" in held.message
    operator.periods(5)
    assert not probe.commands
    assert operator.probe.change(ACTIVATE) and operator.state() == State.PRIMARY_STATE_ACTIVE
    operator.flows()
    assert any(effort.any() for _, effort in probe.efforts)
    assert operator.probe.change(DEACTIVATE) and operator.state() == State.PRIMARY_STATE_INACTIVE
    operator.is_silent()
    assert (
        operator.probe.change(ACTIVATE) and not operator.probe.change(ACTIVATE) and not operator.probe.change(CONFIGURE)
    )
    operator.flows()
    first = probe.commands[-1].label

    assert operator.probe.change(DEACTIVATE) and operator.probe.change(CLEANUP)
    assert operator.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert probe.spin(10, lambda: not probe.count_publishers("sealegs_controller/commands"))
    assert not probe.call("reset_adaptation").success
    assert probe.set("controller", {"slop_ms": 4.0}) == []  # what is read when it is configured may change now
    assert operator.probe.change(CONFIGURE) and operator.probe.change(ACTIVATE)
    assert probe.spin(10, lambda: probe.count_publishers("sealegs_controller/commands") > 0)
    operator.flows()
    assert probe.commands[-1].label.run > first.run

    assert operator.probe.change(SHUTDOWN[operator.state()]) and operator.state() == State.PRIMARY_STATE_FINALIZED
    operator.is_silent()
    process = operator.nodes.processes["controller"]
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0 and "Traceback" not in operator.nodes.output("controller")


def test_what_was_being_planned_when_it_was_deactivated_is_never_sent(operator):
    """Plans take longer than a period: one is being made, and a state waits for the next. No state comes after it is active again, so nothing
    is to be sent."""
    probe = operator.probe
    assert operator.probe.change(CONFIGURE) and operator.probe.change(ACTIVATE)
    operator.flows()
    # A plan that was made for the time at which it is ready may be sent after one miss: here none is.
    assert probe.set("controller", SLOW | {"delay_compensation": False}) == []
    for _ in range(3):
        seen = len(probe.rows)
        assert probe.spin(60, lambda n=seen: sum(r.kind == LATE for _, r in probe.rows[n:]) >= 2)
        probe.set("robot", {"fault": "missing"})
        assert operator.probe.change(DEACTIVATE) and operator.probe.change(ACTIVATE)
        probe.spin(0.05)  # what was sent before is to arrive
        commands, rows = len(probe.commands), len(probe.rows)
        operator.periods(8)
        assert len(probe.commands) == commands and len(probe.rows) == rows, [r for _, r in probe.rows[rows:]]
        now = operator.now
        probe.set("robot", {"fault": "none"})
        assert probe.spin(60, lambda n=commands: len(probe.commands) > n)
        assert probe.commands[commands].label.stamp / 1e9 > now


def test_its_clock_is_the_one_that_it_was_configured_with(tmp_path, domain):
    """With another one, or none, the watchdog would wait for ever. That nobody publishes the time is an error that is reported."""
    nodes, context = Nodes(tmp_path, domain, ""), Context()
    rclpy.init(context=context, domain_id=domain)
    probe, found = Probe(context), []
    probe.create_subscription(DiagnosticArray, "/diagnostics", lambda m: found.extend(m.status), 50)
    clock = probe.create_publisher(Clock, "/clock", 10)

    def told(words: str) -> bool:
        """The newest diagnosis of the states says so."""
        states = [x for x in found if x.name.endswith("state input")]
        return bool(states) and states[-1].level == DiagnosticStatus.ERROR and words in states[-1].message

    try:
        nodes.start("controller", {"robot": "ant", **QUICK})
        assert probe.change(CONFIGURE) and probe.change(ACTIVATE)
        assert probe.spin(10, lambda: told("no usable state"))
        (reason,) = probe.set("controller", {"use_sim_time": True})
        assert "use_sim_time is read when the node is configured; valid: " in reason
        assert (
            probe.get("controller", "use_sim_time") is False and probe.set("controller", {"use_sim_time": False}) == []
        )

        assert probe.change(DEACTIVATE) and probe.change(CLEANUP)
        assert probe.set("controller", {"use_sim_time": True}) == []
        assert probe.change(CONFIGURE) and probe.change(ACTIVATE)
        assert probe.spin(10, lambda: told("nothing came on /clock yet"))
        assert len(probe.set("controller", {"use_sim_time": False})) == 1
        for i in range(1, 30):
            clock.publish(Clock(clock=Time(sec=i)))
            if probe.spin(0.2, lambda: told("no usable state")):
                break
        assert told("no usable state")
        assert probe.spin(10, lambda: told(f"/clock stands still at {i} s"))
    finally:
        nodes.stop(*nodes.processes)
        probe.destroy_node()
        rclpy.try_shutdown(context=context)


NO_ROOM = """
import sys
from controller.ros import controller_node

def full(*_):
    raise OSError("no room")

controller_node.Outbox = full
sys.exit(controller_node.run(["--ros-args", "-p", "autostart:=true"]))
"""


def test_whatever_keeps_it_from_configuring_is_said(domain):
    env = os.environ | {"ROS_DOMAIN_ID": str(domain)}
    done = subprocess.run(
        [sys.executable, "-c", NO_ROOM], env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2 and "Traceback" not in done.stdout + done.stderr
    assert "sealegs: not configured: OSError('no room')" in done.stdout


HALFWAY = """
import threading

import rclpy
from controller.ros import controller_node

def none(*_):
    raise OSError("no thread")

rclpy.init(args=["--ros-args", "-p", "robot:=quadrotor"])
node = controller_node.ControllerNode()

def made():
    return sorted(x.topic_name for x in (*node.publishers, *node.subscriptions)), threading.active_count()

before, real, controller_node.Watchdog = made(), controller_node.Watchdog, none
print(node.trigger_configure().name, made() == before)
controller_node.Watchdog = real
print(node.trigger_configure().name, made() == before)
print(node.trigger_cleanup().name, made() == before)
"""


def test_a_failure_to_configure_leaves_nothing_behind(domain):
    env = os.environ | {"ROS_DOMAIN_ID": str(domain)}
    done = subprocess.run(
        [sys.executable, "-c", HALFWAY], env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.split("\n")[-4:-1] == ["FAILURE True", "SUCCESS False", "SUCCESS True"], (
        done.stdout + done.stderr
    )


def test_control_starts_with_the_next_state(tmp_path, domain):
    """Of a configured controller, with the settings of `sealegs ros`; how soon is measured on a quiet machine (results/ros)."""
    c = ActivationConfig(times=3, domain=domain)
    rows = list(activations(c, 1, tmp_path))
    assert [r["activation"] for r in rows] == [1, 2]
    for r in rows:
        assert r["answered_ms"] > 0 and 0 < r["state_ms"] < r["command_ms"] < 1e3 * PATIENCE_S
    assert "2 activations" in table(rows, 50.0)
