"""The nodes as programs: `python -m controller.ros controller|robot|record --ros-args ...`, and the executables of the ROS package."""

import os
import sys

from controller.ros import stop


def main(name: str, argv: list[str] | None = None) -> None:
    """Runs a node until it ends or is asked to stop. Exit code 2 on a user's error, with one sentence."""
    stop.install()  # before the slow imports
    prepare()
    if name == "controller":
        from controller.ros.controller_node import run
    elif name == "robot":
        from controller.ros.robot_time import run
    elif name == "record":
        from controller.ros.recorder import run
    else:
        print(f"sealegs: unknown node {name!r}; valid: controller, robot, record", file=sys.stderr)
        sys.exit(2)
    code = run(sys.argv if argv is None else argv)
    stop.ignore()
    sys.exit(code)


def prepare() -> None:
    """The environment that must stand before torch and rclpy are imported."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)  # where ROS comes from wheels, the environment is the prefix


def controller() -> None:
    main("controller")


def robot() -> None:
    main("robot")


def record() -> None:
    main("record")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "", sys.argv[:1] + sys.argv[2:])
