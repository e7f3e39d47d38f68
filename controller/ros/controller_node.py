"""The controller as a lifecycle node: state messages in, commands out, whatever comes or fails to come.

    ~/commands    the command, one for every state, and where none comes one for every period (guard: hold, then relax; a state that comes just
                  after that may be answered at once)
    ~/telemetry   one row for every command (loop.Row), as labelled numbers
    ~/config      the settings of this run, JSON, latched: what `sealegs replay` starts from
    markers       the plan, and what is asked for, as lines; beside the simulated robot's, who draws itself there
    /diagnostics  at 1 Hz: state input, planning, guard, adaptation
    ~/hold, ~/resume, ~/reset_adaptation   std_srvs/Trigger

Planning and the watchdog run in threads of their own: neither a plan that is not ready nor a service that takes its time delays the
command that is due.
"""

import gc
import threading
import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import Trigger

from controller.config import UsageError
from controller.ros import convert
from controller.ros.acting import MOST, Timing
from controller.ros.brains import BRAINS, adapter_of, checkpoint_of
from controller.ros.controller_config import ControlConfig, check, check_live
from controller.ros.intake import Ignored, Intake
from controller.ros.loop import BAD_STATE, GIVEN_UP, OPERATOR, PLANNING, STATE, Loop
from controller.ros.node import (
    NEWEST,
    STEADY,
    Parameters,
    Watchdog,
    Worker,
    now_ns,
    refuse_transitions,
    run_node,
)
from controller.ros.outbox import Outbox
from controller.ros.params import flatten
from controller.ros.punctual import Awake, Cores, arithmetic_us, give_priority, lock_memory
from controller.ros.reporter import Reporter

UNPREDICTED = 1.5  # periods; a state that is not predicted over the time until its command acts is too late then
TIMED = 20  # plans whose median tells how long the next one will take


