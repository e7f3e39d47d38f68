"""What a recording says about the loop: report.md, report.json and plots. Needs no ROS."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from controller import score
from controller.config import UsageError
from controller.guard import EVENTS
from controller.ros import bag, convert, told
from controller.ros.controller_config import ControlConfig
from controller.ros.flight_config import make_robot, make_trajectory
from controller.ros.loop import CAUSES, LATE, MISS, STEP, Row
from controller.ros.params import flatten, update

SETTLED_S = 1.0  # the last of a stretch between two changes: where the error has settled
SMOOTH_S = 0.25
WITHIN = 1.2  # of the settled error counts as adapted


def report(path: Path, out: Path) -> dict[str, Any]:
    """-> what report.json holds, written to out with report.md, timing.png and adaptation.png. Raises UsageError."""
    record: dict[str, Any] = {}
    rows: list[Row] = []
    commands: list[tuple[int, convert.Label]] = []  # recorded [ns]
    states: list[tuple[int, int, Any]] = []  # recorded, stamp [ns], odometry where there is one
    changes: list[dict[str, Any]] = []
    for m in bag.read(path):
        if m.topic.endswith("/config"):
            record = json.loads(m.content.data)
        elif m.topic.endswith("/telemetry"):
            rows.append(told.recorded(path, m.content).row)
        elif m.topic.endswith("/condition"):
            changes.append(json.loads(m.content.data))
        elif m.topic.endswith("/commands"):
            if label := convert.label_of(m.content):
                commands.append((m.time, label))
        elif m.topic.endswith("/odom"):
            states.append((m.time, convert.stamp_of(m.content), m.content))
    # In lockstep a state without an answer is sent again, and so is the answer: what counts is the first.
    commands = list({label: (time, label) for time, label in reversed(commands)}.values())[::-1]
    commands.sort(key=lambda c: c[0])
    states = list({stamp: (time, stamp, odom) for time, stamp, odom in reversed(states)}.values())[::-1]
    if not (record and rows and states):
        raise UsageError(
            f"{path} holds no run of a controller; valid: a recording made by `sealegs ros ROBOT --record DIR`"
        )
    dt = float(record["dt"])
    end = states[-1][0] + 2e9 * dt  # after the last state there is nothing to answer
    last = max((label.seq for time, label in commands if time <= end), default=0)
    rows = [r for r in rows if r.seq <= last]
    found = {
        "recording": str(path), "robot": record["config"]["robot"], "period_ms": 1e3 * dt, "lockstep": record["config"]["lockstep"],
        "sim_time": record.get("sim_time", False), "commands": len(commands), "states": len(states),
        **_timing(rows, dt, record["config"]["lockstep"]), "lost": _lost(rows, commands, states, dt),
        "guard": dict(Counter(EVENTS[int(r.event)] for r in rows if np.isfinite(r.event))),
        "without_a_new_plan": dict(Counter(CAUSES[int(r.cause)] for r in rows if r.kind == MISS)),
        "adaptation": _adaptation(rows, changes, dt), "motion": _motion(states, changes, dt), "tracking": _tracking(states, rows, record),
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(_plain(found), indent=1))
    (out / "report.md").write_text(_markdown(_plain(found)))
    _plots(out, rows, changes, dt)
    return found


def _spread(x: np.ndarray) -> dict[str, float]:
    if not len(x):
        return dict.fromkeys(("p50", "p99", "max"), float("nan"))
    return {"p50": float(np.percentile(x, 50)), "p99": float(np.percentile(x, 99)), "max": float(x.max())}


def _between(rows: list[Row]) -> np.ndarray:
    """[ms] from one command to the next, as the controller sent them, on its own clock: when they were recorded is the recorder's timing."""
    sent = sorted((r.run, r.seq, r.sent_s) for r in rows if r.kind in (STEP, MISS))
    follow = (b[2] - a[2] for a, b in pairwise(sent) if (b[0], b[1]) == (a[0], a[1] + 1))
    return 1e3 * np.fromiter(follow, np.float64)


