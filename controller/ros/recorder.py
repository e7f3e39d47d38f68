"""A node that records what a run needs for replay and report. A process of its own: whatever the disk does, control goes on."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rclpy.node import Node

from controller.ros import convert
from controller.ros.bag import Bag
from controller.ros.node import EVERYTHING, LATCHED, STEADY, Parameters, run_node
from controller.ros.topics import MULTI_ARRAY, TOPICS

FLUSH_S = 1.0  # what may be lost where the disk fills, where it is not more than a chunk (`bag.CHUNK`)
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
        self._bag = Bag(Path(config.out))
        inputs, output = TOPICS[config.robot]
        topics = {
            "sealegs_controller/config": STRING, "sealegs_robot/condition": STRING, **inputs, "sealegs_controller/commands": output,
            "sealegs_controller/telemetry": MULTI_ARRAY, "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
        }  # fmt: skip
        for topic, kind in topics.items():
            name = self.resolve_topic_name(topic, only_expand=True)  # who reads a recording knows nothing of remapping
            self._bag.add(name, kind)
            qos = LATCHED if kind == STRING else EVERYTHING
            self.create_subscription(convert.message_type(kind), topic, lambda m, name=name: self._write(name, m), qos)
        self.create_timer(FLUSH_S, self._flush, clock=STEADY)
        self.get_logger().info(f"recording to {config.out}")

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
