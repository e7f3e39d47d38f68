"""Running nodes under observation: both nodes in processes of their own, and a probe that sees every command and judges it.

A trial is safe where every command was finite and within bounds, none was older than STALE periods when the next was sent, and the
robot, where the controller was away, took its safe action within SILENT periods. It has recovered where fresh plans come again afterwards,
and where a quadrotor, which hovers, is back at its place.
"""

import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.parameter_client import AsyncParameterClient
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

from controller.ros import convert, told
from controller.ros.commands import Nodes
from controller.ros.controller_config import real_time
from controller.ros.flight_config import FlightConfig, make_robot, make_trajectory
from controller.ros.loop import MISS, STEP, Row
from controller.ros.node import EVERYTHING
from controller.ros.params import flatten
from robots import vehicle
from robots.ant import Ant

STALE = 2.0  # periods
SILENT = 2.0  # periods
NAMES = ("step", "miss", "late", "reset")  # of rows, by their kind
KILLED = ("controller-killed", "controller-interrupted")
PATIENCE_S = 30.0  # for a node to start
SET_BACK = 250_000_000  # [ns]
# The ant's searches: of slowed-down trials beside other programs, and the one that is the default.
QUICK = {
    "controller.planner.samples": 16,
    "controller.planner.horizon": 3,
    "controller.planner.iterations": 1,
    "controller.planner.ahead": 0,
}
SHIPPED = {f"controller.{name}": x for name, x in flatten(real_time()).items() if name.startswith("planner.")}
NEAR_M, CALM_M_S, BACK_S = 0.3, 0.3, 10.0  # a quadrotor is back where it is this near and this slow, within this time
READ_S = 0.2  # of the robot's time, after which what a node caused has come
SAID_S = 2.0  # of wall time, in which diagnostics of once a second are heard for certain
HOVER = {"flight.trajectory": "hover"}  # of both nodes: where nobody controls it for long, it is to stay near


class Command(NamedTuple):
    time: float  # when it came [s]
    data: np.ndarray
    label: convert.Label


@dataclass(frozen=True)
class Outcome:
    """Times on the robot's clock but for recovery_s, which is wall time."""

    fault: str
    safe: bool
    recovered: bool
    recovery_s: float
    max_gap_ms: float
    commands: int
    why: str = ""


