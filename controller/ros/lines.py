"""What the controller has in mind, as lines for RViz and Foxglove."""

from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from visualization_msgs.msg import Marker, MarkerArray

from controller.ros import convert

COLOURS = {"plan": (1.0, 0.6, 0.1, 1.0), "reference": (0.2, 0.8, 0.4, 1.0), "path": (0.2, 0.8, 0.4, 0.35)}


def markers(lines: dict[str, np.ndarray], stamp: Any) -> MarkerArray:
    """lines by name, of COLOURS: (n, 3) [m] in frame odom. stamp: a builtin_interfaces/Time."""
    array = MarkerArray()
    for i, (name, points) in enumerate(lines.items()):
        marker = Marker(ns=name, id=i, type=Marker.LINE_STRIP, action=Marker.ADD)
        marker.header.frame_id, marker.header.stamp = "odom", stamp
        marker.pose.orientation.w, marker.scale.x = 1.0, 0.02
        marker.color.r, marker.color.g, marker.color.b, marker.color.a = COLOURS[name]
        convert.fill_line(marker, points, Point)
        array.markers.append(marker)  # pyright: ignore[reportAttributeAccessIssue]
    return array
