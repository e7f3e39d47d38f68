"""The simulated quadrotor and its controller: ros2 launch sealegs quadrotor.launch.py condition:=payload:0.4:1.0@400 record:=/tmp/run"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, EmitEvent, RegisterEventHandler
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration, PythonExpression
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription

PARAMS = (
    Path(__file__).parent.parent / "params" / "quadrotor.yaml"
)  # as installed; in the source tree it is beside this file
if not PARAMS.exists():
    PARAMS = Path(__file__).parent / "params" / "quadrotor.yaml"

ARGUMENTS = {
    "condition": (
        "none",
        "what happens, e.g. payload:0.4:1.0@400+none@800; changed live by the robot node's parameter",
    ),
    "engine": ("mujoco", "mujoco or pybullet"),
    "vehicle": ("1kg", "1kg, 80g, or the path of a vehicle's .toml file"),
    "trajectory": ("figure-eight", "hover, circle, figure-eight, square, random"),
    "trajectory_speed": ("medium", "slow, medium, fast, or the largest on the path [m/s]"),
    "target": ("vehicle", "what is to be on the trajectory: vehicle or payload"),
    "payload_seen": ("true", "whether the payload's position is published, and read"),
    "adapter": ("variational", "frozen, last-layer, grbal or variational"),
    "weights": ("", "a checkpoint; empty: the shipped one"),
    "namespace": ("", "of both nodes: two robots at once need two"),
    "mode": ("real", "real, fast (with /clock) or lockstep"),
    "speed": ("5.0", "of mode:=fast, in multiples of real time"),
    "clock": ("/clock", "topic of the time in mode:=fast: two robots at once need two"),
    "seed": ("0", "of the start, the random trajectory, and what sensors and network do"),
    "steps": ("0", "control periods after which everything ends; 0: never"),
    "record": ("", "a folder for a recording; it must not be there yet"),
    "params": (str(PARAMS), "parameters of the nodes"),
}
FLIGHT = {
    "vehicle": "vehicle",
    "trajectory": "trajectory",
    "speed": "trajectory_speed",
    "target": "target",
    "adapter": "adapter",
}


def generate_launch_description() -> LaunchDescription:
    given = {name: LaunchConfiguration(name) for name in ARGUMENTS}
    text = {
        name: ParameterValue(given[name], value_type=str)
        for name in ("condition", "weights", "mode", "record", "engine")
    }
    number = {name: ParameterValue(given[name], value_type=int) for name in ("seed", "steps")}
    flight = {f"flight.{name}": ParameterValue(given[argument], value_type=str) for name, argument in FLIGHT.items()}
    flight["flight.payload_seen"] = ParameterValue(given["payload_seen"], value_type=bool)
    fast = {"use_sim_time": ParameterValue(PythonExpression(["'", given["mode"], "' == 'fast'"]), value_type=bool)}
    lockstep = ParameterValue(PythonExpression(["'", given["mode"], "' == 'lockstep'"]), value_type=bool)
    recording = PythonExpression(["'", given["record"], "' != ''"])
    listeners = ParameterValue(PythonExpression(["2 if '", given["record"], "' else 1"]), value_type=int)
    clock = [("/clock", given["clock"])]
    common = {"package": "sealegs", "namespace": given["namespace"], "output": "screen", "remappings": clock}
    controller = Node(
        executable="controller_node", **common,
        parameters=[
            given["params"], fast, flight,
            {"autostart": True, "weights": text["weights"], "seed": number["seed"], "lockstep": lockstep},
        ],
    )  # fmt: skip
    robot = Node(
        executable="robot_node", **common,
        parameters=[
            given["params"], flight,
            {
                "condition": text["condition"], "engine": text["engine"], "mode": text["mode"], "listeners": listeners, **number,
                "speed": ParameterValue(given["speed"], value_type=float),
            },
        ],
    )  # fmt: skip
    recorder = Node(
        executable="record_node", **common, condition=IfCondition(recording),
        parameters=[{"robot": "quadrotor", "out": text["record"]}],
    )  # fmt: skip
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(name, default_value=value, description=what) for name, (value, what) in ARGUMENTS.items()),
            recorder, controller, robot,
            RegisterEventHandler(OnProcessExit(target_action=robot, on_exit=[EmitEvent(event=Shutdown(reason="the robot ended"))])),
        ]
    )  # fmt: skip
