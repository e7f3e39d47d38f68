"""A run in lockstep that several modules look at."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from controller.cli import main
from controller.config import ControllerConfig, PlannerConfig
from controller.ros import bag
from robots.ant import Ant

STEPS, CONDITION, SEED = 100, "leg:3@30", 5
CONFIG = ControllerConfig(planner=PlannerConfig(samples=16, horizon=3, iterations=1))
QUICK = [
    "--controller.planner.samples",
    "16",
    "--controller.planner.horizon",
    "3",
    "--controller.planner.iterations",
    "1",
]


TYPES = {
    "joint_states": "sensor_msgs/msg/JointState", "odom": "nav_msgs/msg/Odometry", "config": "std_msgs/msg/String",
    "condition": "std_msgs/msg/String", "commands": "std_msgs/msg/Float64MultiArray",
    "telemetry": "std_msgs/msg/Float64MultiArray", "payload": "geometry_msgs/msg/PointStamped",
}  # fmt: skip


def record(path: Path, domain: int) -> Path:
    main(
        ["ros", "ant", "--lockstep", "--duration", str(STEPS * Ant.dt), "--record", str(path), "--condition", CONDITION,
         "--seed", str(SEED), "--domain", str(domain), *QUICK]
    )  # fmt: skip
    return path


def edited(recording: Path, path: Path, edit: Callable[[bag.Message], Any | None]) -> Path:
    """A copy, each message of TYPES as `edit` makes it; None: left out."""
    copy, seen = bag.Bag(path), set[str]()
    for m in bag.read(recording):
        kind = TYPES.get(m.topic.rsplit("/", 1)[1])
        if kind is None or (content := edit(m)) is None:
            continue
        if m.topic not in seen:
            seen.add(m.topic)
            copy.add(m.topic, kind)
        copy.write(m.topic, m.time, content)
    copy.close()
    return path
