"""`sealegs ros`, `sealegs replay`, `sealegs hil-report`. Only the nodes that `sealegs ros` starts need ROS."""

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from controller.config import AnyRobot, ControllerConfig, UsageError, at_least
from controller.evaluate_quadrotor import QuadrotorConfig, check_target, make_path
from controller.ros import stop
from controller.ros.bag import INSTALL
from controller.ros.controller_config import ControlConfig, real_time
from controller.ros.flight_config import FlightConfig, make_robot
from controller.ros.params import flatten
from controller.ros.robot_config import RobotConfig
from controller.ros.stop import STOP
from robots.ant import Ant
from robots.quadrotor_condition import parse

READY_S = 120.0  # for a node to import, load and warm up on a busy machine


@dataclass(frozen=True)
class RosConfig:
    """What every robot's run has."""

    duration: float = 30.0
    """of the robot's time [s]"""
    record: Path | None = None
    """a folder for the recording (rosbag2, MCAP); it must not be there yet"""
    lockstep: bool = False
    """a state, its command, the next state: deterministic, as fast as it goes"""
    speed: float = 1.0
    """times real time; other than 1 with /clock"""
    condition: str = ""
    """what happens to the robot; by default nothing"""
    seed: int = ControlConfig.seed
    weights: Path | None = None
    domain: int | None = None
    """ROS_DOMAIN_ID; by default the environment's"""
    namespace: str = ""
    delay_ms: float = RobotConfig.delay_ms
    """of the state on its way to the controller"""
    jitter_ms: float = RobotConfig.jitter_ms
    drop: float = RobotConfig.drop
    """probability that a state's message is lost"""
    relay_commands: bool = RobotConfig.relay_commands
    """commands are delayed and lost on their way, too"""
    max_delay_ms: float = ControlConfig.max_delay_ms
    """a state this much later than the quickest of the last is not used; 0: never late"""
    command_delay_ms: float = ControlConfig.command_delay_ms
    """a command's way until it acts, where it is known: nothing measures it"""
    repeat_commands: int = ControlConfig.repeat_commands
    """how often each command is sent again, spread over the period"""
    delay_compensation: bool = ControlConfig.delay_compensation
    """predict the state over the measured time until the command acts, before planning; never in lockstep"""
    thread_priority: int = ControlConfig.thread_priority
    """of SCHED_FIFO for controller and robot in real time, 1 to 99, where the system permits it; 0: the ordinary priority"""
    keep_awake: bool = ControlConfig.keep_awake
    """no core halts while the controller is active, for machines on which one that halted is slow to come back"""


@dataclass(frozen=True)
class Ros(RosConfig):
    """A simulated ant and its controller as two ROS 2 nodes, in two processes."""

    robot: AnyRobot = "ant"
    controller: ControllerConfig = field(default_factory=real_time)


@dataclass(frozen=True)
class RosQuadrotor(RosConfig):
    """A simulated quadrotor and its controller as two ROS 2 nodes, in two processes."""

    robot: AnyRobot = "quadrotor"
    engine: Literal["mujoco", "pybullet"] = "mujoco"
    flight: FlightConfig = field(default_factory=FlightConfig)


@dataclass(frozen=True)
class Replay:
    """Re-run the controller on a recording's states: prints how many actions are identical, exit code 1 where any differs."""

    bag: Annotated[Path, tyro.conf.Positional]


@dataclass(frozen=True)
class HilReport:
    """A recording -> report.md, report.json and plots: rates, jitter, latency, misses, losses, adaptation lag."""

    bag: Annotated[Path, tyro.conf.Positional]
    out: Path = Path("runs/hil")


def needs_ros() -> None:
    """Raises UsageError where there is none."""
    if importlib.util.find_spec("rclpy") is None:
        raise UsageError(f"ROS 2 is not installed here (no module rclpy); {INSTALL}, or source an installed ROS 2")


