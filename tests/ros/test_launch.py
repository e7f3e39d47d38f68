"""The launch files, run by ROS's own launch where it is installed. The same nodes without it: the other tests of this folder."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from controller.ros import bag

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; valid: pip install 'sealegs[ros]'")
WHY = "ROS's launch and launch_ros are not installed here; valid: source an installed ROS 2"
pytest.importorskip("launch_ros", reason=WHY)
LaunchDescription = getattr(pytest.importorskip("launch", reason=WHY), "LaunchDescription", None)
if LaunchDescription is None:  # our own folder, found as a namespace package
    pytest.skip(WHY, allow_module_level=True)

FOLDER = Path(__file__).parents[2] / "launch"
NODES = {"ant": 3, "quadrotor": 3, "hil": 2}  # with the recorder


@pytest.mark.parametrize("name", NODES)
def test_a_launch_file_describes_its_nodes(name):
    from launch_ros.actions import Node

    from launch import LaunchContext

    spec = importlib.util.spec_from_file_location(f"{name}_launch", FOLDER / f"{name}.launch.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    description = module.generate_launch_description()
    assert isinstance(description, LaunchDescription)
    arguments = description.get_launch_arguments()
    declared = {a.name for a in arguments}
    assert declared == set(module.ARGUMENTS) and {"namespace", "weights", "record", "params"} <= declared
    context = LaunchContext()
    for argument in arguments:
        argument.visit(context)
    context.launch_configurations["record"] = "bag"
    assert sum(isinstance(action, Node) for action in module.nodes(context)) == NODES[name]


# As `ros2 launch` does; that command is another package.
RUN = """
import sys
from launch import LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
service = LaunchService()
given = [argument.split(":=", 1) for argument in sys.argv[2:]]
service.include_launch_description(IncludeLaunchDescription(PythonLaunchDescriptionSource(sys.argv[1]), launch_arguments=given))
sys.exit(service.run())
"""


def start(prefix: Path, name: str, env: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", RUN, str(prefix / f"share/sealegs/launch/{name}.launch.py"), *arguments]
    return subprocess.Popen(
        argv, env=env, cwd=prefix, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def replayed(prefix: Path, path: Path, env: dict[str, str]) -> int:
    """Actions of a recording, all of them made again."""
    ran = subprocess.run(
        [str(prefix / "bin/sealegs"), "replay", str(path)],
        env=env,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    same, _, every = ran.stdout.split()[:3]
    assert same == every
    return int(every)


@pytest.mark.parametrize("name", ["ant", "quadrotor"])
def test_a_launch_file_runs_its_robot(name, prefix, installed, domain, tmp_path):
    """In a namespace, to its end, which ends all; its recording is replayed."""
    env = installed | {"ROS_DOMAIN_ID": str(domain)}
    arguments = ["mode:=lockstep", "steps:=30", "namespace:=left", "seed:=3", f"record:={tmp_path / 'bag'}"]
    process = start(prefix, name, env, *arguments)
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert "name: /left/odom" in (tmp_path / "bag/metadata.yaml").read_text()
    assert replayed(prefix, tmp_path / "bag", env) == 30


def test_a_file_of_parameters_holds_where_no_argument_is_given(prefix, installed, domain, tmp_path):
    """What the file says of both nodes is neither the launch file's to change nor lost beside an argument, and that is the stronger one."""
    env = installed | {"ROS_DOMAIN_ID": str(domain)}
    file, recording = tmp_path / "mine.yaml", tmp_path / "bag"
    file.write_text(
        "/**:\n  ros__parameters:\n    seed: 5\n    steps: 9\n    flight:\n      trajectory: circle\n      speed: '1.5'\n      target: payload\n"
    )
    process = start(prefix, "quadrotor", env, "mode:=lockstep", "steps:=12", f"params:={file}", f"record:={recording}")
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    config = next(json.loads(m.content.data)["config"] for m in bag.read(recording) if m.topic.endswith("/config"))
    found = [config[f"flight.{name}"] for name in ("trajectory", "speed", "target")]
    assert (config["robot"], config["seed"], found) == ("quadrotor", 5, ["circle", "1.5", "payload"])
    assert replayed(prefix, recording, env) == 12


