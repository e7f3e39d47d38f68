"""The controller's commands on their topics: what was sent last, how long ago, and when it is to be sent again."""

from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher

from controller.ros import convert
from controller.ros.loop import Brain
from controller.ros.node import OFFERED, now_ns, steady_ns


class Outbox:
    """period: of control [ns]."""

    def __init__(self, node: Node, brain: Brain, period: int) -> None:
        self._node, self._period, self._patience = node, period, (brain.patience, brain.thinking)
        self._kind = convert.message_type(brain.output)
        self._commands = node.create_publisher(self._kind, "~/commands", OFFERED)
        made = (self._other(topic, kind) for topic, kind in brain.others.items())
        self._others = [other for other in made if other is not None]
        self.forget()

    def _other(self, topic: str, name: str) -> tuple[Any, Publisher] | None:
        """The message's type and who publishes it. Nobody does where its package is not installed, or is of another ROS or Python, or a folder of
        that name and nothing more: the command itself needs none of them."""
        try:
            kind = convert.message_type(name)
            return kind, self._node.create_publisher(kind, f"~/{topic}", OFFERED)
        except Exception as e:
            if not (isinstance(e, ModuleNotFoundError) and name.startswith(f"{e.name}/")):
                self._node.get_logger().warning(f"{topic} is not published: {name} is there and cannot be used: {e!r}")
            return None

    def close(self) -> None:
        for publisher in (self._commands, *(publisher for _, publisher in self._others)):
            self._node.destroy_publisher(publisher)

    def forget(self) -> None:
        """As if nothing had been sent."""
        self._at: int | None = None
        self._planned = False
        self._repeated = 0  # how often the last command was sent again
        self._last: list[tuple[Any, Any]] = []

    @property
    def empty(self) -> bool:
        return self._at is None

    def send(self, brain: Brain, action: np.ndarray, label: convert.Label, planned: bool) -> None:
        """action: (n,), in the robot's units. brain: of the robot that this one was made for."""
        command = self._kind()
        brain.fill(command, action, label)
        self._commands.publish(command)
        self._at, self._planned, self._repeated = steady_ns(self._node), planned, 0
        self._last = [(self._commands, command)]
        for kind, publisher in self._others:
            message = kind()
            convert.set_stamp(message, now_ns(self._node))
            brain.fill_other(message, action)
            publisher.publish(message)
            self._last.append((publisher, message))

    def answer_again(self) -> None:
        """The last command alone, to a robot that did not get it."""
        self._commands.publish(self._last[0][1])

    def silent(self) -> int:
        """Since the last command [ns]; it waits anew where /clock was set back. Not to be asked where there was none."""
        assert self._at is not None
        now = steady_ns(self._node)
        self._at = min(self._at, now)
        return now - self._at

    def until_next(self, silent: int, thinking: bool) -> float:
        """Until the next command is due [ns]: the brain's patience after a planned one, one period after any other. thinking: a state has come, and
        its plan is not ready."""
        return (self._patience[thinking] if self._planned else 1.0) * self._period - silent

    def until_again(self, silent: int, times: int) -> float:
        """Until the last command is to be sent again, `times` times within its period [ns]. Where that is now, it is sent."""
        left = self._due(times) - silent
        if left > 0:
            return left
        self._repeated += 1
        for publisher, message in self._last:
            publisher.publish(message)
        return self._due(times) - silent

    def _due(self, times: int) -> float:
        """When after a command it is to be sent again [ns]."""
        return (self._repeated + 1) * self._period / (times + 1) if self._repeated < times else float("inf")