class Probe(Node):
    """Watches both nodes, changes their parameters and calls their services."""

    def __init__(self, context: Context):
        super().__init__("sealegs_probe", context=context)
        self.commands: list[Command] = []
        self.rows: list[tuple[float, Row]] = []
        self.efforts: list[tuple[int, np.ndarray]] = []  # by stamp [ns]
        self.said: list[tuple[float, str]] = []  # by the robot, of the commands that it gets
        self.silences: list[
            tuple[float, float]
        ] = []  # when it said that it takes the safe action, and how long the last command had acted [ms]
        self.at: Odometry | None = None
        self.crashes: list[float] = []  # when it said that no command helps any more
        self.create_subscription(Float64MultiArray, "sealegs_controller/commands", self._command, EVERYTHING)
        self.create_subscription(Float64MultiArray, "sealegs_controller/telemetry", self._row, EVERYTHING)
        self.create_subscription(JointState, "joint_states", self._state, EVERYTHING)
        self.create_subscription(Odometry, "odom", self._odom, EVERYTHING)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._diagnosis, 50)
        self._transitions = self.create_client(ChangeState, "sealegs_controller/change_state")
        self._settings_of = {name: AsyncParameterClient(self, f"sealegs_{name}") for name in ("robot", "controller")}
        self._spinner = SingleThreadedExecutor(context=context)
        self._spinner.add_node(self)

    def _command(self, m: Float64MultiArray) -> None:
        label = convert.label_of(m)
        assert label is not None
        self.commands.append(Command(time.monotonic(), np.array(m.data), label))

    def _row(self, m: Float64MultiArray) -> None:
        self.rows.append((time.monotonic(), told.read(m).row))

    def _state(self, m: JointState) -> None:
        self.efforts.append((convert.stamp_of(m), np.array(m.effort)))

    def _odom(self, m: Odometry) -> None:
        self.at = m

    def _diagnosis(self, m: DiagnosticArray) -> None:
        self.said += [(time.monotonic(), s.message) for s in m.status if s.name.endswith("sealegs_robot: commands")]
        for s in m.status:
            if "the safe action acts" in s.message:
                acted = next((float(v.value) for v in s.values if v.key == "acted_ms"), float("nan"))
                self.silences.append((time.monotonic(), acted))
        if any("has crashed" in s.message for s in m.status):
            self.crashes.append(time.monotonic())

    def spin(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """-> whether `until` came true in that time."""
        end = time.monotonic() + seconds
        while not (done := until()) and time.monotonic() < end:
            self._spinner.spin_once(timeout_sec=0.02)
        return done

    def set(self, node: str, values: dict[str, Any]) -> list[str]:
        """-> the reasons of refusals. Raises TimeoutError."""
        client = self._settings_of[node]
        if not self.spin(PATIENCE_S, client.services_are_ready):
            raise TimeoutError(f"no parameters at the {node} node")
        future = client.set_parameters([Parameter(name, value=value) for name, value in values.items()])
        return [r.reason for r in self._answer(future, node).results if not r.successful]

    def get(self, node: str, name: str) -> Any:
        return parameter_value_to_python(self._answer(self._settings_of[node].get_parameters([name]), node).values[0])

    def change(self, transition: int) -> bool:
        """Of the controller's life cycle (lifecycle_msgs/Transition) -> whether it succeeded. Raises TimeoutError."""
        if not self.spin(PATIENCE_S, self._transitions.service_is_ready):
            raise TimeoutError("no controller whose state could be changed")
        request = ChangeState.Request(transition=Transition(id=transition))
        return self._answer(self._transitions.call_async(request), "the controller").success

    def call(self, service: str) -> Trigger.Response:
        client = self.create_client(Trigger, f"sealegs_controller/{service}")
        if not self.spin(PATIENCE_S, client.service_is_ready):
            raise TimeoutError(f"no service {service}")
        return self._answer(client.call_async(Trigger.Request()), service)

    def _answer(self, future: Any, who: str) -> Any:
        if not self.spin(PATIENCE_S, future.done):
            raise TimeoutError(f"{who} does not answer")
        return future.result()

    def fresh(self, since: float, n: int = 3, run: int = -1) -> bool:
        """Whether n fresh plans came after `since`, of runs after that one. Asked before every message that is read: it looks at what came since,
        not at all that ever came, or after some minutes the probe no longer hears what is said in time."""
        since_then = itertools.takewhile(lambda row: row[0] > since, reversed(self.rows))
        return sum(r.kind == STEP and r.run > run for _, r in since_then) >= n


def lost_between(a: Row, b: Row) -> bool:
    """Whether commands were sent between these, by their numbers, of which no row came here."""
    return a.run == b.run and b.seq > a.seq + 1


def longest_gap(rows: Sequence[Row], silent: bool, killed: bool) -> float:
    """Longest time between two commands [s], by rows of STEP and MISS in order and by the controller's own clock, so that it is its delay that
    counts and not that of whoever watches. silent: whether the robot was heard to say that it had no command. killed: a controller that begins
    anew is no gap; what the robot did meanwhile is judged by what it says.

    A busy machine may lose rows on their way here. The time over which they were lost counts as a whole where the robot was silent, and not
    where it had commands all the time."""
    gaps = [
        b.sent_s - a.sent_s
        for a, b in itertools.pairwise(rows)
        if not (killed and a.run != b.run) and (silent or not lost_between(a, b))
    ]
    return max((g for g in gaps if g >= 0), default=0.0)  # less where the robot, and /clock, began anew


class Bench:
    """Both nodes and a probe, in a domain of their own. speed: times real time; 1 is real time, without /clock. search: the ant's.
    keep_awake: the controller's."""

    def __init__(
        self,
        folder: Path,
        domain: int,
        seed: int = 0,
        speed: float = 1.0,
        robot: str = "ant",
        search: Mapping[str, Any] = QUICK,
        keep_awake: bool = False,
    ):
        os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        self.search, self._keep_awake = dict(search), keep_awake
        self.robot, flown = robot, vehicle.load("1kg")
        self.period = Ant.dt if robot == "ant" else flown.dt
        ends = (np.full(8, x) if robot == "ant" else flown.command(np.full(4, x)) for x in (-1.0, 1.0))
        self.low, self.high = ends
        if robot != "ant":
            flight = FlightConfig(trajectory="hover")
            self._home = make_trajectory(flight, make_robot(flight), seed).at(np.zeros(1)).p[0]
        self.nodes = Nodes(folder, domain, "")
        self.speed, self._seed = speed, seed
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.probe = Probe(self.context)
        try:
            self.start("controller")
            self.start("robot")
            self.running()
        except TimeoutError:
            self.close()
            raise

    def start(self, name: str) -> None:
        if name == "controller":
            own = self.search if self.robot == "ant" else HOVER
            settings = {
                "autostart": True,
                "seed": self._seed,
                "use_sim_time": self.speed != 1,
                "keep_awake": self._keep_awake,
            }
            settings |= own
        else:
            own = {} if self.robot == "ant" else HOVER
            settings = {"seed": self._seed, "mode": "real" if self.speed == 1 else "fast", "speed": self.speed, **own}
        self.nodes.start(name, {"robot": self.robot, **settings})

    def running(self, seconds: float = 120.0) -> None:
        """Raises TimeoutError."""
        begun = time.monotonic()
        if not self.probe.spin(seconds, lambda: self.probe.fresh(begun)):
            raise TimeoutError("the nodes do not run: " + "; ".join(self.nodes.output(n) for n in self.nodes.processes))

    def kill(self, name: str) -> None:
        process = self.nodes.processes[name]
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.ended()

    def ended(self) -> None:
        """After a node has: what it caused, still unread, is read, so that nobody takes it for what the next one does."""
        self.wait(READ_S)

    def close(self) -> None:
        self.nodes.stop(*self.nodes.processes)
        self.probe.destroy_node()
        rclpy.try_shutdown(context=self.context)  # pyright: ignore[reportPrivateImportUsage]

    def wait(self, seconds: float) -> None:
        """Of the robot's time."""
        self.probe.spin(seconds / self.speed)

    def outcome(self, fault: str, begun: float, over: float, patience: float = 15.0) -> Outcome:
        """Waits for the recovery, then judges the commands from begun on."""
        probe, period = self.probe, self.period
        # What a killed controller sent may still wait to be read: it is no recovery.
        old = int(max((r.run for _, r in probe.rows), default=-1)) if fault in KILLED else -1
        recovered = probe.spin(
            patience / self.speed if patience < PATIENCE_S else patience, lambda: probe.fresh(over, run=old)
        )
        if self.robot != "ant":
            recovered = recovered and probe.spin(BACK_S / self.speed, self.back)
        if fault in KILLED and self.robot != "ant":
            # While a node starts nobody looks, and what the robot said meanwhile waits behind what else did.
            probe.spin(SAID_S, lambda: any(t > begun for t, _ in probe.silences))
        first = next((t for t, r in probe.rows if t > over and r.kind == STEP and r.run > old), float("nan"))
        seen = [c for c in probe.commands if c.time > begun]
        sound = all(((c.data >= self.low) & (c.data <= self.high)).all() for c in seen)  # False where NaN
        rows = [r for t, r in probe.rows if t > begun and r.kind in (STEP, MISS)]
        if any(lost_between(a, b) for a, b in itertools.pairwise(rows)):
            probe.spin(SAID_S)  # the robot says once a second whether it had commands
        gap = longest_gap(rows, any(t > begun for t, _ in probe.silences), fault in KILLED)
        why = "" if sound else "a command out of bounds"
        if gap > STALE * period + 1e-6:  # /clock goes in steps: a gap may be of the limit itself
            why = f"no command for {1e3 * gap:.0f} ms"
        elif fault in KILLED and self.robot == "ant" and (moved := self._moved_in_silence()):
            why = f"not in the safe action {moved:.2f} s after the last command"
        elif fault in KILLED and self.robot != "ant":
            acted = [ms for t, ms in probe.silences if t > begun]
            words = [f"{t - begun:.1f} s: {what}" for t, what in probe.said if t > begun]
            if not acted:
                why = f"the robot did not say that it takes the safe action, but {'; '.join(words) or 'nothing'}"
            elif not max(acted) <= SILENT * 1e3 * period + 1e-3:  # also where it is not told
                why = f"the last command acted for {max(acted):.1f} ms"
        crashed = any(t > begun for t in probe.crashes)
        if crashed:
            why = why or "the vehicle has crashed"
        safe = not why
        if not recovered:
            why = "; ".join(filter(None, (why, self._heard(begun))))
        return Outcome(fault, safe, recovered and not crashed, first - over, 1e3 * gap, len(seen), why)

    def _heard(self, since: float) -> str:
        """Of the controller, by the probe: what there is to go by where plans do not come again."""
        rows = Counter(f"{NAMES[int(r.kind)]} of run {r.run:.0f}" for t, r in self.probe.rows if t > since)
        heard = ", ".join(f"{n} {what}" for what, n in rows.items()) or "nothing"
        seen = self.probe.count_publishers("sealegs_controller/telemetry")
        return (
            f"heard {heard} of {seen} controllers; the newest says {self.nodes.output('controller').strip()[-300:]!r}"
        )

    def back(self) -> bool:
        """Of a quadrotor."""
        if self.probe.at is None:
            return False
        p, v = self.probe.at.pose.pose.position, self.probe.at.twist.twist.linear
        off = np.array([p.x, p.y, p.z]) - self._home
        return bool(np.linalg.norm(off) < NEAR_M and np.linalg.norm([v.x, v.y, v.z]) < CALM_M_S)

    def _moved_in_silence(self) -> float:
        """How long after its last command the robot was seen to act, beyond what it may, while the controller was away [s]; 0: not."""
        # A robot that was started again began its stamps anew: what an earlier one did is not this one's.
        commands = self.probe.commands[began([c.label.stamp for c in self.probe.commands]) :]
        efforts = self.probe.efforts[began([stamp for stamp, _ in self.probe.efforts]) :]
        run = commands[-1].label.run
        first = next(c.label for c in commands if c.label.run == run)
        # Commands that came before the probe knew of the new node, of which no two are further apart than STALE periods.
        after = first.stamp - round((first.seq - 1) * STALE * 1e9 * self.period)
        before = [c.label.stamp for c in commands if c.label.run != run]
        last = max((s for s in before if s < after), default=after)
        # One period until the command acts, SILENT until it does so no more, one until the state shows it.
        late = [
            s - last for s, effort in efforts if last + (SILENT + 2) * 1e9 * self.period < s < after and effort.any()
        ]
        return max(late, default=0) / 1e9


def began(stamps: list[int]) -> int:
    """Where the last time line begins: stamps [ns] after the last that are set back, by more than messages overtake each other."""
    return max((i for i, (a, b) in enumerate(itertools.pairwise(stamps), 1) if a - b > SET_BACK), default=0)
