"""What the controller node says of its last second at /diagnostics: OK, WARN or ERROR of every part, a sentence, and numbers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from controller.guard import OK as SOUND
from controller.guard import RELAX, RIGHT
from controller.ros.loop import CAUSES, LATE, MISS, RESET, STEP, Row

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
UNUSED = ("unusable", "late", "reordered", "repeated", "skipped", "jumped", "clocks_disagree")  # counts of states

Judged = dict[str, tuple[bytes, str, dict[str, Any]]]  # part -> level, sentence, values


@dataclass(frozen=True)
class Second:
    """What happened in it, while the node was active."""

    rows: Sequence[Row]
    counts: Counter[str]  # of states, by what became of them, and of plans that failed
    why: str  # the last reason for which a state was not used
    limit_ms: float  # of planning
    held: bool  # by the operator


def inactive(configured: bool) -> Judged:
    return {"state input": (OK if configured else WARN, "not active", {})}


def judge(second: Second) -> Judged:
    rows, counts, limit = second.rows, second.counts, second.limit_ms
    steps = [r for r in rows if r.kind in (STEP, LATE)]
    missed = Counter(CAUSES[int(r.cause)] for r in rows if r.kind == MISS)
    slow = sum(r.latency_ms > limit for r in steps)
    ignored = sum(counts[k] for k in UNUSED)
    total = [r.total_ms for r in steps] or [float("nan")]
    before, after = (_mean([getattr(r, f"error_{w}") for r in steps]) for w in ("before", "after"))
    events = {r.event for r in rows if r.kind != RESET and np.isfinite(r.event)}
    unplanned = f"{sum(missed.values())} commands without a new plan"
    return {
        "state input": (
            ERROR if not counts["used"] else WARN if ignored else OK,
            second.why or (f"{counts['used']} states used, {ignored} not" if counts["used"] else "no usable state in the last second"),
            {**counts, "way_ms": _mean([r.way_ms for r in steps])},
        ),
        "planning": (
            ERROR if counts["failed"] or (slow and slow == len(steps)) else WARN if slow else OK,
            f"{slow} of {len(steps)} later than {limit:g} ms",
            {"median_ms": float(np.median(total)), "max_ms": max(total), "failed": counts["failed"]},
        ),
        "guard": (
            ERROR if RELAX in events and not second.held else WARN if events - {SOUND} else OK,
            "held by the operator" if second.held else "lies, is being righted" if RIGHT in events else unplanned,
            dict(missed),
        ),
        "adaptation": (
            OK if not after > before else WARN, "one-step error, before -> after", {"before": before, "after": after},
        ),
    }  # fmt: skip


def _mean(x: list[float]) -> float:
    known = [v for v in x if np.isfinite(v)]
    return float(np.mean(known)) if known else float("nan")


def status(name: str, level: bytes, message: str, values: dict[str, Any]) -> DiagnosticStatus:
    return DiagnosticStatus(
        name=name, level=level, message=message, values=[KeyValue(key=k, value=f"{v}") for k, v in values.items()]
    )
