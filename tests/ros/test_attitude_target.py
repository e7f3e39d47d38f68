"""The command as mavros_msgs/AttitudeTarget, sent over DDS and heard by others. Of that package there is no wheel: it is built where that can be."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; valid: pip install 'sealegs[ros]'")

import message_package
import rclpy
from nav_msgs.msg import Odometry
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data

from controller.cli import main
from controller.ros import bag, convert, told
from controller.ros.loop import MISS, STEP
from controller.ros.node import EVERYTHING
from robots import vehicle

DEFINITION = """
std_msgs/Header header
uint8 type_mask
uint8 IGNORE_ROLL_RATE = 1
uint8 IGNORE_PITCH_RATE = 2
uint8 IGNORE_YAW_RATE = 4
uint8 IGNORE_THRUST = 64
uint8 IGNORE_ATTITUDE = 128
geometry_msgs/Quaternion orientation
geometry_msgs/Vector3 body_rate
float32 thrust
"""
PERIOD = 0.01  # [s]
FLOWN = vehicle.load("1kg")


def before(patch: pytest.MonkeyPatch, folder: object) -> None:
    """For the nodes that are started: what is in the folder is found before what is installed."""
    patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]))


@pytest.fixture(scope="module")
def attitude_target(tmp_path_factory) -> Iterator[type]:
    """The message, which the nodes have, too."""
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("mavros_msgs") is None:
            if lacks := message_package.missing():
                pytest.skip(f"mavros_msgs is not installed here, and for it to be built there is no {lacks}")
            patch.setenv("AMENT_PREFIX_PATH", os.environ.get("AMENT_PREFIX_PATH", sys.prefix))
            folder = tmp_path_factory.mktemp("mavros")
            message_package.build(folder, "mavros_msgs/msg/AttitudeTarget", DEFINITION, ("std_msgs", "geometry_msgs"))
            before(patch, folder)
            patch.syspath_prepend(folder)
        yield convert.message_type("mavros_msgs/msg/AttitudeTarget")


@pytest.fixture
def autopilot(domain) -> Iterator[tuple[Node, SingleThreadedExecutor]]:
    """A node that nothing of sealegs is in, and what spins it."""
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node, spinner = Node("autopilot", context=context), SingleThreadedExecutor(context=context)
    spinner.add_node(node)
    yield node, spinner
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def test_what_is_heard_is_what_was_commanded(attitude_target, autopilot, domain, tmp_path, capsys):
    node, spinner = autopilot
    heard = []
    node.create_subscription(attitude_target, "sealegs_controller/attitude_target", heard.append, EVERYTHING)
    # Slower than real time, by /clock: on a busy machine, too, the stamps go with the control rate.
    flight = subprocess.Popen(
        [sys.executable, "-c", "from controller.cli import main; main()", "ros", "quadrotor", "--speed", "0.3", "--duration", "1",
         "--condition", "payload:0.4:1.0@50", "--record", str(tmp_path / "bag"), "--domain", str(domain)],
    )  # fmt: skip
    while flight.poll() is None:
        spinner.spin_once(timeout_sec=0.05)
    assert flight.returncode == 0

    messages = list(bag.read(tmp_path / "bag"))
    sent = [m.content for m in messages if m.topic.endswith("/commands")]
    rows = [told.read(m.content).row for m in messages if m.topic.endswith("/telemetry")]
    rows = [row for row in rows if row.kind in (STEP, MISS)]  # one for every command
    assert len(sent) == len(rows) and 50 <= len(heard) <= len(sent)
    commands = np.array([m.data for m in sent[-len(heard) :]])  # who joins late misses the first
    rates = np.array([(m.body_rate.x, m.body_rate.y, m.body_rate.z) for m in heard])
    thrust = np.array([m.thrust for m in heard])
    assert np.array_equal(rates, commands[:, 1:]) and np.ptp(rates, 0).min() > 0.01
    np.testing.assert_allclose(thrust, commands[:, 0] / FLOWN.thrust_max_n, rtol=1e-6)  # a float32
    assert 0 <= thrust.min() < 0.4 < thrust.max() <= 1  # hovering, and with what is hooked on
    assert {(m.type_mask, m.header.frame_id) for m in heard} == {(attitude_target.IGNORE_ATTITUDE, "base_link")}
    stamps = np.array([convert.stamp_of(m) for m in heard]) / 1e9
    assert np.median(np.diff(stamps)) == pytest.approx(PERIOD, rel=0.2) and (np.diff(stamps) >= 0).all()
    assert np.median(np.abs(stamps - [row.sent_s for row in rows[-len(heard) :]])) <= PERIOD / 2

    main(["replay", str(tmp_path / "bag")])  # ends with exit code 1 where an action differs
    assert f"{len(sent)} of {len(sent)} actions identical" in capsys.readouterr().out


def test_an_autopilot_that_asks_for_no_repetition_hears_it_on_its_own_topic(attitude_target, autopilot, domain):
    """As docs/hardware.md has it, and as MAVROS offers its odometry and asks for setpoints. In lockstep, so that every state has an answer."""
    node, spinner = autopilot
    heard = []
    node.create_subscription(attitude_target, "mavros/setpoint_raw/attitude", heard.append, qos_profile_sensor_data)
    odometry = node.create_publisher(Odometry, "mavros/local_position/odom", qos_profile_sensor_data)
    values = {"robot": "quadrotor", "flight.payload_seen": "false", "lockstep": "true", "autostart": "true"}
    controller = subprocess.Popen(
        [sys.executable, "-m", "controller.ros", "controller", "--ros-args", *(x for k, v in values.items() for x in ("-p", f"{k}:={v}")),
         "-r", "odom:=mavros/local_position/odom", "-r", "sealegs_controller/attitude_target:=mavros/setpoint_raw/attitude"],
        env=os.environ | {"ROS_DOMAIN_ID": str(domain)}, start_new_session=True,
    )  # fmt: skip
    try:
        for i in range(1200):  # of 50 ms
            state = Odometry(child_frame_id="base_link")
            state.header.frame_id = "map"
            convert.set_stamp(state, round(1e9 * PERIOD * i))
            odometry.publish(state)
            spinner.spin_once(timeout_sec=0.05)
            if len(heard) > 3:
                break
    finally:
        controller.terminate()
        controller.wait(20)
    assert len(heard) > 3 and all(0 <= m.thrust <= 1 for m in heard)


def test_a_package_that_cannot_be_used_costs_its_topic_and_no_command(domain, tmp_path, monkeypatch, capsys):
    """As ROS 1's, which has a message of that name, too."""
    folder = tmp_path / "mavros_msgs/msg"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "__init__.py").write_text("class AttitudeTarget:\n    pass\n")
    before(monkeypatch, tmp_path)
    main(["ros", "quadrotor", "--lockstep", "--duration", "0.1", "--domain", str(domain)])
    said = capsys.readouterr().out
    assert said.count("attitude_target is not published") == 1 and "10 steps" in said
