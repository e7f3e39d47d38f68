"""SIGINT and SIGTERM ask a node to stop, once or often: launch forwards the signal that a terminal has sent already, and the second one
must not hit the cleaning up."""

import signal
import threading
from types import FrameType
from typing import Any

STOP = threading.Event()


def install() -> dict[int, Any]:
    """From now on both signals only set STOP. rclpy is to be started without handlers of its own. -> the handlers before, for restore."""

    def ask(number: int, frame: FrameType | None) -> None:
        STOP.set()

    return {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}


def restore(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def ignore() -> None:
    """The interpreter is about to end, and would take our handlers away before it has."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
