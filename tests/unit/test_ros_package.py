"""The ROS 2 package as files: what package.xml, setup.py and the launch files say of each other."""

import ast
from pathlib import Path
from xml.etree import ElementTree

import pytest

from controller.ros.controller_config import ControlConfig
from controller.ros.launched import given, in_mode, parameter_files, simulated
from controller.ros.params import flatten
from controller.ros.robot_config import RobotConfig

ROOT = Path(__file__).parents[2]


def test_package_xml_names_what_the_nodes_import():
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    named = {d.text for d in package.findall("exec_depend")}
    imported = set()
    for file in (ROOT / "controller/ros").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
            elif (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and "/msg/" in node.value
                and " " not in node.value
            ):
                imported.add(node.value.split("/")[0])
    ros = {m for m in imported if m == "rclpy" or m.endswith(("_msgs", "_srvs", "_interfaces"))}
    optional = {"mavros_msgs"}  # used where it is installed
    assert len(ros) > 5 and ros - optional <= named
    assert package.findtext("name") == "sealegs" and (ROOT / "resource/sealegs").is_file()


def test_what_launch_files_start_is_installed():
    setup = (ROOT / "setup.py").read_text()
    files = sorted((ROOT / "launch").glob("*.launch.py"))
    assert [f.name for f in files] == ["ant.launch.py", "hil.launch.py", "quadrotor.launch.py"]
    for file in files:
        tree = ast.parse(file.read_text())
        started = {k.value.value for c in ast.walk(tree) if isinstance(c, ast.Call) for k in c.keywords
                   if k.arg == "executable" and isinstance(k.value, ast.Constant)}  # fmt: skip
        if file.name != "hil.launch.py":
            texts = dict.fromkeys(("record", "mode"), "lockstep")
            started |= {executable for executable, *_ in simulated("ant", texts, {}, {})}
        assert started and all(f'"{name} = controller.ros.__main__:' in setup for name in started)
    assert not (ROOT / "launch/__init__.py").exists()  # ROS's own `launch` must stay importable


def arguments(file: Path) -> dict[str, dict[str, tuple[str, str]]]:
    """The launch file's tables: parameter -> its argument and type, by the table's name."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            pairs = [
                (k, v)
                for d in ast.walk(node.value)
                if isinstance(d, ast.Dict)
                for k, v in zip(d.keys, d.values, strict=True)
            ]
            found[node.targets[0].id] = {
                k.value: (v.elts[0].value, v.elts[1].id) for k, v in pairs
                if isinstance(k, ast.Constant) and isinstance(v, ast.Tuple) and isinstance(v.elts[1], ast.Name)
            }  # fmt: skip
    return found


@pytest.mark.parametrize("name", ["ant", "quadrotor", "hil"])
def test_arguments_of_a_launch_file_are_parameters_of_its_nodes(name):
    """By name and type; the defaults are the nodes' alone."""
    file = ROOT / f"launch/{name}.launch.py"
    tables, nodes = arguments(file), {"CONTROLLER": ControlConfig(), "ROBOT": RobotConfig()}
    assert len(tables["CONTROLLER"]) >= 2
    for table, config in nodes.items():
        defaults = flatten(config)
        for parameter, (_, kind) in tables.get(table, {}).items():
            assert type(defaults[parameter]).__name__ == kind
    for parameter in tables.get("FLIGHT", {}):
        assert parameter in flatten(ControlConfig()) and parameter in flatten(RobotConfig())
    declared = [
        c for c in ast.walk(ast.parse(file.read_text())) if isinstance(c, ast.keyword) and c.arg == "default_value"
    ]
    assert declared and all(isinstance(k.value, ast.Constant) and k.value.value == "" for k in declared)


KINDS = {
    "seed": ("seed", int),
    "flight.speed": ("trajectory_speed", str),
    "speed": ("speed", float),
    "seen": ("payload_seen", bool),
}


def test_only_what_was_written_is_given():
    texts = dict.fromkeys(("seed", "trajectory_speed", "speed", "payload_seen"), "")
    assert given(texts, KINDS) == {}
    texts |= {"seed": "0", "trajectory_speed": "1.5", "payload_seen": "False"}
    assert given(texts, KINDS) == {"seed": 0, "flight.speed": "1.5", "seen": False}
    assert given(texts | {"speed": "2"}, KINDS)["speed"] == 2.0
    assert in_mode("") == {} and in_mode("real") == {"use_sim_time": False, "lockstep": False}
    assert in_mode("fast")["use_sim_time"] and in_mode("lockstep")["lockstep"]


@pytest.mark.parametrize(
    "argument, text, valid",
    [("seed", "3.5", "whole"), ("speed", "fast", "number"), ("payload_seen", "1", "true or false")],
)
def test_what_cannot_be_read_is_named(argument, text, valid):
    texts = dict.fromkeys(("seed", "trajectory_speed", "speed", "payload_seen"), "") | {argument: text}
    with pytest.raises(ValueError, match=f"{argument} is '{text}'.*{valid}"):
        given(texts, KINDS)


def test_a_file_of_the_users_comes_after_the_shipped_one(tmp_path):
    launch, mine = ROOT / "launch/ant.launch.py", tmp_path / "mine.yaml"
    (shipped,) = parameter_files(launch, "ant.yaml", "")
    assert Path(shipped) == ROOT / "launch/params/ant.yaml"
    mine.write_text("")
    assert parameter_files(launch, "ant.yaml", str(mine)) == [shipped, str(mine)]
    with pytest.raises(ValueError, match=r"gone.yaml.*valid"):
        parameter_files(launch, "ant.yaml", "gone.yaml")
    for folder in ("launch", "params"):
        (tmp_path / folder).mkdir()
    (tmp_path / "params/ant.yaml").write_text("")
    assert parameter_files(tmp_path / "launch/ant.launch.py", "ant.yaml", "") == [str(tmp_path / "params/ant.yaml")]


def test_a_simulated_robots_nodes_agree():
    """On the robot, the mode and the seed; the robot waits for whoever records."""
    kinds = {"seed": ("seed", int)}
    texts = {"record": "", "mode": "", "seed": ""}
    nodes = simulated("quadrotor", texts, kinds, kinds)
    assert [name for _, name, _ in nodes] == ["sealegs_controller", "sealegs_robot"]
    assert [x for *_, x in nodes] == [{"robot": "quadrotor", "autostart": True}, {"robot": "quadrotor", "listeners": 1}]
    recorder, controller, robot = (
        x for *_, x in simulated("ant", texts | {"record": "bag", "mode": "fast", "seed": "4"}, kinds, kinds)
    )
    assert recorder == {"robot": "ant", "out": "bag"} and robot == {"robot": "ant", "seed": 4, "listeners": 2}
    assert controller == {"robot": "ant", "seed": 4, "autostart": True, "use_sim_time": True, "lockstep": False}
