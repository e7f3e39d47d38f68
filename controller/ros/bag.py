"""Recordings: rosbag2 directories in MCAP, written and read by `rosbags`, which needs no ROS."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from controller.config import UsageError

INSTALL = "valid: pip install 'sealegs[ros]'"


def rosbags() -> Any:
    """The package, and its types as of Jazzy. Raises UsageError where it is not installed."""
    try:
        from rosbags import rosbag2, typesys
    except ImportError:
        raise UsageError(f"recordings need the package rosbags, which is not installed; {INSTALL}") from None
    return rosbag2, typesys.get_typestore(typesys.Stores.ROS2_JAZZY)


class Message(NamedTuple):
    topic: str
    time: int  # when it was recorded [ns]
    content: Any


class Bag:
    """A recording being written. Raises OSError where the folder is there already or cannot be written to."""

    def __init__(self, path: Path):
        rosbag2, self._types = rosbags()
        if path.exists():
            raise FileExistsError(17, "it is there already", str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = rosbag2.Writer(path, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP)
        self._writer.open()
        self._connections: dict[str, Any] = {}

    def add(self, topic: str, kind: str) -> None:
        self._connections[topic] = self._writer.add_connection(topic, kind, typestore=self._types)

    def write(self, topic: str, time: int, message: Any) -> None:
        """message: rclpy's. Its own bytes carry padding that readers refuse, so it is serialised anew."""
        connection = self._connections[topic]
        plain = self._plain(message, connection.msgtype)
        self._writer.write(connection, time, self._types.serialize_cdr(plain, connection.msgtype))

    def _plain(self, message: Any, kind: str) -> Any:
        from rosbags.interfaces import Nodetype

        types, values = self._types, {}
        for name, (node, of) in types.fielddefs[kind][1]:
            value = getattr(message, name)
            if node is Nodetype.NAME:
                values[name] = self._plain(value, of)
            elif node is Nodetype.BASE:
                values[name] = int.from_bytes(value, "little") if isinstance(value, bytes) else value
            else:  # array or sequence of the same two
                (inner, what), _ = of
                if inner is Nodetype.NAME:
                    values[name] = [self._plain(x, what) for x in value]
                elif what[0] == "string":
                    values[name] = list(value)
                else:
                    values[name] = np.asarray(value, what[0])
        return types.types[kind](**values)

    def close(self) -> None:
        self._writer.close()


def read(path: Path) -> Iterator[Message]:
    """Messages in the order in which they were recorded. Raises UsageError on anything but a whole recording."""
    rosbag2, types = rosbags()
    if not (path / "metadata.yaml").is_file():
        raise UsageError(f"no recording at {path}; valid: a folder made by `sealegs ros ROBOT --record DIR`")
    try:
        with rosbag2.Reader(path) as reader:
            for connection, time, raw in reader.messages():
                if connection.msgtype in types.fielddefs:
                    yield Message(connection.topic, time, types.deserialize_cdr(raw, connection.msgtype))
    except rosbag2.ReaderError as e:
        raise UsageError(f"{path} cannot be read ({e}); valid: a recording that was closed") from None
