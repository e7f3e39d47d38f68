"""Two robots in two namespaces of one domain: each controller commands its own, and nothing crosses."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; valid: pip install 'sealegs[ros]'")

import rclpy
from lockstep import CONFIG
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

from controller.config import make_controller
from controller.ros import convert, told
from controller.ros.bench import QUICK
from controller.ros.commands import Nodes
from controller.ros.loop import MISS, OPERATOR, STEP, Row
from controller.ros.node import EVERYTHING
from controller.ros.robot_time import NEW
from controller.run import episodes
from robots.ant import Ant
from robots.condition import parse

SEEDS = {"left": 3, "right": 4}
STEPS = 40
SHARED = {"/diagnostics", "/clock", "/parameter_events", "/rosout"}  # ROS's own, absolute by convention


class Watcher(Node):
    """Commands and telemetry of both robots, by namespace."""

    def __init__(self, context: Context):
        super().__init__("watcher", context=context)
        self.commands: dict[str, list[tuple[convert.Label | None, np.ndarray]]] = {ns: [] for ns in SEEDS}
        self.rows: dict[str, list[Row]] = {ns: [] for ns in SEEDS}
        for ns in SEEDS:
            for topic, take in (("commands", self._command), ("telemetry", self._row)):
                name = f"/{ns}/sealegs_controller/{topic}"
                self.create_subscription(Float64MultiArray, name, lambda m, ns=ns, take=take: take(ns, m), EVERYTHING)
        self._spinner = SingleThreadedExecutor(context=context)
        self._spinner.add_node(self)

    def _command(self, ns: str, m: Float64MultiArray) -> None:
        self.commands[ns].append((convert.label_of(m), np.array(m.data)))

    def _row(self, ns: str, m: Float64MultiArray) -> None:
        self.rows[ns].append(told.read(m).row)

    def hears_everything(self) -> None:
        """In lockstep nothing is sent before there is a robot, and its first forty steps take less time than DDS may need to find us."""
        topics = [f"/{ns}/sealegs_controller/{x}" for ns in SEEDS for x in ("commands", "telemetry")]
        assert self.spin(lambda: all(self.count_publishers(t) for t in topics))
        found = time.monotonic()
        self.spin(lambda: time.monotonic() > found + 0.5)  # for them to find us

    def ask(self, kind, name: str, request):
        """The left robot's controller, which goes on after it."""
        service = self.create_client(kind, f"/left/sealegs_controller/{name}")
        assert self.spin(service.service_is_ready)
        answer = service.call_async(request)
        assert self.spin(answer.done)
        n = len(self.rows["left"])
        assert self.spin(lambda: len(self.rows["left"]) > n + 3), name
        return answer.result()

    def spin(self, until) -> bool:
        end = time.monotonic() + 60
        while not (done := until()) and time.monotonic() < end:
            self._spinner.spin_once(timeout_sec=0.02)
        return done


@pytest.fixture
def watcher(domain) -> Iterator[Watcher]:
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    made = Watcher(context)
    yield made
    made.destroy_node()
    rclpy.try_shutdown(context=context)


def folder(path: Path, name: str) -> Path:
    (path / name).mkdir()
    return path / name