def parameters(values: dict[str, Any]) -> str:
    """A parameter file for every node. JSON is YAML; names with dots become nests."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *path, last = name.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = value
    return json.dumps({"/**": {"ros__parameters": tree}})


class Nodes:
    """Processes that end together. The output of each goes to a file and is shown where it fails."""

    def __init__(self, folder: Path, domain: int | None, namespace: str, hosts: Mapping[str, str] | None = None):
        """hosts: the network namespace that a node runs in, by the node's name; needs root."""
        self._folder, self._namespace, self._hosts = folder, namespace, hosts or {}
        self._env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        self._env.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        if domain is not None:
            self._env["ROS_DOMAIN_ID"] = str(domain)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, values: dict[str, Any]) -> None:
        file = self._folder / f"{name}.yaml"
        file.write_text(parameters(values))
        command = [sys.executable, "-m", "controller.ros", name, "--ros-args", "--params-file", str(file)]
        if self._namespace:
            command += ["-r", f"__ns:=/{self._namespace.strip('/')}"]
        if host := self._hosts.get(name):
            command = ["ip", "netns", "exec", host, *command]
        with open(self._log(name), "wb") as log:
            self.processes[name] = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=self._env, start_new_session=True
            )

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def output(self, name: str) -> str:
        return self._log(name).read_text(errors="replace")

    def wait_for(self, name: str, words: str) -> None:
        """Until the node has said so. Raises UsageError where it ends first or takes too long."""
        end = time.monotonic() + READY_S
        while words not in self.output(name) and not STOP.is_set():
            self.check()
            if time.monotonic() > end:
                raise UsageError(
                    f"the {name} node was not ready after {READY_S:g} s; valid: a machine with time for it"
                )
            time.sleep(0.02)

    def check(self) -> None:
        """Raises UsageError where a node ended with an error."""
        for name, process in self.processes.items():
            if process.poll():
                said = self.output(name).strip().splitlines() or ["nothing was said"]
                sentence = next((line[9:] for line in said if line.startswith("sealegs: ")), said[-1])
                raise UsageError(f"the {name} node ended with exit code {process.returncode}: {sentence}")

    def stop(self, *names: str) -> None:
        """Ask them to end; those that do not within 10 s are killed."""
        asked = [self.processes[name] for name in names if self.processes[name].poll() is None]
        for process in asked:
            process.send_signal(signal.SIGINT)
        end = time.monotonic() + 10
        for process in asked:
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def period(c: Ros | RosQuadrotor) -> float:
    """[s] Raises what a flight that cannot be is refused with: VehicleError, ConditionError, TrajectoryError, UsageError."""
    if isinstance(c, Ros):
        return Ant.dt
    robot = make_robot(c.flight, c.engine)
    schedule = parse(c.condition or "none", robot.vehicle)
    check_target(QuadrotorConfig(target=c.flight.target), [schedule])
    make_path(c.flight.trajectory, c.flight.speed, robot, [schedule], c.seed)
    return robot.dt


