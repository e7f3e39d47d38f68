"""Faults injected into running nodes: the command never stays stale, never leaves its bounds, and control comes back.

The same trials twenty times each, with the times they took: `python -m controller.ros.faults --times 20 --out DIR`.
"""

import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; valid: pip install 'sealegs[ros]'")

from std_msgs.msg import Float64MultiArray, MultiArrayDimension

from controller.guard import EVENTS, RELAX
from controller.ros import convert
from controller.ros.bench import QUICK, Bench
from controller.ros.faults import NONSENSE, STATE_FAULTS, TRIALS
from controller.ros.loop import MISS, OPERATOR, RESET, STATE, STEP
from controller.ros.robot_config import OVERTAKEN, overtaken, tells_of_life


@pytest.fixture(scope="module")
def bench(tmp_path_factory, domain) -> Iterator[Bench]:
    # A fifth of real time, by /clock: a busy machine's delays are then small against the period.
    made = Bench(tmp_path_factory.mktemp("bench"), domain, speed=0.2)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def running(bench):
    bench.running()


@pytest.mark.parametrize("fault", [*STATE_FAULTS, "robot-killed", "controller-killed", "sigint-twice"])
def test_the_command_stays_safe_and_control_comes_back(bench, fault):
    outcome = TRIALS[fault](bench, np.random.default_rng(1))
    assert outcome.safe, outcome
    assert outcome.recovered, outcome
    if fault in ("robot-killed", "controller-killed", "sigint-twice"):
        assert outcome.recovery_s > 0.5, outcome  # what plans sooner than a node can start is not that node


def test_simulated_time_waits_for_a_machine_that_stood_still(bench):
    """A /clock that hurried after a stop would let every command look late."""
    robot, stop = bench.nodes.processes["robot"], 0.2
    begun, first = time.monotonic(), bench.probe.efforts[-1][0]
    for _ in range(10):
        robot.send_signal(signal.SIGSTOP)
        time.sleep(stop)
        robot.send_signal(signal.SIGCONT)
        bench.probe.spin(0.3)
    wall, passed = time.monotonic() - begun, (bench.probe.efforts[-1][0] - first) / 1e9
    assert passed < bench.speed * (wall - 0.6 * 10 * stop) + bench.period, (wall, passed)


def test_a_state_that_stays_away_is_answered_by_holding_then_relaxing(bench):
    probe = bench.probe
    probe.set("robot", {"fault": "missing"})
    at = time.monotonic()
    assert probe.spin(60, lambda: sum(t > at and r.kind == MISS for t, r in probe.rows) > 15)
    rows = [r for t, r in probe.rows if t > at]
    probe.set("robot", {"fault": "none"})
    causes = {int(r.cause) for r in rows if r.kind == MISS}
    assert causes == {STATE}
    assert rows[-1].event == RELAX, EVENTS[int(rows[-1].event)]
    assert np.abs(probe.commands[-1].data).max() < 0.2


def test_joints_in_another_order_are_the_same_joints(bench):
    probe = bench.probe
    probe.set("robot", {"fault": "order"})
    at = time.monotonic()
    assert probe.spin(60, lambda: probe.fresh(at, 15))
    during = [r for t, r in probe.rows if t > at]
    probe.set("robot", {"fault": "none"})
    assert probe.spin(60, lambda: probe.fresh(at, 30))
    after = [r for t, r in probe.rows if t > at][len(during) :]
    # Mixed-up joints could not be predicted: the error would be many times what it is without.
    errors = [np.nanmedian([r.error_before for r in rows]) for rows in (during, after)]
    assert errors[0] < 5 * errors[1] + 0.5


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_refused_with_the_reason_and_the_old_value_kept(bench, name):
    before = bench.probe.get("controller", name)
    for value in NONSENSE[name]:
        (reason,) = bench.probe.set("controller", {name: value})
        assert "valid: " in reason and name.rsplit(".", 1)[-1].split("_")[0] in reason.replace(" ", "_"), reason
    assert bench.probe.get("controller", name) == before


def test_one_old_command_that_is_sent_on_and_on_is_silence(bench):
    """A relay that repeats itself is not a controller."""
    probe = bench.probe
    last, stamp, seen = probe.commands[-1], probe.efforts[-1][0], len(probe.efforts)
    bench.nodes.processes["controller"].kill()  # and the relay begins at once
    bench.nodes.processes["controller"].wait()
    relay = probe.create_publisher(Float64MultiArray, "sealegs_controller/commands", 10)
    message = Float64MultiArray()
    convert.fill_command(message, last.data, last.label, MultiArrayDimension())
    end = time.monotonic() + 1.0 / bench.speed
    while time.monotonic() < end:
        relay.publish(message)
        probe.spin(0.02)
    late = [effort for at, effort in probe.efforts[seen:] if at > stamp + 0.5e9]
    probe.destroy_publisher(relay)
    bench.start("controller")
    bench.running()
    assert len(late) > 3 and not any(effort.any() for effort in late)


