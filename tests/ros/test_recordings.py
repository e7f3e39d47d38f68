"""Recordings whose disk gives up: what was written before is a whole recording, and a run says that it is not all of it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; valid: pip install 'sealegs[ros]'")

import rclpy
from geometry_msgs.msg import PointStamped
from lockstep import QUICK
from nav_msgs.msg import Odometry
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from std_msgs.msg import Float64MultiArray

from controller.cli import main
from controller.config import UsageError
from controller.ros import bag
from controller.ros.bag import Bag
from controller.ros.bench import began
from controller.ros.faults import FaultsConfig, remaining, small_disk
from controller.ros.keep import keep, resume
from controller.ros.node import OFFERED


def test_a_disk_that_fills_during_a_run_keeps_what_was_written_before(tmp_path, domain, capsys):
    try:
        with small_disk(tmp_path / "disk", 250) as disk:
            with pytest.raises(SystemExit) as stopped:
                main(
                    ["ros", "ant", "--lockstep", "--duration", "20", "--record", str(disk / "bag"), "--condition", "leg:3@20",
                     "--domain", str(domain), *QUICK]
                )  # fmt: skip
            out, err = capsys.readouterr()
            assert stopped.value.code == 1 and "ends before the run" in err
            assert out.count("recording stopped") == 1 and "No space left" in out and "400 steps" in out
            main(["replay", str(disk / "bag")])  # ends with exit code 1 where an action differs
            same, _, every = capsys.readouterr().out.split()[:3]
            assert same == every and 20 < int(every) < 400
            main(["hil-report", str(disk / "bag"), "--out", str(tmp_path / "report")])
        told = json.loads((tmp_path / "report/report.json").read_text())
        assert abs(told["commands"] - int(every)) <= 1 and told["lost"]["commands_missing"] == 0
    except PermissionError as e:
        pytest.skip(str(e))


def test_a_remapped_topic_is_recorded_by_its_own_name(tmp_path, domain):
    """So that `replay` and `hil-report` know it again."""
    argv = [sys.executable, "-m", "controller.ros", "record", "--ros-args", "-p", "robot:=quadrotor", "-p", f"out:={tmp_path / 'bag'}",
            "-r", "odom:=/mavros/odom", "-r", "__ns:=/left"]  # fmt: skip
    env = os.environ | {"ROS_DOMAIN_ID": str(domain), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    assert any("recording to" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    said = (tmp_path / "bag/metadata.yaml").read_text()
    assert "name: /left/odom" in said and "mavros" not in said


def test_a_publisher_that_repeats_nothing_is_recorded_whenever_it_comes(tmp_path, domain):
    """As MAVROS and most drivers of sensors are; commands of a controller that is not ours, too. What is repeated is recorded once."""
    argv = [sys.executable, "-m", "controller.ros", "record", "--ros-args", "-p", "robot:=quadrotor", "-p", f"out:={tmp_path / 'bag'}",
            "-r", "odom:=/mavros/odom", "-r", "__ns:=/left"]  # fmt: skip
    env = os.environ | {"ROS_DOMAIN_ID": str(domain), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    driver = Node("driver", context=context, namespace="left")
    try:
        assert process.stdout is not None
        assert any("recording to" in line for line in process.stdout)
        kinds = {"/mavros/odom": Odometry, "payload": PointStamped, "sealegs_controller/commands": Float64MultiArray}
        publishers = {
            topic: driver.create_publisher(kind, topic, OFFERED if topic == "payload" else qos_profile_sensor_data)
            for topic, kind in kinds.items()
        }
        end = time.monotonic() + 30
        while not all(p.get_subscription_count() for p in publishers.values()):
            assert time.monotonic() < end, "the recorder does not listen"
            time.sleep(0.02)
        time.sleep(0.3)  # for the recorder to find us, too
        for i in range(50):
            for topic, publisher in publishers.items():
                message = kinds[topic]()
                if topic == "sealegs_controller/commands":
                    message.data = [float(i)]
                else:
                    message.header.stamp.sec = i
                publisher.publish(message)
            time.sleep(0.01)
        time.sleep(0.3)
    finally:
        driver.destroy_node()
        rclpy.try_shutdown(context=context)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "incompatible" not in said
    assert [topic for topic in ("odom", "payload", "commands") if f"{topic} is published best effort" in said] == [
        "odom",
        "commands",
    ]
    found = list(bag.read(tmp_path / "bag"))
    stamps = {x: [m.content.header.stamp.sec for m in found if m.topic == f"/left/{x}"] for x in ("odom", "payload")}
    sent = [int(m.content.data[0]) for m in found if m.topic.endswith("/commands")]
    assert stamps == {"odom": list(range(50)), "payload": list(range(50))} and sent == list(range(50))


def text(i: int) -> SimpleNamespace:
    return SimpleNamespace(data=f"{i}" * 200)


@pytest.mark.parametrize("flushed", [0, 3, 40])
def test_what_was_flushed_survives_a_write_that_fails(tmp_path, flushed):
    written = Bag(tmp_path / "bag")
    written.add("/a", "std_msgs/msg/String")
    for i in range(flushed):
        written.write("/a", i, text(i))
        written.flush()
    written.write("/a", flushed, text(flushed))
    os.write(written._file.fileno(), b"half a chunk")  # as much as still went onto the disk
    assert written.rescue() == flushed
    assert [m.time for m in bag.read(tmp_path / "bag")] == list(range(flushed))


@pytest.mark.parametrize(
    ("kib", "flush", "share"), [(250, False, 0.6), (4000, True, 0.5)], ids=["within the first second", "a long index"]
)
def test_what_was_written_before_a_disk_filled_is_kept(tmp_path, kib, flush, share):
    """However fast it came; and the index, which has a line for every chunk and may be longer than many of them, finds room."""
    try:
        with small_disk(tmp_path / "disk", kib) as disk:
            written, n = Bag(disk / "bag"), 0
            written.add("/a", "std_msgs/msg/String")
            with pytest.raises(OSError, match="No space left"):
                for n in range(100_000):
                    written.write("/a", n, text(0))
                    if flush:
                        written.flush()
            kept = written.rescue()
            assert [m.time for m in bag.read(disk / "bag")] == list(range(kept))
            assert n > kib and kept > share * n
    except PermissionError as e:
        pytest.skip(str(e))


def test_a_measurement_goes_on_where_it_was_cut_with_the_same_settings_alone(tmp_path):
    assert resume(tmp_path, "found", {"speed": 1.0}) == []
    keep(tmp_path, "found", {"speed": 1.0, "seeds": (1, 2)}, [{"seed": 1}], "| |\n")
    assert resume(tmp_path, "found", {"speed": 1.0, "seeds": (1, 2)}) == [{"seed": 1}]
    assert (tmp_path / "found.md").read_text() == "| |\n"
    with pytest.raises(UsageError, match=r"speed 1\.0, not 2\.0"):
        resume(tmp_path, "found", {"speed": 2.0, "seeds": (1, 2)})
    for damaged in ('{"settings": {"speed": 1.0}', '{"settings": {}}', "[]", '{"settings": 1, "rows": []}'):
        (tmp_path / "found.json").write_text(damaged)
        with pytest.raises(UsageError, match=r"found\.json cannot be read .*valid: "):
            resume(tmp_path, "found", {"speed": 1.0})
        assert (tmp_path / "found.json").read_text() == damaged


def test_trials_of_chosen_faults_alone_are_made_again():
    rows = [{"trial": i, "fault": fault} for i in range(2) for fault in ("late", "nan")]
    asked = FaultsConfig(robot="quadrotor", times=3, faults=("late",))
    assert remaining(asked, rows) == (rows, [(2, "late")])
    assert remaining(replace(asked, again=True), rows) == (rows[1::2], [(i, "late") for i in range(3)])


def test_a_trial_is_judged_by_the_last_of_several_robots():
    """Stamps that are set back by a period or two are messages that overtook each other."""
    s = 1_000_000_000
    assert began([]) == 0 and began([s, 2 * s, 2 * s - s // 10, 3 * s]) == 0
    assert began([s, 2 * s, 0, s, 2 * s, s // 2, s]) == 5
