"""The launch files, read by ROS's own launch where it is installed."""

import importlib.util
from pathlib import Path

import pytest

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

    spec = importlib.util.spec_from_file_location(f"{name}_launch", FOLDER / f"{name}.launch.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    description = module.generate_launch_description()
    assert isinstance(description, LaunchDescription)
    nodes = [e for e in description.entities if isinstance(e, Node)]
    assert len(nodes) == NODES[name] and module.PARAMS.is_file()
    declared = {a.name for a in description.get_launch_arguments()}
    assert declared == set(module.ARGUMENTS) and {"namespace", "weights", "record", "params"} <= declared
