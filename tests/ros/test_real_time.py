"""Real time, and faster: what was sent is what replay makes of the recording, late plans and missing states included."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; valid: pip install 'sealegs[ros]'")

from controller.cli import main
from controller.guard import BLIND
from controller.ros import bag, told
from controller.ros.bench import Bench
from controller.ros.loop import STEP

QUICK = (
    "--controller.planner.samples",
    "16",
    "--controller.planner.horizon",
    "3",
    "--controller.planner.iterations",
    "2",
)


def run(path, domain, *extra):
    main(["ros", "ant", "--record", str(path), "--domain", str(domain), *QUICK, *extra])


def rows(path) -> list[dict[str, float]]:
    return [told.read(m.content).row._asdict() for m in bag.read(path) if m.topic.endswith("/telemetry")]


@pytest.mark.parametrize(
    "extra",
    [
        ("--drop", "0.1", "--delay-ms", "10", "--jitter-ms", "10", "--namespace", "left"),
        ("--speed", "4", "--condition", "leg:3@40"),
    ],
    ids=["real, a bad network, a namespace", "fast"],
)
def test_what_was_sent_is_what_replay_makes(tmp_path, domain, capsys, extra):
    run(tmp_path / "bag", domain, "--duration", "4", *extra)
    main(["replay", str(tmp_path / "bag")])  # ends with exit code 1 where an action differs
    said = capsys.readouterr().out
    sent = [m for m in bag.read(tmp_path / "bag") if m.topic.endswith("/commands")]
    assert f"{len(sent)} of {len(sent)} actions identical" in said
    assert all(abs(x) <= 1 for m in sent for x in m.content.data)
    kinds = {row["kind"] for row in rows(tmp_path / "bag")}
    assert any(row["prepare_ms"] > 0 for row in rows(tmp_path / "bag"))  # the first iteration, ahead
    planned = [row for row in rows(tmp_path / "bag") if row["total_ms"] > 0]
    if sys.platform == "linux":
        assert all(row["waited_ms"] >= 0 and row["stolen_ms"] >= 0 for row in planned)
    assert all(row["arithmetic_us"] > 0 for row in planned)
    if "left" in extra:
        assert any(row["event"] == BLIND for row in rows(tmp_path / "bag"))
        assert kinds >= {0.0, 1.0} and all(m.topic.startswith("/left/") for m in sent)


def test_stamps_tell_the_time_after_the_machine_stood_still(tmp_path, domain):
    """Otherwise every later state looks late, or its delay is predicted over, though it is not."""
    bench = Bench(tmp_path, domain)
    try:
        bench.running()
        robot = bench.nodes.processes["robot"]
        for _ in range(3):
            robot.send_signal(signal.SIGSTOP)
            time.sleep(0.5)
            robot.send_signal(signal.SIGCONT)
            bench.probe.spin(0.3)
        since = time.monotonic()
        assert bench.probe.spin(20, lambda: bench.probe.fresh(since, 10))
        ways = [r.way_ms for t, r in bench.probe.rows if t > since and r.kind == STEP]
    finally:
        bench.close()
    assert np.median(ways) < 100, ways


def test_the_robot_announces_its_condition(tmp_path, domain):
    run(tmp_path / "bag", domain, "--lockstep", "--duration", "2", "--condition", "leg:3@10+healthy@25")
    said = [json.loads(m.content.data) for m in bag.read(tmp_path / "bag") if m.topic.endswith("/condition")]
    assert [x["step"] for x in said] == [0, 10, 25] and said[1]["stamp"] == 10 * 50_000_000


def test_without_ros_one_sentence_names_what_to_install(tmp_path):
    hide = "import sys; sys.modules['rclpy'] = None; import importlib.util as u; u.find_spec = lambda n, p=None: None; "
    done = subprocess.run(
        [sys.executable, "-c", hide + "from controller.cli import main; main(['ros', 'ant', '--duration', '1'])"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert (
        done.stderr.strip().splitlines()[-1].startswith("sealegs: ROS 2 is not installed here")
        and "sealegs[ros]" in done.stderr
    )
    assert len(done.stderr.strip().splitlines()) == 1
