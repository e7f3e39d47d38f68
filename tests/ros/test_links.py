"""The bad network in one process: the same settings, the same run; and a delay that is known costs little."""

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; valid: pip install 'sealegs[ros]'")

from controller.ros.delays import MS
from controller.ros.links import Link, LinksConfig
from controller.ros.loop import PLANNING, STATE


def test_the_same_settings_give_the_same_run():
    c = LinksConfig(duration=1.3, both_ways=True)
    one, two = Link(c, 7), Link(c, 7)
    assert one.run() == two.run() and one.counts == two.counts
    assert one.counts["lost"] and one.counts["reordered"] and one.counts["missed"]


def test_the_ant_runs_on_blind_where_states_are_lost():
    link = Link(LinksConfig(robot="ant", duration=3.0), 1000)
    assert link.run() > 3.0 and link.counts["lost"] and 0 < link.counts["blind"] <= link.counts["missed"]


def test_commands_that_are_sent_again_end_the_silence_of_a_bad_link():
    once, again = (Link(LinksConfig(drop=0.2, both_ways=True, repeat_commands=n, duration=3.0), 100) for n in (0, 2))
    off = [once.run(), again.run()]
    assert once.counts["silent"] > 50 and again.counts["silent"] < 0.1 * once.counts["silent"]
    assert off[1] < 0.5 * off[0]


def test_a_constant_delay_is_predicted_over():
    """Of two periods: what acted before the first command had been learned from, and cost two millimetres."""
    near, far = (Link(LinksConfig(delay, 0.0, 0.0, duration=3.0), 100).run() for delay in (0.0, 20.0))
    assert far < 2 * near < 1e-3


class Watched(Link):
    """With nothing lost but what is asked, and a log of (since the last command [ns], cause) of what goes out without a plan after a plan."""

    def __init__(self, drop: float, takes: dict[int, int]):
        """takes: from which period on planning takes how long [ns]."""
        super().__init__(LinksConfig(delay_ms=0.0, jitter_ms=0.0, drop=drop, duration=2.0), 100)
        self.log: list[tuple[int, int]] = []
        self._last = (0, False)
        for k, long in takes.items():
            self._at(k * self.period - 1, lambda long=long: setattr(self, "_takes", long))

    def _command(self, action, planned):
        if self._last[1] and not planned:
            self.log.append((self.now - self._last[0], PLANNING if self._planning else STATE))
        self._last = (self.now, planned)
        super()._command(action, planned)


def test_a_plan_that_is_being_made_is_waited_for_longer_than_a_state_that_does_not_come():
    """At 100 Hz, planning in half a millisecond: one that takes 2 ms is ready 11.5 ms after the command before, one that takes 4 ms 13.5."""
    calm, slow, slower = (Watched(0.0, {0: MS // 2, 50: long, 51: MS // 2}) for long in (MS // 2, 2 * MS, 4 * MS))
    lossy = Watched(0.1, {0: MS // 2})
    assert [link.run() < 1e-3 for link in (calm, slow, slower, lossy)] == [True] * 4
    assert calm.log == slow.log == [] and slower.log == [(12 * MS + 1, PLANNING)]
    assert set(lossy.log) == {(11 * MS + 1, STATE)}
