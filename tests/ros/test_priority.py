"""What keeps a command punctual beside other programs: the threads' priority, memory that is not given back, steps that are practised."""

import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here; valid: pip install 'sealegs[ros]'")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState

from controller.ros import punctual
from controller.ros.bench import Bench
from controller.ros.node import Worker
from controller.ros.punctual import LATENCY, Awake, give_priority

if sys.platform != "linux":
    pytest.skip("SCHED_FIFO is asked for on Linux alone", allow_module_level=True)

ORDINARY = {(os.SCHED_OTHER, 0)}


def policies(pid: int) -> set[tuple[int, int]]:
    """Of all threads: policy and priority."""
    threads = [int(t) for t in os.listdir(f"/proc/{pid}/task")]
    return {(os.sched_getscheduler(t), os.sched_getparam(t).sched_priority) for t in threads}


def locked_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmLck")).split()[1])


@pytest.fixture
def permitted():
    if why := give_priority(1):
        pytest.skip(why)
    assert give_priority(0) == ""


@pytest.mark.usefixtures("permitted")
def test_in_real_time_all_threads_have_priority_while_it_is_active(tmp_path, domain):
    bench = Bench(tmp_path, domain)
    try:
        pids = {name: process.pid for name, process in bench.nodes.processes.items()}
        for name, pid in pids.items():
            levels = {50, 51} if name == "controller" else {50}  # the watchdog waits for nobody
            assert policies(pid) == {(os.SCHED_FIFO, level) for level in levels}, name
            assert locked_kb(pid) > 100_000 or "memory is not locked" in bench.nodes.output(name), name
        change = bench.probe.create_client(ChangeState, "sealegs_controller/change_state")
        assert bench.probe.spin(30, change.service_is_ready)
        for transition, active in ((Transition.TRANSITION_DEACTIVATE, False), (Transition.TRANSITION_ACTIVATE, True)):
            done = change.call_async(ChangeState.Request(transition=Transition(id=transition)))
            assert bench.probe.spin(30, done.done) and done.result().success
            assert (policies(pids["controller"]) == ORDINARY) is not active
    finally:
        bench.close()


def test_with_a_simulated_clock_nothing_takes_the_machine_from_others(tmp_path, domain):
    bench = Bench(tmp_path, domain, speed=0.2)
    try:
        for name, process in bench.nodes.processes.items():
            assert policies(process.pid) == ORDINARY and locked_kb(process.pid) == 0, name
    finally:
        bench.close()


def latency_us() -> int:
    """How long a core may take to come back, as Linux has it now."""
    return struct.unpack("i", LATENCY.read_bytes())[0]


def holds_latency(pid: int) -> bool:
    return any(os.path.realpath(f) == str(LATENCY) for f in Path(f"/proc/{pid}/fd").iterdir())


awake = pytest.mark.skipif(not os.access(LATENCY, os.R_OK | os.W_OK), reason=f"{LATENCY} cannot be written here")


@awake
def test_cores_are_kept_awake_for_as_long_as_it_is_held():
    before, held = latency_us(), Awake()
    assert before > 0, "somebody keeps the cores awake already"
    assert held.hold() == "" and held.hold() == "" and latency_us() == 0
    held.release()
    held.release()
    assert latency_us() == before


@awake
def test_the_controller_keeps_them_awake_while_it_is_active(tmp_path, domain):
    bench = Bench(tmp_path, domain, keep_awake=True)
    try:
        pid = bench.nodes.processes["controller"].pid
        change = bench.probe.create_client(ChangeState, "sealegs_controller/change_state")
        assert holds_latency(pid) and bench.probe.spin(30, change.service_is_ready)
        for transition, active in ((Transition.TRANSITION_DEACTIVATE, False), (Transition.TRANSITION_ACTIVATE, True)):
            done = change.call_async(ChangeState.Request(transition=Transition(id=transition)))
            assert bench.probe.spin(30, done.done) and done.result().success
            assert holds_latency(pid) is active
    finally:
        bench.close()


@pytest.mark.parametrize("why", ["missing", "refused"])
def test_cores_that_cannot_be_kept_awake_are_said_in_a_sentence(tmp_path, monkeypatch, why):
    monkeypatch.setattr(punctual, "LATENCY", tmp_path / "nothing" if why == "missing" else Path("/dev/full"))
    held = Awake()
    said = held.hold()
    assert "cores are not kept awake" in said and "valid: keep_awake false" in said
    held.release()


@pytest.mark.usefixtures("permitted")
def test_threads_that_are_made_later_inherit_it():
    found = []
    try:
        assert give_priority(3) == "" and policies(os.getpid()) == {(os.SCHED_FIFO, 3)}
        later = threading.Thread(target=lambda: found.append(os.sched_getparam(0).sched_priority))
        later.start()
        later.join()
    finally:
        assert give_priority(0) == ""
    assert found == [3] and policies(os.getpid()) == ORDINARY


def test_without_permission_one_sentence_says_what_would_give_it(monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    said = give_priority(50)
    assert "thread_priority 50" in said and "not permitted" in said and "valid: a limit `rtprio`" in said


def test_a_worker_practises_in_its_own_thread_and_survives_what_that_raises():
    threads, failures, done = [], [], threading.Event()

    def first():
        threads.append(threading.get_ident())
        raise RuntimeError("for practice")

    def work(job):
        threads.append(threading.get_ident())
        done.set()

    worker = Worker(work, failures.append, first)
    assert len(threads) == 1 and [str(e) for e in failures] == ["for practice"]  # before there is a worker
    worker.give("a job")
    assert done.wait(10)
    worker.close()
    assert threads[0] == threads[1] != threading.get_ident()


@pytest.mark.skipif(not Path("/proc/self/maps").read_text().count("libc.so.6"), reason="glibc's allocator is meant")
def test_memory_that_is_kept_is_not_asked_for_again():
    """Page faults of a thread that takes and frees 300 times 96 kB, again and again."""
    script = """
import resource, sys, threading
import numpy as np
from controller.ros.punctual import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
def work():
    for i in range(12):
        if i == 2:
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        held = [np.ones(12_000) for _ in range(300)]
        del held
    print(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", script, how], capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "give back")
    )
    assert kept < 100 and given_back > 5_000, (kept, given_back)