def test_a_command_of_the_run_before_a_change_of_settings_is_not_obeyed(bench):
    probe = bench.probe
    old = probe.commands[-1].label
    assert probe.set("controller", {"controller.planner.samples": 17}) == []
    assert probe.spin(60, lambda: probe.commands[-1].label.run != old.run)
    relay = probe.create_publisher(Float64MultiArray, "sealegs_controller/commands", 10)
    message = Float64MultiArray()
    convert.fill_command(message, np.full(8, 0.625), old._replace(seq=old.seq + 3), MultiArrayDimension())
    begun, seen = time.monotonic(), len(probe.efforts)
    while time.monotonic() < begun + 1.0 / bench.speed:
        relay.publish(message)
        probe.spin(0.02)
    probe.destroy_publisher(relay)
    assert probe.set("controller", {"controller.planner.samples": QUICK["controller.planner.samples"]}) == []
    bench.running()
    efforts = [effort for _, effort in probe.efforts[seen:]]
    assert len(efforts) > 10 and not any(np.allclose(effort, 0.625) for effort in efforts)


def test_a_newer_run_gives_way_to_an_older_one_only_when_it_is_gone():
    old, new = convert.Label(1, 9, 0), convert.Label(2, 1, 0)
    assert overtaken(old, new, 0.5) and overtaken(old, new, OVERTAKEN - 0.1) and not overtaken(old, new, OVERTAKEN)
    assert not overtaken(new, old, 0.5) and not overtaken(None, new, 0.5) and not overtaken(old, None, 0.5)
    assert overtaken(old, old, 100.0) and not overtaken(old._replace(seq=10), old, 0.0)
    assert tells_of_life(old, old._replace(seq=12), 1.0) and not tells_of_life(old, old._replace(seq=14), 1.0)
    assert not tells_of_life(old, new, 0.5) and not tells_of_life(old, old, OVERTAKEN)


def test_a_command_is_sent_again_as_often_as_asked(bench):
    probe = bench.probe
    assert probe.set("controller", {"repeat_commands": 2}) == []
    at = time.monotonic()
    assert probe.spin(60, lambda: probe.fresh(at, 20))
    assert probe.set("controller", {"repeat_commands": 0}) == []
    seen: dict[int, list[np.ndarray]] = {}
    for c in probe.commands:
        if c.time > at:
            seen.setdefault(c.label.seq, []).append(c.data)
    counts = [len(x) for x in seen.values()][1:-2]
    assert max(counts) == 3 and np.mean(counts) > 2, counts
    assert all(np.array_equal(x, sent[0]) for sent in seen.values() for x in sent)
    last = probe.commands[-1].time
    bench.running()
    later = [c.label.seq for c in probe.commands if c.time > last + 0.5]
    assert len(set(later)) == len(later)


def test_what_is_read_at_the_start_is_not_changed_later(bench):
    for node, name, value in (("controller", "lockstep", True), ("robot", "mode", "fast")):
        (reason,) = bench.probe.set(node, {name: value})
        assert name in reason and "valid: " in reason
    (reason,) = bench.probe.set("robot", {"condition": "leg:9"})
    assert "leg:9" in reason


def test_hold_resume_and_reset(bench):
    probe = bench.probe
    assert probe.call("hold").success
    at = time.monotonic()
    assert probe.spin(60, lambda: sum(t > at for t, _ in probe.rows) > 25)
    rows = [r for t, r in probe.rows if t > at]
    assert all(r.kind == MISS and r.cause == OPERATOR and r.event == RELAX for r in rows[1:])
    assert np.abs(probe.commands[-1].data).max() < 0.02
    assert probe.call("resume").success
    bench.running()
    assert not probe.call("resume").success
    assert probe.call("reset_adaptation").success
    assert probe.spin(10, lambda: any(t > at and r.kind == RESET for t, r in probe.rows))
    bench.running()


def test_a_setting_that_makes_sense_is_taken_while_it_runs(bench):
    run = bench.probe.rows[-1][1].run
    assert bench.probe.set("controller", {"controller.planner.samples": 20}) == []
    assert bench.probe.spin(10, lambda: bench.probe.rows[-1][1].run != run and bench.probe.rows[-1][1].kind == STEP)
    assert bench.probe.set("controller", {"controller.planner.samples": QUICK["controller.planner.samples"]}) == []
