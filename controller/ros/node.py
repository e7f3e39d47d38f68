"""What the nodes share: parameters from a dataclass, quality of service, the clock, and how a node is run and ended."""

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import rclpy
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.executors import Executor
from rclpy.experimental.events_executor import EventsExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from controller.ros.params import Value, flatten, update
from controller.ros.punctual import keep_memory
from controller.ros.stop import STOP

C = TypeVar("C")


def _qos(depth: int, reliable: bool, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )  # fmt: skip


# Who controls asks for the newest and no repetition; who offers would repeat it for a recorder, which asks for everything.
NEWEST = _qos(1, reliable=False)
OFFERED = _qos(200, reliable=True)  # of a recorder that has no core for a second or two nothing is lost
EVERYTHING = _qos(2000, reliable=True)
ALL_THAT_COMES = _qos(2000, reliable=False)  # of who does not repeat
LATCHED = _qos(10, reliable=True, latched=True)
SWITCH_S = (
    2e-4  # who plans gives way to who receives after so long; Python's own 5 ms are half a period of the quadrotor
)
LOOPBACK = Path(__file__).with_name("loopback.xml")
SIMULATED = "use_sim_time"
STEADY = Clock(clock_type=ClockType.STEADY_TIME)


class Parameters(Generic[C]):
    """A dataclass as a node's parameters. A value that is refused leaves the old one, and the reply says why. use_sim_time, which ROS declares, is
    not in the dataclass, but `change` is told of it, too."""

    def __init__(self, node: Node, default: C, change: Callable[[C, set[str]], None]):
        """change(config, names) checks and applies; it raises ValueError with the reason to refuse."""
        self._node, self._change = node, change
        values = {name: self._declared(name, value) for name, value in flatten(default).items()}
        self.config = update(default, values)
        change(self.config, set(values))
        node.add_on_set_parameters_callback(self._set)

    def _declared(self, name: str, value: Value) -> Any:
        """Of any type, as far as ROS is concerned: `update` knows which ones do, and refuses in a sentence."""
        return self._node.declare_parameter(name, value, ParameterDescriptor(dynamic_typing=True)).value

    def _set(self, parameters: list[Parameter]) -> SetParametersResult:
        known = flatten(self.config)
        mine = {p.name: p.value for p in parameters if p.name in known}
        clock = {p.name for p in parameters if p.name == SIMULATED and p.value != _simulated(self._node)}
        if not mine and not clock:
            return SetParametersResult(successful=True)
        try:
            config = update(self.config, mine)
            self._change(config, set(mine) | clock)
        except ValueError as e:
            self._node.get_logger().warning(f"refused: {e}")
            return SetParametersResult(successful=False, reason=str(e))
        self.config = config
        return SetParametersResult(successful=True)


def now_ns(node: Node) -> int:
    """The time of stamps [ns]: the system's, or /clock's with use_sim_time."""
    return node.get_clock().now().nanoseconds


def steady_ns(node: Node) -> int:
    """A clock for durations [ns]: never set back, unless with use_sim_time, where it is /clock."""
    return now_ns(node) if _simulated(node) else time.monotonic_ns()


def _simulated(node: Node) -> bool:
    return bool(node.get_parameter(SIMULATED).value)


def no_time(node: Node, before: int) -> str:
    """Why no time passes for this node, in a sentence; empty where it does. before: `now_ns` a while ago, -1 if that is not known."""
    now = now_ns(node)
    if not _simulated(node) or now not in (0, before):
        return ""
    clock = node.resolve_topic_name("/clock")
    came = f"{clock} stands still at {now / 1e9:g} s" if now else f"nothing came on {clock} yet"
    return (
        f"use_sim_time is true and {came}: no time passes, so no silence is noticed; valid: start what publishes it, or set use_sim_time to false "
        "before the node is configured"
    )


def other_clock(node: Node, topic: str) -> str:
    """Who beside this node publishes the time, in a sentence; empty where nobody does."""
    me = node.get_fully_qualified_name()
    names = [f"{p.node_namespace.rstrip('/')}/{p.node_name}" for p in node.get_publishers_info_by_topic(topic)]
    if len(names) < 2:
        return ""
    # DDS tells of a topic before it tells of the node's name.
    other = next((name for name in names if name != me and "UNKNOWN" not in name), "another node")
    return (
        f"{topic} is published by {other}, too, and two times on one topic jump to and fro; valid: mode lockstep or real, a ROS_DOMAIN_ID of "
        "its own, or a clock of its own for all nodes of this robot (-r /clock:=clock, clock:=NAME of the launch file)"
    )


