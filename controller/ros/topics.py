"""Which topics each robot has, by robot. Names are relative: a namespace makes room for a second robot."""

from typing import NamedTuple

MULTI_ARRAY = "std_msgs/msg/Float64MultiArray"


class Topics(NamedTuple):
    state: dict[str, str]  # message types by topic; the first gives the state's stamp
    command: str  # the message type on sealegs_controller/commands


ODOMETRY = "nav_msgs/msg/Odometry"
PAYLOAD = "geometry_msgs/msg/PointStamped"
TOPICS = {
    "ant": Topics({"joint_states": "sensor_msgs/msg/JointState", "odom": ODOMETRY}, MULTI_ARRAY),
    "quadrotor": Topics({"odom": ODOMETRY, "payload": PAYLOAD}, MULTI_ARRAY),
}
