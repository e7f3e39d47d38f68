"""The simulated quadrotor and its controller: ros2 launch sealegs quadrotor.launch.py condition:=payload:0.4:1.0@400 record:=/tmp/run

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
    "condition": "what happens, e.g. payload:0.4:1.0@400+none@800; changed live by the robot node's parameter",
    "engine": "mujoco or pybullet",
    "vehicle": "1kg, 80g, or the path of a vehicle's .toml file",
    "trajectory": "hover, circle, figure-eight, square, random",
    "trajectory_speed": "slow, medium, fast, or the largest on the path [m/s]",
    "target": "what is to be on the trajectory: vehicle or payload",
    "payload_seen": "true or false: whether the payload's position is published, and read",
    "adapter": "frozen, last-layer, grbal or variational",
    "weights": "a checkpoint",
    "namespace": "of both nodes: two robots at once need two",
    "mode": "real, fast (with /clock) or lockstep; a file that sets it says use_sim_time or lockstep, too",
    "speed": "of mode:=fast, in multiples of real time",
    "clock": "topic of the time in mode:=fast: two robots at once need two",
    "seed": "of the start, the random trajectory, and what sensors and network do",
    "steps": "control periods after which everything ends; 0: never",
    "record": "a folder for a recording; it must not be there yet",
    "params": "a parameter file of your own",
}
FLIGHT = {
    "flight.vehicle": ("vehicle", str), "flight.trajectory": ("trajectory", str), "flight.speed": ("trajectory_speed", str),
    "flight.target": ("target", str), "flight.payload_seen": ("payload_seen", bool), "flight.adapter": ("adapter", str),
}  # fmt: skip
CONTROLLER = {"weights": ("weights", str), "seed": ("seed", int)} | FLIGHT
ROBOT = {
    "condition": ("condition", str), "engine": ("engine", str), "mode": ("mode", str), "speed": ("speed", float), "seed": ("seed", int),
    "steps": ("steps", int),
} | FLIGHT  # fmt: skip


def typed(values):
    """launch would take a text that looks like a number for one."""
    return {name: ParameterValue(value, value_type=type(value)) for name, value in values.items()}


def nodes(context):
    texts = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    files = parameter_files(Path(__file__), "quadrotor.yaml", texts["params"])
    common = {"package": "sealegs", "namespace": texts["namespace"], "output": "screen"}
    if texts["clock"]:
        common["remappings"] = [("/clock", texts["clock"])]
    started = [
        Node(executable=executable, name=name, **common, parameters=[*files, typed(values)])
        for executable, name, values in simulated("quadrotor", texts, CONTROLLER, ROBOT)
    ]
    # Whichever ends, the others would wait for it for ever. Why it did, it says itself.
    end = [EmitEvent(event=Shutdown(reason="a node ended"))]
    return [*started, *(RegisterEventHandler(OnProcessExit(target_action=node, on_exit=end)) for node in started)]


def generate_launch_description() -> LaunchDescription:
    declared = (DeclareLaunchArgument(name, default_value="", description=what) for name, what in ARGUMENTS.items())
    return LaunchDescription([*declared, OpaqueFunction(function=nodes)])
