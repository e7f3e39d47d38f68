"""Closed loop over DDS in lockstep: the run of one process to the bit, recorded, replayed, reported."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; valid: pip install 'sealegs[ros]'")

from lockstep import CONDITION, CONFIG, SEED, STEPS

from controller.cli import main
from controller.config import make_controller
from controller.ros import bag, convert
from controller.run import episodes
from robots.ant import Ant
from robots.condition import parse


def recorded(path: Path) -> np.ndarray:
    """(t, 8) commands in their order."""
    found = [m.content for m in bag.read(path) if m.topic.endswith("/commands")]
    labels = [convert.label_of(m) for m in found]
    assert [x.seq for x in labels if x] == list(range(1, len(found) + 1))
    return np.array([m.data for m in found])


def test_the_actions_are_those_of_the_same_loop_in_one_process(recording):
    ant = Ant(threads=1)
    alone = episodes(make_controller(ant, CONFIG), ant, [parse(CONDITION)], [SEED], STEPS, threads=1)
    assert np.array_equal(recorded(recording), alone.a[0])
    assert np.abs(alone.a).max() > 0.1


def test_replay_gives_the_same_actions(recording, capsys):
    main(["replay", str(recording)])
    assert f"{STEPS} of {STEPS} actions identical" in capsys.readouterr().out


def test_replay_of_a_changed_recording_says_so(recording, tmp_path, capsys):
    path = tmp_path / "changed"
    copy = bag.Bag(path)
    seen: set[str] = set()
    types = {
        "joint_states": "sensor_msgs/msg/JointState", "odom": "nav_msgs/msg/Odometry", "config": "std_msgs/msg/String",
        "condition": "std_msgs/msg/String", "commands": "std_msgs/msg/Float64MultiArray",
        "telemetry": "std_msgs/msg/Float64MultiArray",
    }  # fmt: skip
    for m in bag.read(recording):
        kind = types.get(m.topic.rsplit("/", 1)[1])
        if kind is None:
            continue
        if m.topic not in seen:
            seen.add(m.topic)
            copy.add(m.topic, kind)
        if m.topic == "/joint_states" and convert.stamp_of(m.content) == round(50 * Ant.dt * 1e9):
            copy.write(m.topic, m.time, replace(m.content, position=m.content.position + 1e-3))
        else:
            copy.write(m.topic, m.time, m.content)
    copy.close()
    with pytest.raises(SystemExit) as stopped:
        main(["replay", str(path)])
    assert stopped.value.code == 1
    identical = int(capsys.readouterr().out.split(" of ")[0])
    assert identical >= 50  # those before the change


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
    copy = bag.Bag(tmp_path / "old")
    for m in bag.read(recording):
        if m.topic.endswith("/config"):
            record = json.loads(m.content.data)
            copy.add(m.topic, "std_msgs/msg/String")
            data = json.dumps({**record, "config": change(record["config"])})
            copy.write(m.topic, m.time, replace(m.content, data=data))
    copy.close()
    with pytest.raises(SystemExit) as stopped:
        main(["replay", str(tmp_path / "old")])
    error = capsys.readouterr().err.strip()
    assert stopped.value.code == 2 and said in error and "another version" in error
    assert str(tmp_path / "old") in error and "\n" not in error and len(error) < 500


def test_the_report_counts_what_happened(recording, tmp_path):
    main(["hil-report", str(recording), "--out", str(tmp_path / "report")])
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report["commands"] == report["states"] == STEPS
    assert report["lost"] == {"states_missing": 0, "states_not_used": 0, "commands_missing": 0}
    assert report["late_plans"] == 0 and sum(report["guard"].values()) == STEPS
    assert [(a["condition"], a["step"]) for a in report["adaptation"]] == [(CONDITION, 30)]
    assert 0 < report["state_to_command_ms"]["p50"] <= report["state_to_command_ms"]["p99"]
    text = (tmp_path / "report/report.md").read_text()
    assert "state received to command sent" in text
    assert all((tmp_path / "report" / name).is_file() for name in ("timing.png", "adaptation.png"))


def test_a_folder_that_is_there_is_not_recorded_into(recording, capsys):
    before = sorted(p.name for p in recording.iterdir())
    with pytest.raises(SystemExit) as stopped:
        main(["ros", "ant", "--duration", "1", "--record", str(recording)])
    assert stopped.value.code == 2 and str(recording) in capsys.readouterr().err
    assert sorted(p.name for p in recording.iterdir()) == before


def test_a_recording_that_is_not_whole_is_named(recording, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(recording, broken)
    (file,) = broken.glob("*.mcap")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    for bad in (tmp_path / "nothing", broken):
        for command in ("replay", "hil-report"):
            with pytest.raises(SystemExit) as stopped:
                main([command, str(bad)])
            assert stopped.value.code == 2 and str(bad) in capsys.readouterr().err


def test_a_node_that_cannot_start_says_why(domain, capsys):
    for extra, word in (("--condition", "leg:9"), ("--weights", "/no/such/file")):
        with pytest.raises(SystemExit) as stopped:
            main(["ros", "ant", "--duration", "1", "--domain", str(domain), extra, word])
        said = capsys.readouterr().err
        assert stopped.value.code == 2 and word in said and "Traceback" not in said
