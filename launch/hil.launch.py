"""The controller alone, against whatever publishes the state: ros2 launch sealegs hil.launch.py record:=/tmp/run

It starts unconfigured unless autostart:=true: configure it, look at its diagnostics, then activate it. An argument that is not given is as the
file of `params` says, and else as the node has it.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from controller.ros.launched import given, parameter_files
from launch import LaunchDescription

TOPICS = {
    "joint_states": ("joint_states", "topic of sensor_msgs/JointState"),
    "payload": ("payload", "topic of geometry_msgs/PointStamped, where the quadrotor's payload is seen"),
    "odom": ("odom", "topic of nav_msgs/Odometry"),
    "commands": ("sealegs_controller/commands", "topic of the commands, std_msgs/Float64MultiArray"),
    "attitude_target": (
        "sealegs_controller/attitude_target",
        "topic of mavros_msgs/AttitudeTarget, where that package is installed",
    ),
}
ARGUMENTS = {
    "robot": "ant or quadrotor",
    "weights": "a checkpoint",
    "namespace": "of the robot's topics",
    "autostart": "true: configure and activate at once",
    "record": "a folder for a recording; it must not be there yet",
    "params": "a parameter file of your own",
    **{argument: what for argument, (_, what) in TOPICS.items()},
}
RECORDER = {"robot": ("robot", str)}
CONTROLLER = {"weights": ("weights", str), "autostart": ("autostart", bool)} | RECORDER


def typed(values):
    """launch would take a text that looks like a number for one."""
    return {name: ParameterValue(value, value_type=type(value)) for name, value in values.items()}


def nodes(context):
    texts = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    files = parameter_files(Path(__file__), "hil.yaml", texts["params"])
    remappings = [(topic, texts[argument]) for argument, (topic, _) in TOPICS.items() if texts[argument]]
    common = {"package": "sealegs", "namespace": texts["namespace"], "output": "screen", "remappings": remappings}
    recorder = {**given(texts, RECORDER), "out": texts["record"]}
    # Nodes are named, or launch would write their parameters for any node, and what a file says of this one would be stronger than an argument.
    controller = Node(
        executable="controller_node", name="sealegs_controller", **common, parameters=[*files, typed(given(texts, CONTROLLER))]
    )  # fmt: skip
    # The recorder would go on with nothing to record. Why the controller ended, it says itself.
    end = [EmitEvent(event=Shutdown(reason="the controller ended"))]
    return [
        *([Node(executable="record_node", name="sealegs_recorder", **common, parameters=[*files, typed(recorder)])] if texts["record"] else []),
        controller,
        RegisterEventHandler(OnProcessExit(target_action=controller, on_exit=end)),
    ]  # fmt: skip


def generate_launch_description() -> LaunchDescription:
    declared = (DeclareLaunchArgument(name, default_value="", description=what) for name, what in ARGUMENTS.items())
    return LaunchDescription([*declared, OpaqueFunction(function=nodes)])
