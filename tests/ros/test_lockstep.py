"""Closed loop over DDS in lockstep: the run of one process to the bit, recorded, reported."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; valid: pip install 'sealegs[ros]'")

import rclpy
from lockstep import CONDITION, CONFIG, SEED, STEPS
from rclpy.context import Context

from controller.cli import main
from controller.config import make_controller
from controller.ros import bag, convert
from controller.ros.bench import QUICK, Probe
from controller.ros.commands import Nodes
from controller.ros.report import speed_after
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
    onset = parse(CONDITION).onsets[-1]
    speed = ant.score(alone.s[0, onset:-1], alone.s[0, onset + 1 :])[
        : STEPS - 1 - onset
    ]  # after its last command nothing is published
    assert np.allclose(speed_after(recording, Ant.dt), speed, atol=1e-6)


def noisy(folder: Path, domain: int, halts: tuple[int, ...]) -> tuple[dict[int, np.ndarray], list[int]]:
    """A run with noise whose controller halts for half a second, after so many commands. -> commands by number, stamps of the states sent"""
    folder.mkdir()
    nodes, context = Nodes(folder, domain, ""), Context()
    rclpy.init(context=context, domain_id=domain)
    probe = Probe(context)
    try:
        nodes.start("controller", {"robot": "ant", "lockstep": True, "autostart": True, **QUICK})
        nodes.wait_for("controller", "active")
        assert probe.spin(30, lambda: probe.count_publishers("sealegs_controller/commands") > 0)
        probe.spin(0.5)  # for it to find the probe
        noise = {"noise.joint_position": 0.01, "noise.velocity": 0.05, "noise.orientation": 0.01}
        nodes.start(
            "robot", {"robot": "ant", "mode": "lockstep", "seed": SEED, "steps": STEPS, "listeners": 2, **noise}
        )
        for n in halts:
            assert probe.spin(60, lambda n=n: len(probe.commands) >= n)
            nodes.processes["controller"].send_signal(signal.SIGSTOP)
            probe.spin(0.5)
            nodes.processes["controller"].send_signal(signal.SIGCONT)
        assert probe.spin(60, lambda: nodes.processes["robot"].poll() is not None)
    finally:
        nodes.stop(*nodes.processes)
        probe.destroy_node()
        rclpy.try_shutdown(context=context)
    return {c.label.seq: c.data for c in probe.commands}, [stamp for stamp, _ in probe.efforts]


def test_a_state_that_is_sent_again_is_the_same_reading(tmp_path, domain):
    """So that noise is the seed's, however long an answer takes and whatever gets lost."""
    prompt, _ = noisy(tmp_path / "prompt", domain, ())
    slow, sent = noisy(tmp_path / "slow", domain, (15, 45))
    assert len(sent) > len(set(sent))  # some were sent again
    assert len(prompt.keys() & slow.keys()) > 0.9 * STEPS
    assert all(np.array_equal(prompt[seq], slow[seq]) for seq in prompt.keys() & slow.keys())


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
