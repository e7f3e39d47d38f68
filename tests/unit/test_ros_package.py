"""The ROS 2 package as files: what package.xml, setup.py and the launch files say of each other."""

import ast
from pathlib import Path
from xml.etree import ElementTree

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
        assert started and all(f'"{name} = controller.ros.__main__:' in setup for name in started)
    assert not (ROOT / "launch/__init__.py").exists()  # ROS's own `launch` must stay importable