def ros(c: Ros | RosQuadrotor, hosts: Mapping[str, str] | None = None) -> None:
    """hosts: see Nodes. Raises UsageError, VehicleError, ConditionError, TrajectoryError."""
    needs_ros()
    for name in ("duration", "speed"):
        if not (math.isfinite(value := getattr(c, name)) and value > 0):
            raise UsageError(f"{name} is {value}; valid: more than 0")
    at_least(0, seed=c.seed)
    if c.record is not None and c.record.exists():
        raise UsageError(f"{c.record} is there already; valid: a folder that is not")
    dt = period(c)
    steps = max(1, round(c.duration / dt))
    mode = "lockstep" if c.lockstep else "real" if c.speed == 1 else "fast"
    clock = {"use_sim_time": mode == "fast"}
    group = {"controller": c.controller} if isinstance(c, Ros) else {"flight": c.flight}
    own = {f"{name}.{k}": v for name, config in group.items() for k, v in flatten(config).items()}
    control = {
        "robot": c.robot, "weights": str(c.weights.resolve() if c.weights else ""), "seed": c.seed, "autostart": True,
        "lockstep": c.lockstep, "delay_compensation": c.delay_compensation, "command_delay_ms": c.command_delay_ms,
        "max_delay_ms": c.max_delay_ms, "repeat_commands": c.repeat_commands, "thread_priority": c.thread_priority,
        "keep_awake": c.keep_awake, **own, **clock,
    }  # fmt: skip
    engine = {} if isinstance(c, Ros) else {"engine": c.engine, **own}
    robot = {
        "robot": c.robot, "condition": c.condition, "seed": c.seed, "mode": mode, "speed": float(c.speed), "steps": steps,
        "listeners": 1 + (c.record is not None), "delay_ms": c.delay_ms, "jitter_ms": c.jitter_ms, "drop": c.drop,
        "relay_commands": c.relay_commands, "thread_priority": c.thread_priority, **engine,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        nodes = Nodes(Path(folder), c.domain, c.namespace, hosts)
        handlers = stop.install()
        try:
            if c.record is not None:
                nodes.start("record", {"robot": c.robot, "out": str(c.record.resolve())})
            nodes.start("controller", control)
            if c.record is not None:
                nodes.wait_for("record", "recording to")
            nodes.wait_for("controller", "active")
            nodes.start("robot", robot)
            begun = time.monotonic()
            while nodes.processes["robot"].poll() is None and not STOP.is_set():
                nodes.check()
                time.sleep(0.05)
            nodes.check()
            time.sleep(0.2)  # for the last messages
            nodes.check()
        finally:
            nodes.stop(*(n for n in nodes.processes if n != "record"))
            nodes.stop(*(n for n in nodes.processes if n == "record"))
            stop.restore(handlers)
        _complain(nodes)
        cut = c.record is not None and "recording stopped" in nodes.output("record")
    if STOP.is_set():
        sys.exit(130)
    print(f"{steps} steps of {1e3 * dt:g} ms in {time.monotonic() - begun:.1f} s")
    if c.record is not None:
        _settings_beside(c, c.record, cut)


def _complain(nodes: Nodes) -> None:
    for name in nodes.processes:
        for line in nodes.output(name).splitlines():
            if "[WARN]" in line or "[ERROR]" in line:
                print(f"{name}: {line}")


def _settings_beside(c: Ros | RosQuadrotor, path: Path, cut: bool) -> None:
    """Exit code 1 where the recording is not there, or ends before the run did."""
    if not (path / "metadata.yaml").is_file():
        print(f"sealegs: the recording at {path} is not whole; what was said above tells why", file=sys.stderr)
        sys.exit(1)
    try:
        (path / "sealegs.json").write_text(json.dumps(asdict(c), indent=1, default=str))
    except OSError as e:
        print(f"sealegs: the settings could not be written beside the recording: {e}", file=sys.stderr)
    if cut:
        print(f"sealegs: the recording at {path} ends before the run; what was said above tells why", file=sys.stderr)
        sys.exit(1)
    print(f"written: {path}")


def replay(c: Replay) -> None:
    """Exit code 1 where an action differs."""
    from controller.ros.replay import replay as again

    counts = again(c.bag)
    lost = f"; {counts.lost} of them lack a state or a command in the recording" if counts.lost else ""
    told = f"; {counts.told} from states that the controller told of alone" if counts.told else ""
    print(f"{counts.identical} of {counts.commands} actions identical{lost}{told}")
    if counts.identical != counts.commands or not counts.commands:
        sys.exit(1)


def hil_report(c: HilReport) -> None:
    from controller.ros.report import report

    report(c.bag, c.out)
    print(f"written: {c.out}")


# By name, then by robot, as in controller.commands.
COMMANDS: dict[str, dict[str, tuple[Any, Callable[[Any], None]]]] = {
    "ros": {"ant": (Ros, ros), "quadrotor": (RosQuadrotor, ros)},
    "replay": {"": (Replay, replay)},
    "hil-report": {"": (HilReport, hil_report)},
}