def _timing(rows: list[Row], dt: float, lockstep: bool) -> dict[str, Any]:
    planned, gaps = [r for r in rows if r.kind in (STEP, LATE)], _between(rows)
    latency = np.array([r.latency_ms for r in planned])
    with_a_core = np.array([r.latency_ms - np.nansum((r.waited_ms, r.stolen_ms)) for r in planned])
    arithmetic = np.array([r.arithmetic_us for r in planned])
    slower = np.ones(len(planned))  # than the core usually is
    if np.isfinite(arithmetic).any():
        slower = np.fmax(1.0, arithmetic / np.nanmedian(arithmetic))
    return {
        "rate_hz": float(1e3 / gaps.mean()) if len(gaps) else float("nan"),
        "interval_ms": _spread(gaps) | {"jitter_std": float(gaps.std()) if len(gaps) else float("nan")},
        "state_to_command_ms": _spread(latency),
        "stamp_to_command_ms": _spread(np.array([] if lockstep else [r.latency_ms + r.way_ms for r in planned])),
        "adapt_ms": _spread(np.array([r.adapt_ms for r in planned])),
        "plan_ms": _spread(np.array([r.plan_ms for r in planned])),
        "prepare_ms": _spread(np.array([r.prepare_ms for r in planned if np.isfinite(r.prepare_ms)])),
        "waited_ms": _spread(np.array([r.waited_ms for r in planned if np.isfinite(r.waited_ms)])),
        "arithmetic_us": _spread(arithmetic[np.isfinite(arithmetic)]),
        "deadline_misses": int((latency > 1e3 * dt).sum()),
        "stolen_ms": float(np.nansum([r.stolen_ms for r in planned])),
        "deadline_misses_with_a_core": int((with_a_core > 1e3 * dt).sum()),
        "deadline_misses_at_usual_speed": int((with_a_core / slower > 1e3 * dt).sum()),
        "late_plans": sum(r.kind == LATE for r in rows),
    }


def _lost(rows: list[Row], commands: list[tuple[int, convert.Label]], states: list[Any], dt: float) -> dict[str, int]:
    """States that the recording lacks (holes between stamps), that came but were not planned from, and commands it lacks."""
    stamps = np.array(sorted({stamp for _, stamp, _ in states}))
    holes = np.maximum(0, np.round(np.diff(stamps) / (1e9 * dt)).astype(int) - 1)
    used = {r.stamp for r in rows if r.kind in (STEP, LATE)}
    first = min(used, default=0)
    seen: dict[int, set[int]] = {}
    for _, label in commands:
        seen.setdefault(label.run, set()).add(label.seq)
    return {
        "states_missing": int(holes.sum()),
        "states_not_used": sum(int(s) not in used for s in stamps if s >= first),
        "commands_missing": sum(max(x) - min(x) + 1 - len(x) for x in seen.values()),
    }


