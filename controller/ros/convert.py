"""Messages <-> arrays, and nothing else. Duck-typed: the same functions read rclpy's messages and those of a recording."""

import importlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Messages = dict[str, Any]  # by topic


class BadMessage(ValueError):
    """A message that cannot be acted on. One sentence that says why."""


class Label(NamedTuple):
    """What a command answers. run: a number that names the controller's start [ms], seq: 1, 2, .. of its commands, stamp: of the state [ns]."""

    run: int
    seq: int
    stamp: int


class Pose(NamedTuple):
    """One reading of a floating base. Odometry's conventions: the twist is in the child frame, the quaternion here w first."""

    p: np.ndarray  # (3,) [m]
    quaternion: np.ndarray  # (4,)
    v: np.ndarray  # (3,) [m/s]
    w: np.ndarray  # (3,) [rad/s]


def message_type(name: str) -> Any:
    """`sensor_msgs/msg/JointState` -> the class."""
    package, _, kind = name.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), kind)


def stamp_of(message: Any) -> int:
    """[ns]"""
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def set_stamp(message: Any, ns: int) -> None:
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(ns, 1_000_000_000)


def joints(message: Any, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """JointState -> positions (n,) [rad], velocities (n,) [rad/s] in the order of names. Joints it has beside those are ignored.

    Raises BadMessage on a joint that is missing or there twice, and on lists of unequal length.
    """
    got = list(message.name)
    for name in names:
        if got.count(name) != 1:
            raise BadMessage(
                f"joint {name!r} is there {got.count(name)} times in {got}; wanted: each of {list(names)} once"
            )
    if not len(got) == len(message.position) == len(message.velocity):
        raise BadMessage(
            f"{len(got)} joint names with {len(message.position)} positions and {len(message.velocity)} velocities; "
            "wanted: as many of each"
        )
    where = [got.index(name) for name in names]
    # A joint beside these may well have no velocity: ros2_control's broadcaster says NaN there.
    q, qd = (np.asarray(x, np.float64)[where] for x in (message.position, message.velocity))
    return finite("joint positions", q), finite("joint velocities", qd)


def fill_joints(message: Any, names: Sequence[str], q: np.ndarray, qd: np.ndarray) -> None:
    message.name, message.position, message.velocity = list(names), q.tolist(), qd.tolist()


def pose(message: Any) -> Pose:
    """Odometry -> Pose. Raises BadMessage on a number that is not finite and on a quaternion that is no rotation."""
    at, spin, twist = message.pose.pose.position, message.pose.pose.orientation, message.twist.twist
    quaternion = finite("the orientation", (spin.w, spin.x, spin.y, spin.z))
    if not 0.5 < np.linalg.norm(quaternion) < 2:
        raise BadMessage(f"the orientation {quaternion.tolist()} is no rotation; wanted: a quaternion of length 1")
    return Pose(
        finite("the position", (at.x, at.y, at.z)), quaternion,
        finite("the linear velocity", (twist.linear.x, twist.linear.y, twist.linear.z)),
        finite("the angular velocity", (twist.angular.x, twist.angular.y, twist.angular.z)),
    )  # fmt: skip


def fill_pose(message: Any, reading: Pose, frame: str = "odom", child: str = "base_link") -> None:
    message.header.frame_id, message.child_frame_id = frame, child
    spin, twist = message.pose.pose.orientation, message.twist.twist
    fill_xyz(message.pose.pose.position, reading.p)
    spin.w, spin.x, spin.y, spin.z = reading.quaternion.tolist()
    fill_xyz(twist.linear, reading.v)
    fill_xyz(twist.angular, reading.w)


def fill_xyz(point: Any, x: np.ndarray) -> None:
    point.x, point.y, point.z = x.tolist()


def fill_line(message: Any, points: np.ndarray, point: Any) -> None:
    """(n, 3) -> the points of a Marker. point: geometry_msgs/Point, the class. A point that is not finite is left out."""
    message.points = [point(x=x, y=y, z=z) for x, y, z in points[np.isfinite(points).all(1)].tolist()]


def finite(what: str, x: Any) -> np.ndarray:
    """-> (n,) float64. Raises BadMessage unless every number is finite and below a million."""
    array = np.asarray(x, np.float64)
    if not (np.abs(array) < 1e6).all():  # False where NaN
        raise BadMessage(f"{what} {array.tolist()}: not all finite and below 1e6")
    return array


def fill_command(message: Any, command: np.ndarray, label: Label, dimension: Any) -> None:
    """(n,) -> Float64MultiArray as ros2_control's forward command controllers take it: they read `data` and nothing else, so the
    layout's label is free to say what the command answers. dimension: an empty MultiArrayDimension."""
    dimension.label = f"command {label.run} {label.seq} {label.stamp}"
    dimension.size = dimension.stride = len(command)
    message.layout.dim, message.data = [dimension], np.asarray(command, np.float64).tolist()


def command(message: Any, n: int) -> np.ndarray:
    """Float64MultiArray -> (n,) float64. Raises BadMessage on another length and on numbers that are not finite."""
    if len(message.data) != n:
        raise BadMessage(f"a command of {len(message.data)} numbers; wanted: {n}")
    return finite("the command", message.data)


def label_of(message: Any) -> Label | None:
    """None where another program sent the command."""
    found = re.fullmatch(r"command (\d+) (\d+) (\d+)", message.layout.dim[0].label if message.layout.dim else "")
    return Label(*map(int, found.groups())) if found else None
