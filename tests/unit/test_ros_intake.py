"""Which states are acted on: paired by time, in order, not late, on whatever clock."""

import pytest

from controller.ros.intake import OLDER, PATIENCE, Ignored, Intake, Taken

DT, MS = 50_000_000, 1_000_000  # [ns]


def intake(max_delay: int = 75 * MS) -> Intake:
    return Intake(("a", "b"), DT, 5 * MS, max_delay)


def feed(i: Intake, stamp: int, received: int | None = None) -> Taken | Ignored | None:
    received = stamp if received is None else received
    assert i.add("a", stamp, received, "a") is None
    return i.add("b", stamp, received, "b")


def test_a_state_is_a_pair_of_one_moment():
    i = intake()
    assert i.add("a", DT, 0, "a1") is None
    assert i.add("b", 2 * DT, 0, "b2") is None  # of another moment
    taken = i.add("a", 2 * DT + 4 * MS, 0, "a2")
    assert isinstance(taken, Taken) and taken.messages == {"a": "a2", "b": "b2"} and taken.stamp == 2 * DT + 4 * MS


def test_repeated_reordered_and_early_states_are_ignored():
    i = intake()
    assert isinstance(feed(i, 10 * DT), Taken)
    reasons = [feed(i, t) for t in (10 * DT, 9 * DT, 10 * DT + DT // 2)]
    assert [r.reason for r in reasons if isinstance(r, Ignored)] == ["repeated", "reordered", "early"]
    assert isinstance(feed(i, 11 * DT), Taken)


@pytest.mark.parametrize("lag", [0, 30 * MS, 70 * MS])
def test_a_topic_that_is_much_quicker_than_the_other_waits_for_it(lag):
    """a once a period, and so much after b of its moment, which comes every millisecond."""
    i, taken = intake(), []
    for now in range(0, 40 * DT, MS):
        i.add("b", now, now, now)
        if (now - lag) % DT == 0 and now >= lag:
            taken.append(i.add("a", now - lag, now, now - lag))
    assert len(taken) == 40 - (lag > DT)
    assert all(isinstance(t, Taken) and t.messages["a"] == t.messages["b"] for t in taken)


def test_why_no_state_is_whole_is_said():
    i = intake()
    assert i.waits_for() == ""
    i.add("a", 0, 0, "a")
    assert i.waits_for() == "a came, and nothing on b"
    i.add("b", 20 * MS, 0, "b")
    i.add("b", 30 * MS, 0, "b")
    assert i.waits_for() == "stamps of a and b are 20.0 ms apart at least; valid: slop_ms (5) or less"
    feed(i, DT)
    assert isinstance(feed(i, 2 * DT), Taken)


@pytest.mark.parametrize("back", [10, 19])
@pytest.mark.parametrize("both", [False, True])
def test_a_clock_that_is_set_back_by_less_than_a_second_is_followed(back, both):
    """The robot's, or that of both, by so many periods."""
    i = intake()
    for k in range(30):
        assert isinstance(feed(i, k * DT, k * DT + 2 * MS), Taken)
    after = [feed(i, (k - back) * DT, (k - back * both) * DT + 2 * MS) for k in range(30, 60)]
    assert [isinstance(x, Taken) for x in after] == [False] * (OLDER - 1) + [True] * (31 - OLDER)
    assert [x.jumped for x in after if isinstance(x, Taken)] == [True] + [False] * (30 - OLDER)


def test_states_that_overtake_each_other_are_no_clock_set_back():
    i = intake()
    order = [k + (1 if k % 2 else -1) for k in range(1, 61)]  # every state comes after the one that follows it
    reasons = [
        x.reason if isinstance(x, Ignored) else x.jumped for x in (feed(i, k * DT, j * DT) for j, k in enumerate(order))
    ]
    assert set(reasons) == {False, "reordered"} and reasons.count("reordered") == 30


def test_lateness_is_against_the_quickest_whatever_the_clocks_say():
    for ahead in (-7_000_000_000_000, 0, 3_000_000_000):  # the sender's clock
        i = intake()
        for k in range(5):
            assert isinstance(feed(i, k * DT + ahead, k * DT + 2 * MS), Taken)
        late = feed(i, 5 * DT + ahead, 5 * DT + 2 * MS + 80 * MS)
        assert isinstance(late, Ignored) and late.reason == "late"
        assert isinstance(feed(i, 6 * DT + ahead, 6 * DT + 70 * MS), Taken)


def test_a_clock_that_jumps_begins_a_new_time_line():
    for jump in (3600_000_000_000, -3600_000_000_000):
        i = intake()
        for k in range(3):
            feed(i, k * DT, k * DT)
        first = feed(i, 3 * DT + jump, 3 * DT)
        assert isinstance(first, Taken) and first.jumped
        second = feed(i, 4 * DT + jump, 4 * DT)
        assert isinstance(second, Taken) and not second.jumped


def test_clocks_that_moved_a_little_are_believed_after_a_while():
    i = intake()
    for k in range(5):
        feed(i, k * DT, k * DT)
    taken = [isinstance(feed(i, k * DT, k * DT + 200 * MS), Taken) for k in range(5, 5 + PATIENCE + 5)]
    assert taken == [False] * (PATIENCE - 1) + [True] * 6
