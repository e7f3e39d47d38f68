"""The judge of the faults: how long there was no command, by the rows that came."""

import pytest

from controller.ros.loop import MISS, STEP, Row

pytest.importorskip("rclpy")
from controller.ros.bench import longest_gap

ZEROS = dict.fromkeys(Row._fields, 0.0)


def rows(*seq_and_sent, run=1.0):
    return [
        Row(**ZEROS | {"kind": float((STEP, MISS)[i % 2]), "run": run, "seq": float(n), "sent_s": at})
        for i, (n, at) in enumerate(seq_and_sent)
    ]


@pytest.mark.parametrize("silent", [False, True])
def test_a_late_command_counts_whatever_the_robot_says(silent):
    late = rows((1, 1.00), (2, 1.01), (3, 1.04), (4, 1.05))
    assert longest_gap(late, silent, killed=False) == pytest.approx(0.03)


def test_rows_that_were_lost_are_commands_that_were_sent_unless_the_robot_had_none():
    lost = rows((1, 1.00), (2, 1.011), (24, 1.36), (25, 1.37))
    assert longest_gap(lost, silent=False, killed=False) == pytest.approx(0.011)
    assert longest_gap(lost, silent=True, killed=False) == pytest.approx(0.349)


def test_lost_rows_hide_no_other_gap():
    both = rows((1, 1.00), (9, 1.08), (10, 1.11))
    assert longest_gap(both, silent=False, killed=False) == pytest.approx(0.03)


def test_a_controller_that_begins_anew_is_a_gap_unless_it_was_killed():
    anew = rows((7, 1.00), (8, 1.01)) + rows((1, 4.0), (2, 4.01), run=2.0)
    assert longest_gap(anew, silent=False, killed=False) == pytest.approx(2.99)
    assert longest_gap(anew, silent=False, killed=True) == pytest.approx(0.01)


def test_a_clock_that_began_anew_and_no_rows_are_no_gap():
    assert longest_gap(rows((1, 5.0), (2, 0.01)), silent=False, killed=False) == 0
    assert longest_gap([], silent=True, killed=False) == 0
