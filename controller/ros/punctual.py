"""What keeps a command punctual beside other programs: priority, memory that stays, and a count of what the thread lacked all the same. Of Linux;
nothing here needs ROS."""

import contextlib
import ctypes
import os
import struct
import sys
import time
from pathlib import Path

# Of mallopt(3): one arena for all threads, which Python's lock keeps apart anyway; nothing is given back, nor mapped for one use; grow by 16 MB.
MALLOC = {-8: 1, -1: -1, -3: 32 << 20, -2: 16 << 20}
HIGHEST = 99  # of SCHED_FIFO's priorities
LATENCY = Path(
    "/dev/cpu_dma_latency"
)  # Linux's PM QoS: as long as somebody holds it open, no core sleeps so deeply that it needs longer to come back
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4  # of mlockall(2)


def keep_memory() -> None:
    """glibc is to keep what it was given: else it hands memory back to the system now and then, and asks for it anew in the midst of a step (940
    page faults, 8 ms, seen in one step of two thousand). To be called before threads are made."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # another libc has none
        for option, value in MALLOC.items():
            mallopt(option, value)


def lock_memory() -> str:
    """All pages of this process stay in memory, also those that it is given later, from when they are used: none is fetched in the midst of a step.
    -> why not, in a sentence; empty where it is done.

    Later ones are not filled at once: with every node that joins DDS maps memory. Where that was filled and locked then, commands waited 20 to 40 ms
    in four of forty such trials; where not, in none of 81 (results/ros/README.md, Faults).
    """
    if sys.platform != "linux":
        return f"memory is not locked on {sys.platform}; valid: lock_memory false, or Linux"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(MCL_CURRENT) or libc.mlockall(MCL_FUTURE | MCL_ONFAULT):
        return f"memory is not locked ({os.strerror(ctypes.get_errno())}); valid: an unlimited `memlock` for this user (/etc/security/limits.conf)"
    return ""


def give_priority(priority: int, first: int | None = None) -> str:
    """SCHED_FIFO of that priority to all threads of this process, 0: back to the ordinary policy. What they wait for then is other threads of that
    kind, and not whatever else the machine does: one busy program beside them is enough to make a command late. Threads that are made later inherit
    it. first: a thread that does not wait for those of the same priority either. -> why not, in a sentence; empty where it is done."""
    if sys.platform != "linux":
        return f"thread_priority {priority} cannot be had on {sys.platform}, so other programs may delay commands; valid: 0, or Linux"
    policy = os.SCHED_FIFO if priority else os.SCHED_OTHER
    try:
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                own = priority + (0 < priority < HIGHEST and int(thread) == first)
                os.sched_setscheduler(int(thread), policy, os.sched_param(own))
    except OSError as e:
        return (
            f"thread_priority {priority} cannot be had ({e.strerror}), so other programs may delay commands; valid: a limit `rtprio` of {priority} "
            "or more for this user (/etc/security/limits.conf), CAP_SYS_NICE, or 0 for the ordinary priority"
        )
    return ""


class Awake:
    """Cores that do not halt when there is nothing to do, for as long as this is held. Where one that halted is slow to come back, no priority helps:
    on a virtual machine, idle, a thread of priority 95 that slept for 0.5 ms was woken up to 17 ms late, and 1.3 where cores were kept busy
    (results/ros/README.md, Faults)."""

    def __init__(self) -> None:
        self._file: int | None = None

    def hold(self) -> str:
        """-> why not, in a sentence; empty where it is done."""
        if self._file is not None:
            return ""
        try:
            file = os.open(LATENCY, os.O_WRONLY)
        except OSError as e:
            return f"cores are not kept awake ({LATENCY}: {e.strerror}); valid: keep_awake false, or the right to write there"
        try:
            os.write(file, struct.pack("i", 0))  # [us]
        except OSError as e:
            os.close(file)
            return f"cores are not kept awake ({LATENCY}: {e.strerror}); valid: keep_awake false"
        self._file = file
        return ""

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def arithmetic_us() -> float:
    """How long one small piece of arithmetic takes now [us], always the same, the quickest of three: it tells of a core that is slower for a while,
    which is neither a wait nor counted as stolen (a busy sibling hyperthread, a lower clock)."""
    return min(_once() for _ in range(3)) / 1e3


def _once() -> int:
    started = time.perf_counter_ns()
    sum(range(500))
    return time.perf_counter_ns() - started


class Cores:
    """What a thread lacked, as Linux counts it: how long the one that made this was ready to run and had no core to run on (schedstat), and what
    the hypervisor took of all cores meanwhile (stat), in ticks of 10 ms. On a machine that others use this is what tells a slow program from a
    busy machine."""

    TICK_MS = 10.0

    def __init__(self) -> None:
        self._files: list[int] = []
        try:
            for path in ("/proc/thread-self/schedstat", "/proc/stat"):
                self._files.append(os.open(path, os.O_RDONLY))
        except OSError:
            self.close()
        self._last = self._read()

    def missing_ms(self) -> tuple[float, float]:
        """Waited and stolen since the last call; NaN where the kernel does not count it."""
        last, self._last = self._last, self._read()
        return self._last[0] - last[0], self._last[1] - last[1]

    def close(self) -> None:
        for file in self._files:
            os.close(file)
        self._files = []

    def _read(self) -> tuple[float, float]:
        if not self._files:
            return float("nan"), float("nan")
        waiting, all_cores = (os.pread(file, 200, 0).split() for file in self._files)
        return float(waiting[1]) / 1e6, self.TICK_MS * float(all_cores[8])
