"""A simulated robot behind the topics of a real one. What its time is, and when it steps, robot_time.py says.

Without a command for 2 periods the safe action acts. `condition` changes live and is announced on ~/condition (latched, JSON). What the
sensors and the network do to the state is seeded and set by parameter; `fault` injects one of FAULTS for as long as it is set.
"""

import heapq
import itertools
import json
from collections import Counter
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String
from visualization_msgs.msg import Marker, MarkerArray

from controller.config import UsageError
from controller.ros import convert
from controller.ros.controller_config import check_priority
from controller.ros.node import (
    LATCHED,
    NEWEST,
    OFFERED,
    STEADY,
    Parameters,
    other_clock,
)
from controller.ros.plants import PLANTS
from controller.ros.robot_config import LATE_MS, SILENCE, Fault, RobotConfig, overtaken, tells_of_life
from controller.ros.shapes import Shape

FIXED = (
    "robot",
    "seed",
    "mode",
    "speed",
    "steps",
    "stand",
    "listeners",
    "engine",
    "marker_hz",
    "thread_priority",
    "lock_memory",
)  # read at the start
RED, GREY = (0.9, 0.2, 0.15, 1.0), (0.75, 0.6, 0.4, 1.0)


class RobotNode(Node):
    def __init__(self) -> None:
        super().__init__("sealegs_robot")
        self.plant = None
        self.settings = Parameters(self, RobotConfig(), self._change)
        config = self.settings.config
        self.plant = PLANTS[config.robot](config)
        self.period = round(self.plant.dt * 1e9)
        self.step = 0  # control periods so far
        self._schedule, self._since = self.plant.conditions(config.condition), 0
        self._stage: Any = None
        self._rng = np.random.default_rng([config.seed, 1])  # of sensors and network; the start has one of its own
        self._offset = 0  # [ns] of the robot's clock, while it is at fault
        self._queue: list[tuple[int, int, str, Any]] = []  # due [ns], order, topic, message
        self._order = itertools.count()
        self._held_back: list[tuple[str, Any]] = []
        self._measured: dict[str, Any] = {}  # the last state's messages, by topic
        self._coming: list[tuple[int, int, Any]] = []  # due [ns], order, command
        self._command_rng = np.random.default_rng(
            [config.seed, 2]
        )  # of their own: when commands come, the machine decides
        self.action: np.ndarray | None = None
        self.heard: int | None = None
        self._obeyed = 0  # when a command was, last [ns]
        self._safe = False  # whether the safe action acts
        self._acted = 0  # how long a command acted at most until it took its place [ns], since that was said
        self._label: convert.Label | None = None
        self._counts: Counter[str] = Counter()
        self._outputs = {
            topic: self.create_publisher(convert.message_type(kind), topic, OFFERED)
            for topic, kind in self.plant.outputs.items()
        }
        self._announce = self.create_publisher(String, "~/condition", LATCHED)
        self._markers = self.create_publisher(MarkerArray, "markers", 10)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._ticks = self.create_publisher(Clock, "/clock", 10) if config.mode == "fast" else None
        self.create_subscription(
            convert.message_type(self.plant.input), "sealegs_controller/commands", self._hear, NEWEST
        )
        self.create_timer(1.0, self._report, clock=STEADY)
        if config.marker_hz:
            self.create_timer(1 / config.marker_hz, self._draw, clock=STEADY)
        self.now = 0  # [ns], the robot's time
        self.plant.reset(self._schedule.at(0), config.seed)
        self._condition()

    def close(self) -> None:
        pass

    def _change(self, config: RobotConfig, names: set[str]) -> None:
        """Raises ConditionError, UsageError."""
        for name in ("drop", "reorder"):
            if getattr(config, name) > 1:
                raise UsageError(f"{name} is {getattr(config, name)}; valid: a probability, 0 to 1")
        check_priority(config.thread_priority)
        if config.speed <= 0:
            raise UsageError(f"speed is {config.speed}; valid: more than 0")
        late = [n for n in ("delay_ms", "jitter_ms", "drop", "reorder", "relay_commands") if getattr(config, n)]
        if config.mode == "lockstep" and late:
            raise UsageError(
                f"{late[0]} is {getattr(config, late[0])}; valid in lockstep: 0, because it waits for every answer"
            )
        schedule = (
            PLANTS[config.robot](config).conditions(config.condition)
            if self.plant is None
            else self.plant.conditions(config.condition)
        )
        if self.plant is None:
            return
        if fixed := sorted(n for n in names if n.startswith("flight.") or n in FIXED):
            raise UsageError(f"{fixed[0]} is read when the node starts; valid: start it again with the new value")
        if "condition" in names:
            self._schedule, self._since = schedule, self.step

    # --- commands in

    def _hear(self, message: Any) -> None:
        config = self.settings.config
        if not config.relay_commands:
            self._obey(message)
        elif self._command_rng.random() >= config.drop:
            delay = 1e6 * (config.delay_ms + config.jitter_ms * self._command_rng.standard_normal())
            heapq.heappush(self._coming, (self.now + max(0, round(delay)), next(self._order), message))

    def _obey(self, message: Any) -> None:
        assert self.plant is not None
        label = convert.label_of(message)
        since = (self.now - self._obeyed) / self.period
        if overtaken(label, self._label, since):
            self._counts["stale"] += 1
            if tells_of_life(label, self._label, since):
                self.heard = self.now
            return
        try:
            action = self.plant.read(message)
        except convert.BadMessage as e:
            self._counts["unusable"] += 1
            self.get_logger().warning(str(e), throttle_duration_sec=1.0)
            return
        self._counts["obeyed"] += 1
        self.action, self.heard, self._label = action, self.now, label
        self._obeyed = self.now

    def acting(self) -> np.ndarray | None:
        """The command in force for a step of the physics; None where that would end later than SILENCE: the plant then does what is safe."""
        assert self.plant is not None
        if self.heard is None:
            return None
        acted = self.now - self.heard
        if acted + self.period // self.plant.substeps > SILENCE * self.period:
            self._counts["silent"] += 1
            if not self._safe:
                self._safe, self._acted = True, max(self._acted, acted)
            return None
        self._safe = False
        return self.action

    # --- states out

    def publish(self) -> int:
        """The state of now, through sensors and network. -> its stamp [ns]"""
        assert self.plant is not None
        config = self.settings.config
        fault = config.fault
        stamp = self.now + (3_600_000_000_000 if fault == "clock" else 0)
        messages = {topic: convert.message_type(kind)() for topic, kind in self.plant.outputs.items()}
        self.plant.fill(messages, stamp, self._disturb)
        spoil(messages, fault, self._rng)
        self._measured = messages
        sent = [(topic, m) for topic, m in messages.items() if fault != "missing" and self._rng.random() >= config.drop]
        if fault == "reorder" or self._rng.random() < config.reorder:
            if not self._held_back:
                self._held_back, sent = sent, []
        else:
            sent, self._held_back = sent + self._held_back, []
        if fault == "reorder" and sent:  # the newer pair, then the older one
            sent, self._held_back = sent + self._held_back, []
        delay = 1e6 * (config.delay_ms + (LATE_MS if fault == "late" else 0.0))
        for topic, message in sent * (2 if fault == "repeat" else 1):
            jitter = 1e6 * config.jitter_ms * self._rng.standard_normal()
            due = self.now + max(0, round(delay + jitter))
            heapq.heappush(self._queue, (due, next(self._order), topic, message))
        self.deliver()
        return stamp

    def publish_again(self) -> None:
        """What was measured last, as it was: another reading would be another run. Of what it lost the network makes good."""
        for topic, message in self._measured.items():
            self._outputs[topic].publish(message)

    def deliver(self) -> None:
        """Send, and obey, what is due."""
        while self._coming and self._coming[0][0] <= self.now:
            self._obey(heapq.heappop(self._coming)[2])
        while self._queue and self._queue[0][0] <= self.now:
            _, _, topic, message = heapq.heappop(self._queue)
            self._outputs[topic].publish(message)

    @property
    def due(self) -> int | None:
        """When the next message is to leave, or to be obeyed [ns]."""
        return min((queue[0][0] for queue in (self._queue, self._coming) if queue), default=None)

    def tick(self) -> None:
        if self._ticks is not None:
            message = Clock()
            message.clock.sec, message.clock.nanosec = divmod(self.now, 1_000_000_000)
            self._ticks.publish(message)

    def other_clock(self) -> str:
        """Why the time cannot be told, in a sentence; empty where it can."""
        return "" if self._ticks is None else other_clock(self, self._ticks.topic_name)

    def _disturb(self, what: str, x: np.ndarray) -> np.ndarray:
        config = self.settings.config
        sigma, grain = getattr(config.noise, what), getattr(config.resolution, what)
        if what == "orientation":
            sigma = sigma / 2  # of a quaternion's components, for a small angle about any axis
        if sigma:
            x = x + sigma * self._rng.standard_normal(x.shape)
        if grain:
            x = np.round(x / grain) * grain
        return x / np.linalg.norm(x) if what == "orientation" and (sigma or grain) else x

    # --- what it tells

    def condition(self) -> Any:
        """In force at this step; announced where it is new."""
        stage = self._schedule.at(self.step - self._since)
        if stage != self._stage:
            self._condition()
        return stage

    def _condition(self) -> None:
        self._stage = self._schedule.at(self.step - self._since)
        text = json.dumps(
            {"condition": self._schedule.text, "step": self.step, "since": self._since, "stamp": self.now}
        )
        self._announce.publish(String(data=text))

    def _draw(self) -> None:
        assert self.plant is not None
        if self._markers.get_subscription_count():
            stamp = self.get_clock().now().to_msg()
            self._markers.publish(
                MarkerArray(markers=[marker(i, shape, stamp) for i, shape in enumerate(self.plant.shapes())])
            )

    def _report(self) -> None:
        counts, self._counts = self._counts, Counter()
        trouble = (self.plant.trouble() if self.plant is not None else "") or self.other_clock()
        level = (
            DiagnosticStatus.ERROR
            if counts["silent"] or trouble
            else DiagnosticStatus.WARN
            if counts["unusable"] or (counts["stale"] and not counts["obeyed"])
            else DiagnosticStatus.OK
        )
        say = trouble or (
            "no command for 2 periods: the safe action acts"
            if counts["silent"]
            else f"{counts['obeyed']} commands obeyed"
        )
        values = {**counts, "acted_ms": self._acted / 1e6} if counts["silent"] else counts
        if not self._safe:
            self._acted = 0
        status = DiagnosticStatus(
            name=f"{self.get_fully_qualified_name()}: commands", level=level, message=say,
            values=[KeyValue(key=k, value=str(v)) for k, v in values.items()],
        )  # fmt: skip
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    @property
    def config(self) -> RobotConfig:
        return self.settings.config

    @property
    def answered(self) -> int | None:
        """Stamp of the state that the last command answers [ns]."""
        return self._label.stamp if self._label else None

    def heard_by(self, listeners: int) -> bool:
        return all(p.get_subscription_count() >= listeners for p in self._outputs.values())

    def behind(self) -> None:
        self._counts["behind"] += 1


