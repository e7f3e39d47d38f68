"""The simulated ant and its controller: ros2 launch sealegs ant.launch.py condition:=leg:3@100 mode:=real record:=/tmp/run

An argument that is not given is as the file of `params` says, and else as the node has it.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from controller.ros.launched import parameter_files, simulated
from launch import LaunchDescription

ARGUMENTS = {
    "condition": "what is broken, e.g. leg:3@100; changed live by the robot node's parameter",
    "weights": "a checkpoint",
    "namespace": "of both nodes: two robots at once need two",
    "mode": "real, fast (with /clock) or lockstep; a file that sets it says use_sim_time or lockstep, too",
    "speed": "of mode:=fast, in multiples of real time",
    "clock": "topic of the time in mode:=fast: two robots at once need two",
    "seed": "of the start, the planner, and what sensors and network do",
    "steps": "control periods after which everything ends; 0: never",
    "record": "a folder for a recording; it must not be there yet",
    "params": "a parameter file of your own",
}
CONTROLLER = {"weights": ("weights", str), "seed": ("seed", int)}
ROBOT = {
    "condition": ("condition", str), "mode": ("mode", str), "speed": ("speed", float), "seed": ("seed", int), "steps": ("steps", int),
}  # fmt: skip


def typed(values):
    """launch would take a text that looks like a number for one."""
    return {name: ParameterValue(value, value_type=type(value)) for name, value in values.items()}


def nodes(context):
    texts = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    files = parameter_files(Path(__file__), "ant.yaml", texts["params"])
    common = {"package": "sealegs", "namespace": texts["namespace"], "output": "screen"}
    if texts["clock"]:
        common["remappings"] = [("/clock", texts["clock"])]
    started = [
        Node(executable=executable, name=name, **common, parameters=[*files, typed(values)])
        for executable, name, values in simulated("ant", texts, CONTROLLER, ROBOT)
    ]
    # Whichever ends, the others would wait for it for ever. Why it did, it says itself.
    end = [EmitEvent(event=Shutdown(reason="a node ended"))]
    return [*started, *(RegisterEventHandler(OnProcessExit(target_action=node, on_exit=end)) for node in started)]


def generate_launch_description() -> LaunchDescription:
    declared = (DeclareLaunchArgument(name, default_value="", description=what) for name, what in ARGUMENTS.items())
    return LaunchDescription([*declared, OpaqueFunction(function=nodes)])