def _changes(changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [c for c in changes if c["step"] > 0]


def _adaptation(rows: list[Row], changes: list[dict[str, Any]], dt: float) -> list[dict[str, Any]]:
    """After each announced change: when the error after adaptation, smoothed, is within WITHIN of where it settles until the next."""
    known = [r for r in rows if r.kind == STEP and np.isfinite(r.error_after)]
    found = []
    after = _changes(changes)
    for i, change in enumerate(after):
        until = after[i + 1]["stamp"] if i + 1 < len(after) else float("inf")
        stretch = [r for r in known if change["stamp"] < r.stamp <= until]
        row = {"condition": change["condition"], "step": change["step"], "lag_s": float("nan")}
        n, tail = max(1, round(SMOOTH_S / dt)), max(1, round(SETTLED_S / dt))
        if len(stretch) > 2 * tail:
            error = np.array([r.error_after for r in stretch])
            # Over the last n steps only, so that what came before the change cannot make it look good.
            smooth = np.array([error[max(0, j - n + 1) : j + 1].mean() for j in range(len(error))])
            high = np.flatnonzero(smooth > WITHIN * error[-tail:].mean())
            at = 0 if not len(high) else min(int(high[-1]) + 1, len(stretch) - 1)
            row["lag_s"] = (stretch[at].stamp - change["stamp"]) / 1e9
            row["error_before"] = float(np.mean([r.error_before for r in stretch]))
            row["error_after"] = float(error.mean())
        found.append(row)
    return found


def _speed(states: list[tuple[int, int, Any]], dt: float) -> tuple[np.ndarray, np.ndarray]:
    """-> stamps [ns], forward speed (t,) [m/s] of every period; empty where that is not known."""
    by = {stamp: odom for _, stamp, odom in states}
    stamps = np.array(sorted(by))
    x = np.array([by[int(s)].pose.pose.position.x for s in stamps])
    if len(x) < 2 or not np.isfinite(x).all():
        return stamps, np.empty(0)
    grid = np.arange(stamps[0], stamps[-1] + 1, 1e9 * dt)  # holes are bridged
    return stamps, np.diff(np.interp(grid, stamps, x)) / dt


def _motion(states: list[tuple[int, int, Any]], changes: list[dict[str, Any]], dt: float) -> dict[str, Any]:
    stamps, speed = _speed(states, dt)
    if not len(speed):
        return {}
    recovery = [
        {
            "condition": c["condition"],
            "recover_s": score.recovery(speed, int((c["stamp"] - stamps[0]) / (1e9 * dt)), dt),
        }
        for c in _changes(changes)
        if c["stamp"] - stamps[0] < 1e9 * dt * (len(speed) - 1)
    ]
    return {"mean_forward_speed_m_s": float(speed.mean()), "recovery": recovery}


def speed_after(path: Path, dt: float) -> np.ndarray:
    """A recording -> forward speed (t,) [m/s] of every period from its last change on. Raises UsageError where it holds none."""
    states, at = [], None
    for m in bag.read(path):
        if m.topic.endswith("/odom"):
            states.append((m.time, convert.stamp_of(m.content), m.content))
        elif m.topic.endswith("/condition") and (change := json.loads(m.content.data))["step"] > 0:
            at = change["stamp"]
    stamps, speed = _speed(states, dt)
    if at is None:
        raise UsageError(f"{path} holds no change of the robot; valid: a recording with one")
    return speed[max(0, round((at - stamps[0]) / (1e9 * dt))) :]


def _tracking(states: list[tuple[int, int, Any]], rows: list[Row], record: dict[str, Any]) -> dict[str, Any]:
    """Of a quadrotor that is to be on its path itself: the distance from it, from a second after the first plan on."""
    config = update(ControlConfig(), {k: v for k, v in record["config"].items() if k in flatten(ControlConfig())})
    planned = any(r.kind in (STEP, LATE) for r in rows)
    if config.robot != "quadrotor" or config.flight.target != "vehicle" or not planned:
        return {}
    path = make_trajectory(config.flight, make_robot(config.flight), config.seed)
    stamps = np.array([stamp for _, stamp, _ in states])
    at = np.array([(o.pose.pose.position.x, o.pose.pose.position.y, o.pose.pose.position.z) for _, _, o in states])
    t = (stamps - min(r.stamp for r in rows if r.kind in (STEP, LATE))) / 1e9
    off = np.linalg.norm(at - path.at(t).p, axis=1)[(t >= 1) & np.isfinite(at).all(1)]
    if not len(off):
        return {}
    return {"rmse_m": float(np.sqrt(np.mean(off**2))), "max_error_m": float(off.max())}


def _plain(x: Any) -> Any:
    if isinstance(x, dict):
        return {k: _plain(v) for k, v in x.items()}
    if isinstance(x, list):
        return [_plain(v) for v in x]
    return None if isinstance(x, float) and not np.isfinite(x) else x


def _markdown(r: dict[str, Any]) -> str:
    def number(x: float | None) -> str:
        return "-" if x is None else f"{x:.2f}"

    lines = [
        f"# {r['robot']}: {r['commands']} commands, {r['states']} states", "", f"Recording: {r['recording']}", "",
        "| | p50 | p99 | max |", "|---|---|---|---|",
    ]  # fmt: skip
    names = {
        "interval_ms": "between commands [ms]", "state_to_command_ms": "state received to command sent [ms]",
        "stamp_to_command_ms": "state stamped to command sent [ms]", "adapt_ms": "adapting [ms]", "plan_ms": "planning [ms]",
        "waited_ms": "no core to plan on, meanwhile [ms]", "prepare_ms": "preparing, before the state [ms]",
        "arithmetic_us": "a piece of arithmetic, always the same [us]",
    }  # fmt: skip
    for key, name in names.items():
        lines.append(f"| {name} | " + " | ".join(number(r[key][q]) for q in ("p50", "p99", "max")) + " |")
    lines += [
        "", f"Period {number(r['period_ms'])} ms, {number(r['rate_hz'])} commands a second, standard deviation between commands "
        f"{number(r['interval_ms']['jitter_std'])} ms.", "", "| | |", "|---|---|",
        f"| commands later than a period after their state | {r['deadline_misses']} |",
        f"| of these, not for want of a core, which others on the machine or its hypervisor had | {r['deadline_misses_with_a_core']} |",
        f"| of these, also at the speed that the core usually has, by a piece of arithmetic after each | {r['deadline_misses_at_usual_speed']} |",
        f"| taken by the hypervisor between states and commands [ms] | {r['stolen_ms']:.0f} |", f"| plans that came too late | {r['late_plans']} |",
        *(f"| {name.replace('_', ' ')} | {n} |" for name, n in r["lost"].items()),
        *(f"| guard: {name} | {n} |" for name, n in r["guard"].items()),
        *(f"| without a new plan: {name} | {n} |" for name, n in r["without_a_new_plan"].items()), "",
    ]  # fmt: skip
    for row in r["adaptation"]:
        lines.append(f"After `{row['condition']}` at step {row['step']}: adapted within {number(row['lag_s'])} s.")
    if r["tracking"]:
        rmse, most = (number(1e3 * r["tracking"][k]) for k in ("rmse_m", "max_error_m"))
        lines.append(
            f"Distance from the path, root mean square {rmse} mm, largest {most} mm, had nobody held it on its way."
        )
    elif r["motion"]:
        lines.append(f"Mean forward speed {number(r['motion']['mean_forward_speed_m_s'])} m/s.")
    return "\n".join(lines) + "\n\n![timing](timing.png)\n\n![adaptation](adaptation.png)\n"


def _plots(out: Path, rows: list[Row], changes: list[dict[str, Any]], dt: float) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    planned = [r for r in rows if r.kind in (STEP, LATE)]
    start = planned[0].stamp if planned else 0
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    axes[0].hist(_between(rows) - 1e3 * dt, bins=50, color="C0")
    axes[0].set_xlabel("time between commands, minus the period [ms]")
    axes[0].set_ylabel("commands")
    axes[0].set_yscale("log")
    axes[1].hist([r.latency_ms for r in planned], bins=50, color="C1")
    axes[1].axvline(1e3 * dt, color="k", ls="--", lw=1, label="period")
    axes[1].set_xlabel("state received to command sent [ms]")
    axes[1].set_yscale("log")
    axes[1].legend()
    figure.savefig(out / "timing.png", dpi=120)
    plt.close(figure)
    figure, ax = plt.subplots(figsize=(9, 3.2), layout="constrained")
    time_s = [(r.stamp - start) / 1e9 for r in planned]
    ax.plot(time_s, [r.error_before for r in planned], color="C3", lw=0.8, label="before adaptation (theta)")
    ax.plot(time_s, [r.error_after for r in planned], color="C0", lw=0.8, label="after (phi)")
    for change in _changes(changes):
        ax.axvline((change["stamp"] - start) / 1e9, color="k", ls="--", lw=1)
        ax.annotate(
            change["condition"], ((change["stamp"] - start) / 1e9, 0.95), xycoords=("data", "axes fraction"), fontsize=8
        )
    ax.set_xlabel("time [s]")
    ax.set_ylabel("one-step error, normalised")
    ax.legend(fontsize=8)
    figure.savefig(out / "adaptation.png", dpi=120)
    plt.close(figure)