def test_each_controller_commands_its_own_robot_alone(tmp_path, domain, watcher):
    sides = {ns: Nodes(folder(tmp_path, ns), domain, ns) for ns in SEEDS}
    try:
        for ns, nodes in sides.items():
            control = {"robot": "ant", "seed": SEEDS[ns], "lockstep": True, "autostart": True, **QUICK}
            nodes.start("controller", control)
        for nodes in sides.values():
            nodes.wait_for("controller", "active")
        watcher.hears_everything()
        for ns, nodes in sides.items():
            nodes.start("robot", {"robot": "ant", "seed": SEEDS[ns], "mode": "lockstep", "listeners": 1})
        assert watcher.spin(lambda: all(len(c) >= STEPS for c in watcher.commands.values()))

        topics = {name for name, _ in watcher.get_topic_names_and_types()}
        services = {name for name, _ in watcher.get_service_names_and_types() if "/watcher/" not in name}
        for ns in SEEDS:
            assert {f"/{ns}/{x}" for x in ("odom", "joint_states", "sealegs_controller/commands")} <= topics
            assert {f"/{ns}/sealegs_controller/{x}" for x in ("hold", "change_state", "set_parameters")} <= services
        assert not {x for x in topics - SHARED | services if x.split("/")[1] not in SEEDS}

        # Whatever is being planned, and whatever becomes of that plan, every state gets its answer.
        for samples in range(16, 24):
            p = Parameter("controller.planner.samples", value=samples).to_parameter_msg()
            answer = watcher.ask(SetParameters, "set_parameters", SetParameters.Request(parameters=[p]))
            assert answer.results[0].successful
        for name in ("reset_adaptation",) * 8 + ("hold", "resume") * 4 + ("hold",):
            assert watcher.ask(Trigger, name, Trigger.Request()).success
        answered = (
            time.monotonic()
        )  # telemetry from before may still be on its way: rows say when their command was sent, on the same clock

        def since() -> dict[str, list[Row]]:
            return {ns: [r for r in rows if r.sent_s > answered] for ns, rows in watcher.rows.items()}

        assert watcher.spin(lambda: all(len(rows) >= 20 for rows in since().values()))
        kinds = {ns: {(r.kind, r.cause) for r in rows} for ns, rows in since().items()}
        assert kinds["left"] == {(MISS, OPERATOR)} and {kind for kind, _ in kinds["right"]} == {STEP}
    finally:
        for nodes in sides.values():
            nodes.stop(*nodes.processes)
    ant = Ant(threads=1)
    for ns, seed in SEEDS.items():
        alone = episodes(make_controller(ant, CONFIG), ant, [parse("healthy")], [seed], STEPS, threads=1).a[0]
        run = min(label.run for label, _ in watcher.commands[ns] if label is not None)  # before settings were changed
        sent = [
            (label.seq, a)
            for label, a in watcher.commands[ns]
            if label is not None and label.run == run and label.seq <= STEPS
        ]
        assert len(sent) > STEPS // 2 and all(np.array_equal(a, alone[seq - 1]) for seq, a in sent)


def test_one_clock_is_one_robots_and_a_second_robot_may_have_its_own(tmp_path, domain, watcher):
    fast = {"robot": "ant", "mode": "fast", "speed": 0.2}
    left, right = (Nodes(folder(tmp_path, ns), domain, ns) for ns in SEEDS)
    others: list[subprocess.Popen[bytes]] = []
    try:
        left.start("robot", fast)
        assert watcher.spin(lambda: watcher.count_publishers("/clock") == 1)
        end = time.monotonic() + 1.2 * NEW  # before, both would give way
        assert watcher.spin(lambda: time.monotonic() > end)
        right.start("robot", fast)
        assert right.processes["robot"].wait(60) == 2
        (said,) = [x for x in right.output("robot").splitlines() if x.startswith("sealegs: ")]
        words = ("/clock is published by ", "valid: mode lockstep or real", "-r /clock:=clock")
        assert all(x in said for x in words), said
        assert left.processes["robot"].poll() is None

        for name, values in (("controller", {"autostart": True, "use_sim_time": True, **QUICK}), ("robot", fast)):
            given = [x for k, v in values.items() for x in ("-p", f"{k}:={str(v).lower()}")]
            argv = [
                sys.executable, "-m", "controller.ros", name, "--ros-args", "-r", "__ns:=/right", "-r", "/clock:=clock",
                *given,
            ]  # fmt: skip
            others.append(subprocess.Popen(argv, env=right._env, start_new_session=True))
        assert watcher.spin(lambda: sum(r.kind == STEP for r in watcher.rows["right"]) > 8)
        assert watcher.count_publishers("/clock") == watcher.count_publishers("/right/clock") == 1
        steps = np.diff([r.sent_s for r in watcher.rows["right"]])
        assert steps.min() > 0 and steps.max() < 3 * Ant.dt
    finally:
        for process in others:
            process.terminate()
            process.wait(20)
        for nodes in (left, right):
            nodes.stop(*nodes.processes)
