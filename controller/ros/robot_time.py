"""How a simulated robot's time passes.

real      in real time: physics in steps of a fifth of a period, the command that is in force acts
fast      the same at `speed` times real time, with /clock, which nobody else may publish; the controller then needs use_sim_time
lockstep  a state, then the command that answers it, then the next state: the same seed gives the same run
"""

import time

from rclpy.executors import Executor

from controller.config import UsageError
from controller.ros.node import run_node
from controller.ros.punctual import give_priority, lock_memory
from controller.ros.robot_node import RobotNode
from controller.ros.stop import STOP

AGAIN = 0.2  # [s] after which an unanswered state is sent again in lockstep
NEW = 5.0  # [s] in which who finds that /clock is published already gives way; DDS takes up to 3 s to say so


def wait(node: RobotNode, executor: Executor) -> None:
    """Until somebody listens: whoever records is to miss nothing."""
    while not STOP.is_set() and not node.heard_by(node.config.listeners):
        executor.spin_once(timeout_sec=0.02)


def timed(node: RobotNode, executor: Executor) -> int:
    """Real time, or a multiple of it. Raises UsageError where another node publishes the clock."""
    plant, config = node.plant, node.config
    assert plant is not None
    speed = config.speed if config.mode == "fast" else 1.0
    grain = node.period // plant.substeps
    wait(node, executor)
    if config.mode == "real":
        if config.lock_memory and (why := lock_memory()):
            node.get_logger().warning(why)
        if config.thread_priority and (why := give_priority(config.thread_priority)):
            node.get_logger().warning(why)
    origin, begun = (0 if config.mode == "fast" else time.time_ns()), time.monotonic_ns()
    tick = 0
    # Where the machine stood still, the robot goes on from now rather than hurry. Simulated time waits for it: a /clock that made up for it would
    # jump, and every command look late. Real time does not: stamps tell the system's time, or every state would look late from then on.
    simulated = config.mode == "fast"
    slack = grain if simulated else node.period

    def wall(at: int) -> int:  # the robot's time -> [ns] from now until then
        return begun + round((at - origin) / speed) - time.monotonic_ns()

    new = time.monotonic() + NEW
    while not STOP.is_set() and not (config.steps and node.step >= config.steps):
        if tick % plant.substeps == 0 and time.monotonic() < new and (other := node.other_clock()):
            raise UsageError(other)
        target = origin + tick * grain
        if (late := -wall(target)) > slack / speed:
            begun += late
            if not simulated:
                origin, target = origin + late, target + late
            node.behind()
        while not STOP.is_set():
            until = min(target, node.due if node.due is not None else target)
            left = wall(until)
            if left > 0:
                executor.spin_once(timeout_sec=min(left / 1e9, 0.05))
                continue
            node.now = max(node.now, until)
            if until == target:
                break
            node.deliver()
        standing = config.stand and node.heard is None
        node.now = target
        node.tick()
        if tick % plant.substeps == 0:
            node.step += tick > 0 and not standing
            node.publish()
        if not standing:
            plant.substep(node.acting(), node.condition())
        tick += 1
        executor.spin_once(timeout_sec=0)
    return 0


def lockstep(node: RobotNode, executor: Executor) -> int:
    """One state, its answer, the next state. A state that gets no answer is sent again."""
    plant, config = node.plant, node.config
    assert plant is not None
    wait(node, executor)
    while not STOP.is_set() and not (config.steps and node.step >= config.steps):
        condition = node.condition()
        stamp = node.publish()
        sent = time.monotonic()
        while node.answered != stamp and not STOP.is_set():
            executor.spin_once(timeout_sec=0.02)
            if time.monotonic() - sent > AGAIN:
                node.publish_again()
                sent = time.monotonic()
        if STOP.is_set():
            break
        assert node.action is not None  # answered
        plant.step(node.action, condition)
        node.step += 1
        node.now += node.period
    return 0


def run(argv: list[str]) -> int:
    def loop(node: RobotNode, executor: Executor) -> int:
        code = (lockstep if node.config.mode == "lockstep" else timed)(node, executor)
        end = time.monotonic() + 0.3  # what was published last is to arrive
        while time.monotonic() < end and not STOP.is_set():
            executor.spin_once(timeout_sec=0.05)
        return code

    return run_node(argv, RobotNode, loop)
