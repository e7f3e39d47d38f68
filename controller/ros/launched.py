"""What the launch files share: which parameter files there are, and which parameters their arguments give. Neither ROS nor anything else is
imported, since it runs in launch's process."""

from collections.abc import Mapping
from pathlib import Path

Given = dict[str, str | int | float | bool]
SAID = {"true": True, "false": False}
VALID = {int: "a whole number", float: "a number", bool: "true or false"}


def parameter_files(launch_file: Path, name: str, own: str) -> list[str]:
    """The one that comes with the launch file, then the user's, which wins; own "": none. Raises ValueError where that is no file."""
    beside = launch_file.resolve().parent / "params" / name  # in the source tree; installed one level up
    shipped = beside if beside.exists() else launch_file.parent.parent / "params" / name
    if own and not Path(own).is_file():
        raise ValueError(f"params is {own!r}, which is no file; valid: the path of a parameter file")
    return [str(shipped), *([own] if own else [])]


def given(texts: Mapping[str, str], kinds: Mapping[str, tuple[str, type]]) -> Given:
    """texts: argument -> what was written. kinds: parameter -> its argument and type. -> parameters by name, without those whose argument was left
    empty: they stay as the parameter files have them, and else as the node does. Raises ValueError naming the argument."""
    return {name: _read(argument, texts[argument], kind) for name, (argument, kind) in kinds.items() if texts[argument]}


def _read(argument: str, text: str, kind: type) -> str | int | float | bool:
    try:
        return SAID[text.strip().lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise ValueError(f"{argument} is {text!r}; valid: {VALID[kind]}") from None


def simulated(
    robot: str,
    texts: Mapping[str, str],
    controller: Mapping[str, tuple[str, type]],
    plant: Mapping[str, tuple[str, type]],
) -> list[tuple[str, str, Given]]:
    """A simulated robot's nodes: executable, name, and what is given to it. controller, plant: kinds of both nodes' parameters, see `given`.

    The robot is the launch file's, whatever a file of the user's leaves out or says. The names are the nodes' own: without them launch would write
    what is given for any node, and what a file says of this one would be stronger."""
    of: Given = {"robot": robot}
    record = texts["record"]
    return [
        *([("record_node", "sealegs_recorder", of | {"out": record})] if record else []),
        (
            "controller_node",
            "sealegs_controller",
            given(texts, controller) | in_mode(texts["mode"]) | of | {"autostart": True},
        ),
        ("robot_node", "sealegs_robot", given(texts, plant) | of | {"listeners": 2 if record else 1}),
    ]


def in_mode(mode: str) -> Given:
    """What the controller is to know of the robot's mode. mode "": whatever the parameter files say of both."""
    return {"use_sim_time": mode == "fast", "lockstep": mode == "lockstep"} if mode else {}
