"""A node that records what a run needs for replay and report. A process of its own: whatever the disk does, control goes on."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from controller.config import UsageError
from controller.ros import convert
from controller.ros.bag import Bag
from controller.ros.node import ALL_THAT_COMES, EVERYTHING, LATCHED, STEADY, Parameters, run_node
from controller.ros.topics import MULTI_ARRAY, TOPICS

FLUSH_S = 1.0  # what may be lost where the disk fills, where it is not more than a chunk (`bag.CHUNK`)
LOOK_S = 0.1  # how often it looks for publishers that repeat nothing: what they send before that is not recorded
STRING = "std_msgs/msg/String"


@dataclass(frozen=True)
class RecordConfig:
    """The recorder's parameters."""

    robot: Literal["ant", "quadrotor"] = "ant"
    out: str = "runs/bag"
    """a folder that is not there yet"""


class RecorderNode(Node):
    def __init__(self) -> None:
        super().__init__("sealegs_recorder")
        self._bag: Bag | None = None
        self.settings = Parameters(self, RecordConfig(), self._change)
        config = self.settings.config
        try:
            self._bag = Bag(Path(config.out))
        except OSError as e:
            raise UsageError(f"out is {config.out!r}: {e.strerror}; valid: a folder that is not there yet") from None
        inputs, output = TOPICS[config.robot]
        topics = {
            "sealegs_controller/config": STRING, "sealegs_robot/condition": STRING, **inputs, "sealegs_controller/commands": output,
            "sealegs_controller/telemetry": MULTI_ARRAY, "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
        }  # fmt: skip
        self._asking: dict[str, tuple[str, Subscription]] = {}  # for repetition: message type and subscription by topic
        for topic, kind in topics.items():
            self._bag.add(self._name(topic), kind)
            subscription = self._subscribe(topic, kind, LATCHED if kind == STRING else EVERYTHING)
            if kind != STRING:
                self._asking[topic] = (kind, subscription)
        self.create_timer(FLUSH_S, self._flush, clock=STEADY)
        self.create_timer(LOOK_S, self._adapt, clock=STEADY)
        self.get_logger().info(f"recording to {config.out}")

    def _name(self, topic: str) -> str:
        """In the recording: who reads it knows nothing of remapping."""
        return self.resolve_topic_name(topic, only_expand=True)

    def _subscribe(self, topic: str, kind: str, qos: QoSProfile) -> Subscription:
        name = self._name(topic)
        # Of publishers that repeat nothing `_adapt` tells, rather than ROS's warning that nothing will be received.
        return self.create_subscription(
            convert.message_type(kind), topic, lambda m: self._write(name, m), qos,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=None if kind == STRING else lambda _: None),
        )  # fmt: skip

    def _adapt(self) -> None:
        """Who asks for repetition hears nothing from who offers none, as drivers of sensors do; they may come at any time."""
        for topic, (kind, subscription) in list(self._asking.items()):
            offers = {p.qos_profile.reliability for p in self.get_publishers_info_by_topic(topic)}
            if ReliabilityPolicy.BEST_EFFORT in offers:
                del self._asking[topic]
                self.destroy_subscription(subscription)  # before there is another, or what is repeated came twice
                self._subscribe(topic, kind, ALL_THAT_COMES)
                self.get_logger().info(f"{topic} is published best effort, and recorded so: what gets lost is missing")

    def _change(self, config: RecordConfig, names: set[str]) -> None:
        if self._bag is not None:
            raise ValueError(
                f"{sorted(names)[0]} is read when the node starts; valid: start it again with the new value"
            )

    def _write(self, topic: str, message: Any) -> None:
        if self._bag is None:
            return
        try:
            self._bag.write(topic, time.time_ns(), message)
        except Exception as e:
            self._give_up(e)

    def _flush(self) -> None:
        if self._bag is None:
            return
        try:
            self._bag.flush()
        except Exception as e:
            self._give_up(e)

    def _give_up(self, e: Exception) -> None:
        """A full disk, a vanished folder: nothing more to record, but nothing else to disturb."""
        bag, self._bag = self._bag, None
        assert bag is not None
        try:
            kept = f"the {bag.rescue()} messages until then are kept"
        except Exception as e2:
            kept = f"what was recorded is lost: {e2!r}"
        self.get_logger().error(f"recording stopped: {e!r}; {kept}")

    def close(self) -> None:
        bag = self._bag
        try:
            if bag is not None:
                bag.flush()
                bag.close()
        except Exception as e:
            self._give_up(e)
        self._bag = None


def run(argv: list[str]) -> int:
    return run_node(argv, RecorderNode)
