"""The controller alone, against whatever publishes the state: ros2 launch sealegs hil.launch.py record:=/tmp/run

It starts unconfigured unless autostart:=true: configure it, look at its diagnostics, then activate it.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PythonExpression
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription

PARAMS = Path(__file__).parent.parent / "params" / "hil.yaml"  # as installed; in the source tree it is beside this file
if not PARAMS.exists():
    PARAMS = Path(__file__).parent / "params" / "hil.yaml"

ARGUMENTS = {
    "robot": ("ant", "ant or quadrotor"),
    "weights": ("", "a checkpoint; empty: the shipped one"),
    "namespace": ("", "of the robot's topics"),
    "autostart": ("false", "configure and activate at once"),
    "record": ("", "a folder for a recording; it must not be there yet"),
    "joint_states": ("joint_states", "topic of sensor_msgs/JointState"),
    "payload": ("payload", "topic of geometry_msgs/PointStamped, where the quadrotor's payload is seen"),
    "odom": ("odom", "topic of nav_msgs/Odometry"),
    "commands": ("sealegs_controller/commands", "topic of the commands, std_msgs/Float64MultiArray"),
    "attitude_target": (
        "sealegs_controller/attitude_target",
        "topic of mavros_msgs/AttitudeTarget, where that package is installed",
    ),
    "params": (str(PARAMS), "parameters of the node"),
}


def generate_launch_description() -> LaunchDescription:
    given = {name: LaunchConfiguration(name) for name in ARGUMENTS}
    names = {
        "joint_states": "joint_states", "odom": "odom", "payload": "payload", "sealegs_controller/commands": "commands",
        "sealegs_controller/attitude_target": "attitude_target",
    }  # fmt: skip
    robot = ParameterValue(given["robot"], value_type=str)
    remappings = [(topic, given[name]) for topic, name in names.items()]
    common = {"package": "sealegs", "namespace": given["namespace"], "output": "screen", "remappings": remappings}
    controller = Node(
        executable="controller_node", **common,
        parameters=[
            given["params"],
            {
                "robot": robot,
                "weights": ParameterValue(given["weights"], value_type=str),
                "autostart": ParameterValue(given["autostart"], value_type=bool),
            },
        ],
    )  # fmt: skip
    recorder = Node(
        executable="record_node", **common, condition=IfCondition(PythonExpression(["'", given["record"], "' != ''"])),
        parameters=[{"robot": robot, "out": ParameterValue(given["record"], value_type=str)}],
    )  # fmt: skip
    declared = (DeclareLaunchArgument(n, default_value=v, description=what) for n, (v, what) in ARGUMENTS.items())
    return LaunchDescription([*declared, recorder, controller])