class ControllerNode(LifecycleNode):
    def __init__(self) -> None:
        super().__init__("sealegs_controller")
        self._lock = threading.RLock()
        self._loop: Loop | None = None
        self._active = self._held = False
        self._activations = 0
        self._period = 0  # [ns], of the robot that it is configured for
        self.settings = Parameters(self, ControlConfig(), self._change)
        self._reporter = Reporter(self)
        self._predicted = True  # the last state, over the time until its command acts
        self._took: deque[int] = deque(maxlen=TIMED)  # [ns] of the last plans
        for name in ("reset_adaptation", "hold", "resume"):
            self.create_service(Trigger, f"~/{name}", getattr(self, f"_{name}"))
        refuse_transitions(self)
        self.create_timer(1.0, self._report, clock=STEADY)
        self._topics = ExitStack()  # of what it is configured for
        self._worker: Worker | None = None
        self._cores: Cores | None = None
        self._watchdog: Watchdog | None = None
        self._awake = Awake()
        if self.settings.config.autostart:
            self.trigger_configure()
            if self._loop is None:
                raise UsageError(self._reporter.why)
            self.trigger_activate()
            self.get_logger().info("active")

    # --- life cycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """All that is slow: weights, warm-up."""
        config = self.settings.config
        try:
            self._build(config)
            self._connect(config)
        except Exception as e:  # rclpy answers that the node did not configure, and drops the reason
            self._disconnect()
            self._reporter.why = str(e) if isinstance(e, ValueError) else f"not configured: {e!r}"
            self.get_logger().error(self._reporter.why)
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def _connect(self, config: ControlConfig) -> None:
        """The robot's topics, and the threads that plan and watch."""
        assert self._loop is not None
        brain = self._loop.brain
        self._period = round(brain.dt * 1e9)
        self._simulated = bool(self.get_parameter("use_sim_time").value)
        slop, most = round(config.slop_ms * 1e6), round(config.max_delay_ms * 1e6)
        self._intake = Intake(tuple(brain.inputs), self._period, slop, most)
        self._outbox = Outbox(self, brain, self._period)
        self._topics.callback(self._outbox.close)
        for topic, kind in brain.inputs.items():
            subscription = self.create_subscription(
                convert.message_type(kind), topic, lambda m, topic=topic: self._receive(topic, m), NEWEST
            )
            self._topics.callback(self.destroy_subscription, subscription)
        self._worker = Worker(self._plan, self._failed, self._practise)
        self._watchdog = Watchdog(self._check)
        if config.lock_memory and self._in_real_time and (why := lock_memory()):
            self.get_logger().warning(why)
        gc.collect()
        gc.freeze()  # a collection looks at what comes from now on, not at some hundred thousand objects of libraries
        self.get_logger().info(f"configured: {config.robot}, {adapter_of(config)}, period {1e3 * brain.dt:g} ms")

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        with self._lock:
            self._intake.forget()
            self._outbox.forget()
            self._active, self._held, self._planning = True, False, False
            self._activations += 1
            self._took.clear()
            if self._loop is not None:
                self._loop.pause()
        self._prioritise(self.settings.config.thread_priority)
        if self.settings.config.keep_awake and self._in_real_time and (why := self._awake.hold()):
            self.get_logger().warning(why)
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        with self._lock:
            self._active = False
        self._prioritise(0)
        self._awake.release()
        return super().on_deactivate(state)

    @property
    def _in_real_time(self) -> bool:
        """Where time counts: neither in lockstep nor where the simulator tells the time."""
        return not (self._simulated or self.settings.config.lockstep)

    def _prioritise(self, priority: int) -> None:
        watchdog = self._watchdog.thread if self._watchdog is not None else None
        if self.settings.config.thread_priority and self._in_real_time and (why := give_priority(priority, watchdog)):
            self.get_logger().warning(why)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._disconnect()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        with self._lock:  # a command that is being sent goes out before the answer
            self._active = False
        return TransitionCallbackReturn.SUCCESS

    def _disconnect(self) -> None:
        """Nothing is left of `_connect`, however far it came."""
        self.close()
        self._topics.close()
        self._loop = None

    def close(self) -> None:
        self._awake.release()
        for thread in (self._worker, self._watchdog):
            if thread is not None:
                thread.close()
        if self._cores is not None:
            self._cores.close()
        self._worker = self._watchdog = self._cores = None

    def _build(self, config: ControlConfig) -> None:
        """A new loop with nothing adapted. Raises CheckpointError, UsageError."""
        brain = BRAINS[config.robot](config, Path(config.weights) if config.weights else None)
        with self._lock:
            run = time.time_ns() // 1_000_000
            if self._loop is not None:  # newer, also where the system's clock was set back
                run = max(run, self._loop.run + 1)
            self._loop = Loop(brain, config.seed, run)
        path, sha256 = checkpoint_of(config)
        record = {
            "run": self._loop.run, "weights": str(path), "sha256": sha256, "dt": brain.dt,
            "config": flatten(config), "namespace": self.get_namespace(),
            "sim_time": self.get_parameter("use_sim_time").value,
        }  # fmt: skip
        self._reporter.settings(record)

    def _change(self, config: ControlConfig, names: set[str]) -> None:
        check(config)
        if self._loop is None:
            return
        check_live(names)
        if any(n.startswith("controller.") for n in names) and config.robot == "ant":
            self._build(config)  # control goes on

    # --- states in, commands out

    def _receive(self, topic: str, message: Any) -> None:
        if not self._active or self._loop is None:
            return
        config, stamp, received = self.settings.config, convert.stamp_of(message), now_ns(self)
        # What is not predicted over is late sooner.
        most = round(config.max_delay_ms * 1e6)
        self._intake.max_delay = most if self._predicted else min(most, round(UNPREDICTED * self._period))
        # In lockstep time plays no part: a state takes as long as it takes.
        taken = self._intake.add(topic, stamp, stamp if config.lockstep else received, message)
        if taken is None:
            return
        if isinstance(taken, Ignored):
            self._reporter.count[taken.reason] += 1
            if taken.reason == "repeated" and self.settings.config.lockstep:
                self._again(taken.stamp)
            return
        self._reporter.count["jumped"] += taken.jumped
        try:
            state = self._loop.brain.decode(taken.messages)
        except convert.BadMessage as e:
            self._reporter.count["unusable"] += 1
            self._reporter.why = str(e)
            if self.settings.config.lockstep:
                self._miss(BAD_STATE, taken.stamp)
            return
        self._reporter.count["used"] += 1
        if self._held:
            self._unplanned(taken.stamp)
        elif self._worker is not None:
            self._reporter.count["skipped"] += self._worker.give((self._activations, (state, taken.stamp, received)))

    def _practise(self) -> None:
        """In the worker's thread, before it works: the steps of a start, which are slow the first time, and then are not in the first commands."""
        assert self._loop is not None
        brain = self._loop.brain
        memory, action = brain.init(0), None
        for i in range(3):
            timing = None if action is None else Timing(((1.0, action),), ((0.5, action),))
            action, memory, _ = brain.step(memory, brain.rest(), round(i * brain.dt * 1e9), timing)
            memory = brain.foresee(brain.prepare(memory))
        brain.miss(memory, False)
        self._prepare(self._loop)  # of the first plan, too

    def _plan(self, waited: tuple[int, tuple[np.ndarray, int, int]]) -> None:
        """In the worker's thread."""
        cores = self._cores = self._cores or Cores()
        activation, job = waited
        with self._lock:
            if not self._active or self._loop is None or activation != self._activations:
                return
            if self._held:
                return self._unplanned(job[1])
            loop, started = self._loop, now_ns(self)
            loop.command_way = round(1e6 * self.settings.config.command_delay_ms)
            begun = loop.begin(*job, self._lead(started - job[1]))
            self._planning = True
        try:
            planned = loop.plan(begun)
        except Exception:
            with self._lock:
                if self._active:
                    self._unplanned(job[1], GIVEN_UP)
            raise
        finally:
            self._planning = False
        with self._lock:
            if not self._active:
                return
            if self._held or loop is not self._loop:
                return self._unplanned(job[1], OPERATOR if self._held else GIVEN_UP)
            done = now_ns(self)
            self._took.append(done - started)
            action, row = loop.finish(begun, planned, done, *cores.missing_ms())
            if action is not None:
                self._send(action)
            if row is not None:
                self._reporter.row(loop.conclude(row)._replace(arithmetic_us=arithmetic_us()), begun.state)
            else:  # what was adapted was reset meanwhile
                self._unplanned(job[1], GIVEN_UP)
        self._prepare(loop)  # when the command is out
        self._reporter.plan(loop, self.settings.config.marker_hz)
        cores.missing_ms()  # from here on it counts for the next state

    def _unplanned(self, stamp: int, cause: int = OPERATOR) -> None:
        """Of a state that no plan answers: the watchdog goes on; in lockstep there is none, and the robot waits for its answer."""
        if self.settings.config.lockstep:
            self._miss(cause, stamp)

    def _failed(self, e: Exception) -> None:
        """Whatever the maths did, the watchdog goes on and the next state is tried."""
        self._reporter.count["failed"] += 1
        self.get_logger().error(f"planning failed: {e!r}")

    def _prepare(self, loop: Loop) -> None:
        """In the worker's thread: what the next plan can begin with before its state comes. In lockstep nobody waits for a command meanwhile."""
        if self.settings.config.lockstep:
            return
        memory, started = loop.memory, time.perf_counter()
        ready = loop.brain.prepare(memory)
        with self._lock:
            taken = loop.take(memory, ready, 1e3 * (time.perf_counter() - started))
        if not taken or (self._worker is not None and self._worker.waiting):
            return  # nothing is missing
        foreseen = loop.brain.foresee(ready)
        with self._lock:
            loop.foresee(ready, foreseen)

    def _lead(self, since: int) -> int | None:
        """since: the stamp of the state to plan from [ns] -> until its command is expected to act; None: not to be taken into account."""
        config = self.settings.config
        self._predicted = False
        if config.lockstep or not config.delay_compensation:
            return None
        lead = since + round(float(np.median(self._took)) if self._took else 0) + round(1e6 * config.command_delay_ms)
        if not 0 <= lead < MOST * 1e9:
            self._reporter.count["clocks_disagree"] += 1
            return None
        self._predicted = True
        return lead

    def _check(self) -> float:
        """The watchdog: within the brain's patience after a planned command, and a period of any other, the next one goes out. -> when to look
        again [s]"""
        with self._lock:
            often = self._period / 1e10
            if not self._active or self._outbox.empty or self.settings.config.lockstep:
                return often
            silent = self._outbox.silent()
            thinking = self._planning or (self._worker is not None and self._worker.waiting)
            left = self._outbox.until_next(silent, thinking)
            if left < 0:
                self._miss(OPERATOR if self._held else PLANNING if thinking else STATE)
                return often
            again = self._outbox.until_again(silent, self.settings.config.repeat_commands)
            # Whoever waits for a lock takes it from who plans: not more often than there is something to see. /clock tells of no time to wait.
            return often if self._simulated else max(min(left, again) / 1e9, often / 10)

    def _miss(self, cause: int, stamp: int | None = None) -> None:
        with self._lock:
            if self._loop is not None:
                action, row = self._loop.miss(cause, stamp, now_ns(self))
                self._send(action, planned=False)
                self._reporter.row(row)

    def _again(self, stamp: int) -> None:
        """In lockstep: the state came again, so its command got lost."""
        with self._lock:
            if self._loop is not None and self._loop.stamp == stamp and not self._outbox.empty:
                self._outbox.answer_again()

    def _send(self, action: np.ndarray, planned: bool = True) -> None:
        assert self._loop is not None
        self._outbox.send(self._loop.brain, action, self._loop.label, planned)

    # --- services

    def _hold(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            if not self._active:  # it would be forgotten with the next activation
                response.success, response.message = False, "not active: nothing is sent that could be held"
                return response
            self._held = True
            if not self._outbox.empty and not self.settings.config.lockstep:  # there one command answers one state
                self._miss(OPERATOR)
        response.success, response.message = True, "holding: the command relaxes to the safe action"
        return response

    def _resume(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._held
        response.message = "resumed" if self._held else "was not held"
        self._held = False
        return response

    def _reset_adaptation(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            if self._loop is None:
                response.success, response.message = False, "not configured"
            else:
                self._reporter.row(self._loop.reset())
                response.success, response.message = True, "nothing is adapted any more"
        return response

    # --- diagnostics

    def _report(self) -> None:
        limit_ms = self.settings.config.controller.deadline_ms or self._period / 1e6
        with self._lock:
            second = self._reporter.second(self._held, limit_ms, self._intake.waits_for if self._active else str)
        self._reporter.diagnose(second if self._active else None, self._loop is not None)


def run(argv: list[str]) -> int:
    torch.set_num_threads(1)
    return run_node(argv, ControllerNode)
