"""Recordings into a dataset: what was recorded is what training reads, and what cannot be used is named."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; valid: pip install 'sealegs[ros]'")

from lockstep import CONDITION, CONFIG, SEED, STEPS, TYPES, edited

from controller.cli import main
from controller.config import make_controller, weights_of
from controller.ros import bag, convert
from controller.run import episodes
from dynamics import data
from robots.ant import Ant
from robots.condition import parse


def rows(folder: Path) -> data.Rows:
    return data.load(folder, Ant.name, Ant.space.n_state, Ant.space.n_action)


def changed(recording: Path, path: Path, change: Callable[[str, Any], Any]) -> Path:
    """A copy; change(topic's last part, message) -> the message to write, None for none."""
    return edited(recording, path, lambda m: change(m.topic.rsplit("/", 1)[1], m.content))


def at(message: Any, step: int) -> bool:
    return convert.stamp_of(message) == round(1e9 * step * Ant.dt)


def test_what_was_recorded_is_what_training_reads(recording, tmp_path, capsys):
    main(["collect", "ant", "--from-bag", str(recording), "--out", str(tmp_path / "data")])
    assert f"{STEPS - 1} transitions in 2 episodes" in capsys.readouterr().out  # one on either side of the damage
    ant = Ant(threads=1)
    alone = episodes(make_controller(ant, CONFIG), ant, [parse(CONDITION)], [SEED], STEPS, threads=1)
    got = rows(tmp_path / "data")
    assert np.array_equal(got.s.numpy(), alone.s[0, : STEPS - 1].astype(np.float32))
    assert np.array_equal(got.a.numpy(), alone.a[0, : STEPS - 1])
    assert np.array_equal(got.s_next.numpy(), alone.s[0, 1:STEPS].astype(np.float32))
    assert got.episode.tolist() == [0] * 30 + [1] * (STEPS - 31) and not got.healthy.any()
    (summary,) = json.loads((tmp_path / "data/summary.json").read_text())
    assert summary["conditions"] == [CONDITION] and summary["transitions"] == STEPS - 1


def test_without_telemetry_an_overtaken_command_does_not_act(recording, tmp_path):
    """As the robot obeys none that comes after a newer one. Without the settings, too, the recording's times count."""
    kept = [
        m
        for m in bag.read(recording)
        if m.topic.rsplit("/", 1)[1] in TYPES and not m.topic.endswith(("/telemetry", "/config"))
    ]
    sent = [m for m in kept if m.topic.endswith("/commands")]
    late = [sent[i]._replace(time=sent[i + 2].time + 1000) for i in (20, 50, 60)]
    found = []
    for name, messages in (("in-order", kept), ("overtaken", sorted((*kept, *late), key=lambda m: m.time))):
        copy = bag.Bag(tmp_path / name)
        for topic in dict.fromkeys(m.topic for m in messages):
            copy.add(topic, TYPES[topic.rsplit("/", 1)[1]])
        for m in messages:
            copy.write(m.topic, m.time, m.content)
        copy.close()
        main(["collect", "ant", "--from-bag", str(tmp_path / name), "--out", str(tmp_path / f"{name}-data")])
        found.append(rows(tmp_path / f"{name}-data").a.numpy())
    assert len(found[0]) == len(found[1]) > STEPS - 5
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_train_takes_it(recording, tmp_path):
    for _ in range(4):  # eight episodes, the fewest of which `train` holds one out
        main(["collect", "ant", "--from-bag", str(recording), "--out", str(tmp_path / "data")])
    main(
        ["train", "ant", "--data", str(tmp_path / "data"), "--init", str(weights_of("ant", "last-layer")), "--adapter", "last-layer",
         "--train.steps", "2", "--windows", "2", "--out", str(tmp_path / "train")]
    )  # fmt: skip
    assert json.loads((tmp_path / "train/record.json").read_text())["transitions"] == 4 * (STEPS - 1)


def _nan(name: str, m: Any) -> Any:
    return replace(m, position=np.full(8, np.nan)) if name == "joint_states" and at(m, 50) else m


def _gap(name: str, m: Any) -> Any:
    return None if name == "odom" and at(m, 50) else m


def _shape(name: str, m: Any) -> Any:
    return replace(m, velocity=m.velocity[:7]) if name == "joint_states" and at(m, 50) else m


def _command(name: str, m: Any) -> Any:
    label = convert.label_of(m) if name == "commands" else None
    return replace(m, data=m.data[:5]) if label is not None and label.seq == 51 else m


def _large(name: str, m: Any) -> Any:
    label = convert.label_of(m) if name == "commands" else None
    return replace(m, data=3 * np.ones(8)) if label is not None and label.seq == 51 else m


BAD = {
    "nan": (_nan, "at 2.500 s: joint positions"), "gap": (_gap, "a gap of 100 ms"), "shape": (_shape, "with 8 positions and 7 velocities"),
    "command": (_command, "a command of 5 numbers; wanted: 8"), "bounds": (_large, "out of bounds"),
}  # fmt: skip


@pytest.mark.parametrize("which", BAD)
def test_what_cannot_be_used_is_named_and_may_be_left_out(recording, tmp_path, capsys, which):
    change, words = BAD[which]
    path = changed(recording, tmp_path / "bag", change)
    with pytest.raises(SystemExit) as stopped:
        main(["collect", "ant", "--from-bag", str(path), "--out", str(tmp_path / "data")])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and words in said and "--skip-bad" in said and len(said.strip().splitlines()) == 1
    assert not (tmp_path / "data").exists()
    main(["collect", "ant", "--from-bag", str(path), "--out", str(tmp_path / "data"), "--skip-bad"])
    got = rows(tmp_path / "data")
    lost = 1 if which in ("command", "bounds") else 2  # transitions that it would be in
    assert got.n == STEPS - 1 - lost and int(got.episode.max()) == 2


def test_a_recording_of_another_robot_or_of_none_is_named(recording, tmp_path, capsys):
    def another(name: str, m: Any) -> Any:
        return replace(m, data=m.data.replace('"robot": "ant"', '"robot": "quadrotor"')) if name == "config" else m

    def states_alone(name: str, m: Any) -> Any:
        return m if name in ("odom", "joint_states") else None

    for i, (change, words) in enumerate(
        ((another, "robot 'quadrotor'; valid: of 'ant'"), (states_alone, "a command between"))
    ):
        path = changed(recording, tmp_path / f"bag{i}", change)
        with pytest.raises(SystemExit) as stopped:
            main(["collect", "ant", "--from-bag", str(path), "--out", str(tmp_path / "data")])
        assert stopped.value.code == 2 and words in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["collect", "ant", "--from-bag", str(tmp_path / "nothing"), "--out", str(tmp_path / "data")])
    assert stopped.value.code == 2 and "no recording at" in capsys.readouterr().err
