"""The simulated ant and its controller: ros2 launch sealegs ant.launch.py condition:=leg:3@100 mode:=real record:=/tmp/run"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, EmitEvent, RegisterEventHandler
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration, PythonExpression
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription

PARAMS = Path(__file__).parent.parent / "params" / "ant.yaml"  # as installed; in the source tree it is beside this file
if not PARAMS.exists():
    PARAMS = Path(__file__).parent / "params" / "ant.yaml"

ARGUMENTS = {
    "condition": ("healthy", "what is broken, e.g. leg:3@100; changed live by the robot node's parameter"),
    "weights": ("", "a checkpoint; empty: the shipped one"),
    "namespace": ("", "of both nodes: two robots at once need two"),
    "mode": ("real", "real, fast (with /clock) or lockstep"),
    "speed": ("5.0", "of mode:=fast, in multiples of real time"),
    "clock": ("/clock", "topic of the time in mode:=fast: two robots at once need two"),
    "seed": ("0", "of the start, the planner, and what sensors and network do"),
    "steps": ("0", "control periods after which everything ends; 0: never"),
    "record": ("", "a folder for a recording; it must not be there yet"),
    "params": (str(PARAMS), "parameters of the nodes"),
}


def generate_launch_description() -> LaunchDescription:
    given = {name: LaunchConfiguration(name) for name in ARGUMENTS}
    text = {name: ParameterValue(given[name], value_type=str) for name in ("condition", "weights", "mode", "record")}
    number = {name: ParameterValue(given[name], value_type=int) for name in ("seed", "steps")}
    fast = {"use_sim_time": ParameterValue(PythonExpression(["'", given["mode"], "' == 'fast'"]), value_type=bool)}
    lockstep = ParameterValue(PythonExpression(["'", given["mode"], "' == 'lockstep'"]), value_type=bool)
    recording = PythonExpression(["'", given["record"], "' != ''"])
    listeners = ParameterValue(PythonExpression(["2 if '", given["record"], "' else 1"]), value_type=int)
    clock = [("/clock", given["clock"])]
    common = {"package": "sealegs", "namespace": given["namespace"], "output": "screen", "remappings": clock}
    controller = Node(
        executable="controller_node", **common,
        parameters=[
            given["params"], fast,
            {"autostart": True, "weights": text["weights"], "seed": number["seed"], "lockstep": lockstep},
        ],
    )  # fmt: skip
    robot = Node(
        executable="robot_node", **common,
        parameters=[
            given["params"],
            {
                "condition": text["condition"], "mode": text["mode"], "listeners": listeners, **number,
                "speed": ParameterValue(given["speed"], value_type=float),
            },
        ],
    )  # fmt: skip
    recorder = Node(
        executable="record_node", **common, condition=IfCondition(recording), parameters=[{"out": text["record"]}]
    )
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(name, default_value=value, description=what) for name, (value, what) in ARGUMENTS.items()),
            recorder, controller, robot,
            RegisterEventHandler(OnProcessExit(target_action=robot, on_exit=[EmitEvent(event=Shutdown(reason="the robot ended"))])),
        ]
    )  # fmt: skip