@pytest.mark.parametrize("namespace", ["", "left"])
def test_an_argument_is_stronger_than_a_file_that_names_the_node(namespace, prefix, installed, domain, tmp_path):
    """In a file a node's full name is stronger than /**, whatever comes later."""
    env = installed | {"ROS_DOMAIN_ID": str(domain)}
    file, recording = tmp_path / "mine.yaml", tmp_path / "bag"
    flight = "    flight:\n      trajectory: hover\n      speed: slow\n"
    named = {
        "controller": f"    seed: 5\n{flight}",
        "robot": f"    seed: 5\n    steps: 9\n{flight}",
        "recorder": "    out: elsewhere\n",
    }
    sections = {f"/{namespace}/sealegs_{name}".replace("//", "/"): values for name, values in named.items()}
    file.write_text("".join(f"{name}:\n  ros__parameters:\n{values}" for name, values in sections.items()))
    arguments = [
        "mode:=lockstep",
        "steps:=12",
        "seed:=3",
        "trajectory:=circle",
        f"params:={file}",
        f"record:={recording}",
    ]
    process = start(prefix, "quadrotor", env, *arguments, *([f"namespace:={namespace}"] if namespace else []))
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    config = next(json.loads(m.content.data)["config"] for m in bag.read(recording) if m.topic.endswith("/config"))
    assert [config[name] for name in ("seed", "flight.trajectory", "flight.speed")] == [3, "circle", "slow"]
    assert replayed(prefix, recording, env) == 12


@pytest.mark.parametrize(
    "argument, valid", [("steps:=many", "a whole number"), ("params:=gone.yaml", "parameter file")]
)
def test_nonsense_is_refused_before_anything_starts(prefix, installed, argument, valid):
    process = start(prefix, "ant", installed, argument)
    said, _ = process.communicate(timeout=60)
    assert (
        process.returncode != 0 and argument.split(":=")[1] in said and valid in said and "process started" not in said
    )


@pytest.mark.parametrize(
    "name, arguments, valid",
    [
        ("quadrotor", ["weights:=/no/such"], ""),
        ("hil", ["weights:=/no/such", "autostart:=true", "record:=bag"], ""),
        ("ant", ["record:=/tmp"], "a folder that is not there yet"),
    ],
)
def test_a_node_that_cannot_start_ends_the_launch_and_says_why(
    name, arguments, valid, prefix, installed, domain, tmp_path
):
    """Which would wait for it for ever otherwise."""
    env = installed | {"ROS_DOMAIN_ID": str(domain)}
    given = [a.replace(":=bag", f":={tmp_path / 'bag'}") for a in arguments]
    process = start(prefix, name, env, *given)
    try:
        said, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    (why,) = [line for line in said.splitlines() if "sealegs: " in line]
    assert arguments[0].split(":=")[1] in why and valid in why and "Traceback" not in said


def test_hil_starts_the_controller_alone(prefix, installed, domain, tmp_path):
    """A robot that was started elsewhere is commanded, on remapped topics, and SIGINT ends the launch."""
    env = installed | {"ROS_DOMAIN_ID": str(domain)}
    process = start(
        prefix,
        "hil",
        env,
        "autostart:=true",
        "odom:=/plant/odom",
        "commands:=/plant/commands",
        f"record:={tmp_path / 'bag'}",
    )
    robot = [str(prefix / "lib/sealegs/robot_node"), "--ros-args", "-p", "steps:=80", "-r", "odom:=/plant/odom",
             "-r", "sealegs_controller/commands:=/plant/commands"]  # fmt: skip
    try:
        assert process.stdout is not None
        wanted = {"active", "recording to"}
        for line in process.stdout:
            wanted -= {words for words in wanted if words in line}
            if not wanted:
                break
        assert not wanted
        subprocess.run(robot, env=env, check=True, timeout=120, capture_output=True)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert replayed(prefix, tmp_path / "bag", env) > 20
