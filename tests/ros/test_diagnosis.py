"""What /diagnostics says of a second, without a node."""

from collections import Counter

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; valid: pip install 'sealegs[ros]'")

from controller.guard import HOLD, RELAX, RIGHT
from controller.guard import OK as SOUND
from controller.ros.diagnosis import ERROR, OK, WARN, Second, inactive, judge
from controller.ros.loop import MISS, STATE, STEP, Row


def row(kind: float = STEP, **known: float) -> Row:
    return Row(**dict.fromkeys(Row._fields, float("nan")) | {"kind": kind, "event": SOUND} | known)


def levels(*rows: Row, held: bool = False, why: str = "", **counts: int) -> dict[str, bytes]:
    return {part: level for part, (level, _, _) in judge(Second(rows, Counter(counts), why, 50.0, held)).items()}


def test_a_sound_second_is_ok_in_every_part():
    rows = [row(latency_ms=20.0, total_ms=15.0, error_before=0.3, error_after=0.1)] * 20
    assert set(levels(*rows, used=20).values()) == {OK}


def test_no_state_is_an_error_and_one_that_is_not_used_a_warning():
    assert levels()["state input"] == ERROR
    assert levels(used=19, late=1)["state input"] == WARN
    _, sentence, _ = judge(Second([], Counter(used=1, unusable=1), "joint 'x' is missing", 50.0, False))["state input"]
    assert sentence == "joint 'x' is missing"


def test_some_slow_plans_are_a_warning_and_nothing_but_slow_ones_an_error():
    quick, slow = row(latency_ms=20.0), row(latency_ms=51.0)
    assert levels(quick, slow)["planning"] == WARN
    assert levels(slow, slow)["planning"] == ERROR
    assert levels(quick, failed=1)["planning"] == ERROR


def test_a_held_plan_is_a_warning_a_relaxing_guard_an_error_unless_the_operator_asked_for_it():
    missed = row(MISS, cause=STATE, event=HOLD)
    assert levels(missed)["guard"] == WARN
    assert levels(missed._replace(event=RELAX))["guard"] == ERROR
    assert levels(missed._replace(event=RELAX), held=True)["guard"] == WARN


def test_a_robot_that_is_righted_is_a_warning_and_hides_no_error():
    righted = row(STEP, event=RIGHT)
    assert levels(righted)["guard"] == WARN
    assert levels(righted, row(MISS, cause=STATE, event=RELAX))["guard"] == ERROR


def test_adaptation_that_makes_it_worse_is_a_warning():
    assert levels(row(error_before=0.1, error_after=0.2))["adaptation"] == WARN
    assert levels(row(error_before=np.nan, error_after=np.nan))["adaptation"] == OK


def test_a_node_that_does_not_control_says_so():
    assert inactive(False)["state input"][:2] == (WARN, "not active")
    assert inactive(True)["state input"][0] == OK
