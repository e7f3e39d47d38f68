"""The bad network in one process: the same settings, the same run; and a delay that is known costs little."""

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; valid: pip install 'sealegs[ros]'")

from controller.ros.links import Link, LinksConfig


def test_the_same_settings_give_the_same_run():
    c = LinksConfig(duration=1.3, both_ways=True)
    one, two = Link(c, 7), Link(c, 7)
    assert one.run() == two.run() and one.counts == two.counts
    assert one.counts["lost"] and one.counts["reordered"] and one.counts["missed"]


def test_the_ant_runs_on_blind_where_states_are_lost():
    link = Link(LinksConfig(robot="ant", duration=3.0), 1000)
    assert link.run() > 3.0 and link.counts["lost"] and 0 < link.counts["blind"] <= link.counts["missed"]


def test_commands_that_are_sent_again_end_the_silence_of_a_bad_link():
    once, again = (Link(LinksConfig(both_ways=True, repeat_commands=n, duration=3.0), 100) for n in (0, 2))
    off = [once.run(), again.run()]
    assert once.counts["silent"] > 50 and again.counts["silent"] < 0.1 * once.counts["silent"]
    assert off[1] < 0.8 * off[0]


def test_a_constant_delay_is_predicted_over():
    """Of two periods: what acted before the first command had been learned from, and cost two millimetres."""
    near, far = (Link(LinksConfig(delay, 0.0, 0.0, duration=3.0), 100).run() for delay in (0.0, 20.0))
    assert far < 2 * near < 1e-3
