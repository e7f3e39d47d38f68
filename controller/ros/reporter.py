"""What the controller's node says of itself: a row for every command, its settings, its plan as lines, and once a second how it is doing."""

import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray, MultiArrayDimension, String
from visualization_msgs.msg import MarkerArray

from controller.ros import lines, told
from controller.ros.diagnosis import ERROR, Second, inactive, judge, status
from controller.ros.loop import Loop, Row
from controller.ros.node import LATCHED, OFFERED, no_time, now_ns, steady_ns


class Reporter:
    """count: what happened, by the names of `controller.ros.diagnosis`. why: the last reason for which a state was not used. What is said of a
    second is said once. The caller keeps `row` and `second` apart from each other; `plan` may be called beside them."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.count: Counter[str] = Counter()
        self.why = ""
        self._rows: list[Row] = []
        self._telemetry = node.create_publisher(Float64MultiArray, "~/telemetry", OFFERED)
        self._config = node.create_publisher(String, "~/config", LATCHED)
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._markers = node.create_publisher(MarkerArray, "markers", 10)
        self._drawn = 0  # [ns]
        self._diagnosed = -1  # [ns], the time of stamps by then

    def settings(self, record: dict[str, Any]) -> None:
        self._config.publish(String(data=json.dumps(record)))

    def row(self, row: Row, state: np.ndarray | None = None) -> None:
        """state: (n_state,), that it was planned from; None: it was not planned."""
        row = row._replace(sent_s=steady_ns(self._node) / 1e9)
        message = Float64MultiArray()
        told.fill(message, row, state, MultiArrayDimension)
        self._telemetry.publish(message)
        self._rows.append(row)

    def plan(self, loop: Loop, hz: float) -> None:
        """As lines, no more often than that, and only to who listens. hz 0: never."""
        now = time.monotonic_ns()
        if not hz or now - self._drawn < 1e9 / hz or not self._markers.get_subscription_count():
            return
        self._drawn = now
        self._markers.publish(lines.markers(loop.brain.lines(loop.memory), self._node.get_clock().now().to_msg()))

    def second(self, held: bool, deadline_ms: float, waits_for: Callable[[], str]) -> Second:
        """What happened since the last call. waits_for: why no state was whole, if none was."""
        rows, self._rows = self._rows, []
        counts, self.count = self.count, Counter()
        why, self.why = self.why or ("" if counts["used"] else waits_for()), ""
        return Second(rows, counts, why, deadline_ms, held)

    def diagnose(self, second: Second | None, configured: bool) -> None:
        """second: None where the node is not active."""
        name = self._node.get_fully_qualified_name()
        said = inactive(configured) if second is None else judge(second)
        if why := no_time(self._node, self._diagnosed):
            said["state input"] = (ERROR, why, said["state input"][2])
        self._diagnosed = now_ns(self._node)
        message = DiagnosticArray(status=[status(f"{name}: {what}", *parts) for what, parts in said.items()])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._diagnostics.publish(message)
