"""A recording's commands, made again from its states: identical, or it says so."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; valid: pip install 'sealegs[ros]'")

from lockstep import STEPS, edited

from controller.cli import main
from controller.ros import bag, convert, told
from robots.ant import Ant


def stamped(step: int) -> int:
    """[ns]"""
    return round(step * Ant.dt * 1e9)


def nudged(m: bag.Message):
    """The state of step 50 a millimetre away."""
    if m.topic == "/joint_states" and convert.stamp_of(m.content) == stamped(50):
        return replace(m.content, position=m.content.position + 1e-3)
    return m.content


def missed(m: bag.Message):
    """Half of a state that came before the recorder had found the robot, and half of one lost on the way to it alone."""
    lost = {"/joint_states": stamped(0), "/odom": stamped(40)}
    return None if m.topic in lost and convert.stamp_of(m.content) == lost[m.topic] else m.content


def stateless(m: bag.Message):
    """As the controller told before its state was in it."""
    if not m.topic.endswith("/telemetry"):
        return missed(m)
    layout = replace(m.content.layout, dim=[d for d in m.content.layout.dim if d.label != told.STATE])
    return replace(m.content, layout=layout, data=m.content.data[: len(layout.dim)])


def test_replay_gives_the_same_actions(recording, capsys):
    main(["replay", str(recording)])
    assert f"{STEPS} of {STEPS} actions identical" in capsys.readouterr().out


def test_replay_of_a_changed_recording_says_so(recording, tmp_path, capsys):
    """Messages are read again: what the controller says it read does not hide them."""
    with pytest.raises(SystemExit) as stopped:
        main(["replay", str(edited(recording, tmp_path / "changed", nudged))])
    assert stopped.value.code == 1
    identical = int(capsys.readouterr().out.split(" of ")[0])
    assert 50 <= identical < STEPS  # those before the change


def test_a_state_that_only_the_controller_heard_is_replayed(recording, tmp_path, capsys):
    main(["replay", str(edited(recording, tmp_path / "missed", missed))])
    assert (
        f"{STEPS} of {STEPS} actions identical; 2 from states that the controller told of alone"
        in capsys.readouterr().out
    )


def test_messages_that_arrived_in_another_order_than_their_stamps_were_paired_otherwise(recording, tmp_path, capsys):
    """The second of a state that is not the one that gives its stamp, 3 ms off, and one nearer by that came too late to be used."""

    def off(m: bag.Message):
        later = {stamped(50): stamped(50) + 3_000_000, stamped(51): stamped(50) + 1_000_000}
        if m.topic != "/odom" or (stamp := later.get(convert.stamp_of(m.content))) is None:
            return m.content
        sec, nanosec = divmod(stamp, 1_000_000_000)
        at = replace(m.content.header.stamp, sec=sec, nanosec=nanosec)
        return replace(m.content, header=replace(m.content.header, stamp=at))

    main(["replay", str(edited(recording, tmp_path / "off", off))])
    assert f"{STEPS} of {STEPS} actions identical; 1 from" in capsys.readouterr().out


def test_a_state_that_cannot_be_read_is_not_hidden(recording, tmp_path, capsys):
    """A recording that was damaged, or messages that are read otherwise now."""

    def broken(m: bag.Message):
        if m.topic == "/joint_states" and convert.stamp_of(m.content) == stamped(50):
            return replace(m.content, position=np.full(8, np.nan))
        return m.content

    with pytest.raises(SystemExit) as stopped:
        main(["replay", str(edited(recording, tmp_path / "broken", broken))])
    assert stopped.value.code == 1 and "1 of them lack a state" in capsys.readouterr().out


def test_without_it_replay_says_what_it_lacks(recording, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["replay", str(edited(recording, tmp_path / "old", stateless))])
    out = capsys.readouterr().out
    assert stopped.value.code == 1 and "2 of them lack a state" in out


def test_the_state_told_is_the_one_recorded(recording):
    messages = [m.content for m in bag.read(recording) if m.topic == "/joint_states"]
    joints = {convert.stamp_of(m): np.array(m.position) for m in messages}
    rows = [told.read(m.content) for m in bag.read(recording) if m.topic.endswith("/telemetry")]
    assert len(rows) == STEPS
    for row, state in rows:
        assert state is not None and np.array_equal(np.sort(state[9:17]), np.sort(joints[row.stamp]))


def test_foreign_telemetry_is_named(recording, tmp_path, capsys):
    """By `replay` and by all else that reads recordings."""

    def foreign(m: bag.Message):
        if not m.topic.endswith("/telemetry"):
            return m.content
        layout = replace(
            m.content.layout, dim=[replace(d, label="x") if d.label == "begun" else d for d in m.content.layout.dim]
        )
        return replace(m.content, layout=layout)

    path = edited(recording, tmp_path / "foreign", foreign)
    out = ["--out", str(tmp_path / "out")]
    for argv in (
        ["replay", str(path)],
        ["hil-report", str(path), *out],
        ["collect", "ant", "--from-bag", str(path), *out],
    ):
        with pytest.raises(SystemExit) as stopped:
            main(argv)
        error = capsys.readouterr().err.strip()
        assert stopped.value.code == 2 and "'begun'" in error and str(path) in error and "\n" not in error


@pytest.mark.parametrize(
    ("change", "said"),
    [
        # As of those from before `max_delay_ms`, which was `max_delay_periods` then; and from before elites were weighed.
        (lambda c: {**c, "max_delay_periods": c["max_delay_ms"]}, "'max_delay_periods' is not known here"),
        (lambda c: {k: v for k, v in c.items() if not k.endswith("weighting")}, "weighting' is not recorded"),
    ],
    ids=["unknown", "missing"],
)
def test_replay_of_another_versions_recording_names_the_parameter(change, said, recording, tmp_path, capsys):
    """In one sentence, not with every parameter that there is."""

    def old(m: bag.Message):
        if not m.topic.endswith("/config"):
            return None
        record = json.loads(m.content.data)
        return replace(m.content, data=json.dumps({**record, "config": change(record["config"])}))

    with pytest.raises(SystemExit) as stopped:
        main(["replay", str(edited(recording, tmp_path / "old", old))])
    error = capsys.readouterr().err.strip()
    assert stopped.value.code == 2 and said in error and "another version" in error
    assert str(tmp_path / "old") in error and "\n" not in error and len(error) < 500