def over_udp() -> None:
    """Fast DDS without its shared memory, unless the user chose its transports: there every publisher of a process waits while a newcomer's port is
    not ready, which was seen to take 340 ms, and nothing of the process goes on meanwhile. To be called before rclpy.init."""
    env = os.environ
    if any(v in env for v in ("FASTDDS_BUILTIN_TRANSPORTS", "FASTRTPS_DEFAULT_PROFILES_FILE", "ROS_STATIC_PEERS")):
        return
    # This range brings transports of its own, shared memory among them, so the profile says the same without.
    if env.get("ROS_AUTOMATIC_DISCOVERY_RANGE") == "LOCALHOST":
        env.update(ROS_AUTOMATIC_DISCOVERY_RANGE="SYSTEM_DEFAULT", FASTRTPS_DEFAULT_PROFILES_FILE=str(LOOPBACK))
    else:
        env["FASTDDS_BUILTIN_TRANSPORTS"] = "UDPv4"


def run_node(argv: list[str], make: Callable[[], Any], loop: Callable[[Any, Executor], int] | None = None) -> int:
    """Start ROS, make the node, spin until STOP (or loop until it returns), end in order. -> exit code: 2 where ROS could not be started or the
    node not be made for a reason that is the user's."""
    sys.setswitchinterval(SWITCH_S)
    keep_memory()
    over_udp()
    try:
        rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as e:  # RCLError: it names the argument, and then the lines of its own source
        why = str(e).split(", at /")[0]
        print(f"sealegs: {why}; valid: --ros-args -p NAME:=VALUE -r FROM:=TO --params-file FILE", flush=True)
        return 2
    node = None
    try:
        node = make()
        executor = (
            EventsExecutor()
        )  # both nodes together take a fifth less processor time than on the single-threaded one
        executor.add_node(node)
        if loop is not None:
            return loop(node, executor)
        while not STOP.is_set():
            executor.spin_once(timeout_sec=0.05)
        return 0
    except InvalidParameterTypeException as e:  # of what ROS declares itself, as use_sim_time
        print(f"sealegs: {str(e).rsplit(': ', 1)[0]}", flush=True)
        return 2
    except ValueError as e:  # the user's errors: UsageError, ConditionError, CheckpointError
        print(f"sealegs: {e}", flush=True)
        return 2
    finally:
        if node is not None:
            node.close()
            node.destroy_node()
        rclpy.try_shutdown()  # pyright: ignore[reportPrivateImportUsage]


def refuse_transitions(node: LifecycleNode) -> None:
    """Where a transition is asked for that the node's state does not have, rclpy before ros2/rclpy#1319 raises, which ends the node and tells
    nobody. As in rclcpp, the answer is no and the state stays."""
    service: Any = node._service_change_state
    transit = service.callback

    def change(request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
        try:
            return transit(request, response)
        except RuntimeError as e:  # RCLError
            node.get_logger().error(f"transition {request.transition.label or request.transition.id} is refused: {e}")
            response.success = False
            return response

    service.callback = change


class Watchdog:
    """A thread that looks again and again, as soon as the last look said [s]."""

    def __init__(self, look: Callable[[], float]):
        self._look = look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def thread(self) -> int | None:
        """As the kernel calls it."""
        return self._thread.native_id

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._look()):
            pass


class Worker:
    """A thread that does one job at a time. A job that comes while another runs waits; a newer one takes its place. failed: told of whatever a
    job raises; the next job is tried. first: what the thread does before there is a worker, for practice: libraries build what they need once for
    each thread."""

    def __init__(self, work: Callable[[Any], None], failed: Callable[[Exception], None], first: Callable[[], None]):
        self._work, self._failed, self._first = work, failed, first
        self._ready = threading.Event()
        self._changed = threading.Condition()
        self._job: Any = None
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait()

    def give(self, job: Any) -> bool:
        """-> whether it took the place of one that had not begun."""
        with self._changed:
            replaced, self._job = self._job is not None, job
            self._changed.notify()
            return replaced

    @property
    def waiting(self) -> bool:
        """Whether a job waits."""
        return self._job is not None

    def close(self) -> None:
        with self._changed:
            self._stop = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._first()
        except Exception as e:
            self._failed(e)
        self._ready.set()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stop or self._job is not None)
                if self._stop:
                    return
                job, self._job = self._job, None
            try:
                self._work(job)
            except Exception as e:
                self._failed(e)
