"""The ROS 2 package as it is installed: what launch looks for is where it looks, and the executables run."""

import os
import subprocess
from importlib.metadata import distributions
from xml.etree import ElementTree

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; valid: pip install 'sealegs[ros]'")

EXECUTABLES = ("controller_node", "robot_node", "record_node")


def installations() -> list[str]:
    """Of sealegs, in this environment."""
    return [str(x.locate_file("")) for x in distributions() if x.metadata["Name"] == "sealegs"]


BEFORE = installations()


def test_what_is_tested_stays_installed(prefix):
    assert installations() == BEFORE


def test_what_launch_looks_for_is_installed(prefix):
    assert (prefix / "share/ament_index/resource_index/packages/sealegs").is_file()
    launch = {path.name for path in (prefix / "share/sealegs/launch").glob("*.py")}
    params = {path.name for path in (prefix / "share/sealegs/params").glob("*.yaml")}
    assert launch == {"ant.launch.py", "quadrotor.launch.py", "hil.launch.py"}
    assert params == {"ant.yaml", "quadrotor.yaml", "hil.yaml"}
    package = ElementTree.parse(prefix / "share/sealegs/package.xml").getroot()
    assert package.findtext("name") == "sealegs" and package.findtext("export/build_type") == "ament_python"
    for name in EXECUTABLES:
        assert os.access(prefix / "lib/sealegs" / name, os.X_OK)


@pytest.mark.parametrize(
    "name, wrong, valid",
    [
        ("controller_node", "robot:=cat", "quadrotor"),
        ("robot_node", "condition:=leg:9", "valid"),
        ("record_node", "robot:=cat", "quadrotor"),
    ],
)
def test_an_executable_runs_and_refuses_nonsense(prefix, installed, domain, tmp_path, name, wrong, valid):
    """With the installed modules, not those beside the tests."""
    argv = [str(prefix / "lib/sealegs" / name), "--ros-args", "-p", wrong, "-p", f"out:={tmp_path / 'bag'}"]
    ran = subprocess.run(
        argv,
        env=installed | {"ROS_DOMAIN_ID": str(domain)},
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = ran.stdout + ran.stderr
    assert ran.returncode == 2 and wrong.split(":=")[1] in said and valid in said and "Traceback" not in said


def test_the_installed_modules_are_imported(prefix, installed, tmp_path):
    code = "import controller; print(controller.__path__[0])"
    python = (prefix / "bin/robot_node").read_text().splitlines()[0].removeprefix("#!")
    ran = subprocess.run([python, "-c", code], env=installed, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith(str(prefix))
