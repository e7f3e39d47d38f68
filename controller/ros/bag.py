"""Recordings: rosbag2 directories in MCAP, written and read by `rosbags`, which needs no ROS."""

from collections import defaultdict, deque
from collections.abc import Iterator
from copy import deepcopy
from io import BytesIO
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


class Safe(NamedTuple):
    """What the file held, and what was counted, when its last chunk had been written whole."""

    size: int  # [bytes]
    chunks: int
    counted: tuple[dict[str, Any], dict[str, Any]]  # of storage and writer


COUNTED = (("message_start_time", "message_end_time", "channel_stats"), ("counts", "min_timestamp", "max_timestamp"))
INDEX = 73  # bytes of a chunk in the index at the end, at least; and no more than twice that with the few topics of a recording
KEPT = 16  # chunks that may be given up for the index, at least
CHUNK = 32 * 1024  # bytes after which one is written, however fast they come: what is lost where a disk fills


class Bag:
    """A recording being written, in chunks: what was flushed can be kept where the next chunk finds no room. Raises OSError where the folder
    is there already or cannot be written to."""

    def __init__(self, path: Path):
        rosbag2, self._types = rosbags()
        if path.exists():
            raise FileExistsError(17, "it is there already", str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = rosbag2.Writer(path, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP)
        self._writer.open()
        self._connections: dict[str, Any] = {}
        self._file = self._writer.storage.bio
        self._file.flush()
        self._safe = deque([self._now()])

    def add(self, topic: str, kind: str) -> None:
        connection = self._connections[topic] = self._writer.add_connection(topic, kind, typestore=self._types)
        for safe in self._safe:  # none of its messages had been written then
            safe.counted[0]["channel_stats"][connection.id] = safe.counted[1]["counts"][connection.id] = 0

    def write(self, topic: str, time: int, message: Any) -> None:
        """message: rclpy's. Its own bytes carry padding that readers refuse, so it is serialised anew. Raises OSError as `flush` does."""
        connection = self._connections[topic]
        plain = self._plain(message, connection.msgtype)
        self._writer.write(connection, time, self._types.serialize_cdr(plain, connection.msgtype))
        if self._writer.storage.chunk.bio.tell() > CHUNK:
            self.flush()

    def flush(self) -> None:
        """What was written until now, into the file. Raises OSError where there is no room, or no file any more."""
        self._writer.storage.path.stat()
        if self._writer.storage.chunk.msgs:
            self._writer.storage.close_chunk()
            self._file.flush()
            self._safe.append(self._now())
            room = KEPT * CHUNK + 2 * INDEX * len(self._writer.storage.chunks)
            while len(self._safe) > KEPT and self._file.tell() - self._safe[1].size > room:
                self._safe.popleft()

    def _now(self) -> Safe:
        storage, writer = self._writer.storage, self._writer
        of_storage, of_writer = (
            {n: deepcopy(getattr(x, n)) for n in names} for x, names in zip((storage, writer), COUNTED, strict=True)
        )
        return Safe(self._file.tell(), len(storage.chunks), (of_storage, of_writer))

    def rescue(self) -> int:
        """After a write has failed: close what was flushed as a whole recording. Where its index finds no room either, the newest chunks are
        given up for it. -> messages kept. Raises OSError where nothing can be kept."""
        storage, writer = self._writer.storage, self._writer
        end = storage.path.stat().st_size
        while True:
            safe = self._safe.pop()
            self._file.raw.close()  # what is still in its buffer is not to be written
            self._file = storage.bio = storage.path.open("r+b")
            self._file.truncate(safe.size)
            self._file.seek(safe.size)
            del storage.chunks[safe.chunks :]
            storage.chunk = type(storage.chunk)(2**63 - 1, 0, BytesIO(), defaultdict(list))
            for x, values in zip((storage, writer), safe.counted, strict=True):
                vars(x).update(deepcopy(values))
            writer.storage = storage
            try:
                writer.close()
                return sum(safe.counted[0]["channel_stats"].values())
            except OSError:
                if not self._safe:
                    raise
                while len(self._safe) > 1 and end - self._safe[-1].size < INDEX * self._safe[-1].chunks:
                    self._safe.pop()

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