def spoil(messages: dict[str, Any], fault: Fault, rng: np.random.Generator) -> None:
    """What a fault does to a state's messages, in place."""
    joint = messages.get("joint_states")
    if joint is None:
        if fault == "nan":
            messages["odom"].pose.pose.position.x = float("nan")
        elif fault == "names" and "payload" in messages:
            messages["payload"].header.frame_id = "no_such_frame"
        return
    i = int(rng.integers(len(joint.name)))
    if fault == "nan":
        joint.position[i] = float("nan")
    elif fault == "names":
        joint.name[i] = "no_such_joint"
    elif fault == "order":
        order = rng.permutation(len(joint.name)).tolist()
        joint.name = [joint.name[j] for j in order]
        joint.position = [joint.position[j] for j in order]
        joint.velocity = [joint.velocity[j] for j in order]


def marker(i: int, shape: Shape, stamp: Any) -> Marker:
    radius, half = float(shape.size[0]), float(shape.size[1])
    m = Marker(ns="robot", id=i, type=Marker.SPHERE if shape.kind == "sphere" else Marker.CYLINDER, action=Marker.ADD)
    m.header.frame_id, m.header.stamp = "odom", stamp
    convert.fill_xyz(m.pose.position, shape.p)
    m.pose.orientation.w, m.pose.orientation.x, m.pose.orientation.y, m.pose.orientation.z = shape.quaternion.tolist()
    m.scale.x = m.scale.y = 2 * radius
    m.scale.z = 2 * radius + (0.0 if shape.kind == "sphere" else 2 * half)
    m.color.r, m.color.g, m.color.b, m.color.a = RED if shape.broken else GREY
    return m
