"""Faults injected into running nodes, one trial after the other, and what the commands did meanwhile.

    python -m controller.ros.faults --times 20 --out results/ros/faults
    python -m controller.ros.faults --robot quadrotor --times 20 --out results/ros/faults-quadrotor

What a trial is judged by is in controller/ros/bench.py. Started again with the same settings, it goes on where it was cut.
"""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from controller.config import UsageError
from controller.ros import bag
from controller.ros.bench import PATIENCE_S, QUICK, SHIPPED, Bench, Outcome
from controller.ros.keep import keep, resume

SLOW_SAMPLES = 6000  # at a fifth of real time and faster
DISK_KIB = 160  # of a disk that fills while it is recorded to, at up to DISK_HZ control periods a second; more at a higher rate, in proportion
DISK_HZ = 10.0


def state_fault(bench: Bench, fault: str, rng: np.random.Generator) -> Outcome:
    begun = time.monotonic()
    bench.probe.set("robot", {"fault": fault})
    bench.wait(float(rng.uniform(0.2, 0.8)))
    bench.probe.set("robot", {"fault": "none"})
    return bench.outcome(fault, begun, time.monotonic())


def robot_killed(bench: Bench, rng: np.random.Generator) -> Outcome:
    begun = time.monotonic()
    bench.wait(float(rng.uniform(0, 0.1)))
    bench.kill("robot")
    bench.start("robot")
    return bench.outcome("robot-killed", begun, time.monotonic(), PATIENCE_S)


def controller_killed(bench: Bench, rng: np.random.Generator) -> Outcome:
    begun = time.monotonic()
    bench.wait(float(rng.uniform(0, 0.1)))
    bench.kill("controller")
    bench.start("controller")
    return bench.outcome("controller-killed", begun, time.monotonic(), PATIENCE_S)


NONSENSE: dict[str, list[Any]] = {
    "controller.planner.samples": [0, -5], "controller.planner.horizon": [0], "controller.planner.kind": ["dice"],
    "controller.planner.std": [float("nan"), -1.0, 0.0], "controller.planner.beta": [1.0], "controller.k": [0],
    "controller.adapter": ["wishful"], "controller.precision": ["float3"], "robot": ["whale"], "seed": [-1], "slop_ms": [float("inf")],
}  # fmt: skip

NONSENSE_QUADROTOR: dict[str, list[Any]] = {
    "flight.adapter": ["wishful"], "flight.vehicle": ["brick"], "flight.trajectory": ["zigzag"], "flight.speed": ["ludicrous", "-1"],
    "flight.target": ["moon"], "robot": ["whale"], "seed": [-1], "slop_ms": [float("inf")],
}  # fmt: skip


def nonsense(bench: Bench, rng: np.random.Generator) -> Outcome:
    begun = time.monotonic()
    values = NONSENSE if bench.robot == "ant" else NONSENSE_QUADROTOR
    names = list(values)
    name = names[int(rng.integers(len(names)))]
    value = values[name][int(rng.integers(len(values[name])))]
    before = bench.probe.get("controller", name)
    reasons = bench.probe.set("controller", {name: value})
    after = bench.probe.get("controller", name)
    out = bench.outcome("nonsense", begun, time.monotonic())
    if not reasons or not reasons[0] or after != before:
        return replace(out, safe=False, why=f"{name} = {value} was taken")
    return out


def slow(bench: Bench, rng: np.random.Generator) -> Outcome:
    begun = time.monotonic()
    search = {"samples": round(SLOW_SAMPLES * max(1.0, 0.2 / bench.speed)), "horizon": 8, "iterations": 2, "ahead": 0}
    bench.probe.set("controller", {f"controller.planner.{name}": x for name, x in search.items()})
    bench.wait(float(rng.uniform(0.3, 0.8)))
    bench.probe.set("controller", bench.search)
    return bench.outcome("slow", begun, time.monotonic())


def sigint_twice(bench: Bench, rng: np.random.Generator) -> Outcome:
    """Of either node: it must end by itself, in order."""
    begun = time.monotonic()
    name = ("controller", "robot")[int(rng.integers(2))]
    process = bench.nodes.processes[name]
    process.send_signal(signal.SIGINT)
    time.sleep(float(rng.uniform(0, 0.05)))
    process.send_signal(signal.SIGINT)
    code, said = process.wait(10), bench.nodes.output(name)
    bench.ended()
    bench.start(name)
    out = bench.outcome(
        "controller-killed" if name == "controller" else "sigint-twice", begun, time.monotonic(), PATIENCE_S
    )
    if code != 0 or "Traceback" in said:
        return replace(out, fault="sigint-twice", safe=False, why=f"{name} ended with {code}")
    return replace(out, fault="sigint-twice")


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[Path]:
    """A disk of that size, as long as it is needed. Raises PermissionError where none can be mounted."""
    if shutil.which("mount") is None:
        raise PermissionError("no disk could be mounted: there is no `mount`; valid: a system that has it, and root")
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PermissionError(f"no disk could be mounted: {done.stderr.strip()}; valid: root, or CAP_SYS_ADMIN")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def record_onto(bench: Bench, out: Path, fault: str, break_it: Callable[[], None]) -> Outcome:
    """A recorder whose disk gives up: it must say so in one line, and the others must not notice."""
    begun, nodes = time.monotonic(), bench.nodes
    nodes.start("record", {"robot": bench.robot, "out": str(out)})
    try:
        bench.probe.spin(PATIENCE_S, lambda: any(out.glob("*.mcap")))
        break_it()
        bench.probe.spin(4 * PATIENCE_S, lambda: "recording stopped" in nodes.output("record"))
        out_of = bench.outcome(fault, begun, time.monotonic())
    finally:
        nodes.stop("record")
    code, said = nodes.processes.pop("record").returncode, nodes.output("record")
    if code != 0 or said.count("recording stopped") != 1 or "Traceback" in said:
        return replace(out_of, safe=False, why=f"the recorder ended with {code}: {said.strip()[-200:]}")
    return out_of


def disk_full(bench: Bench, rng: np.random.Generator, kib: int = DISK_KIB) -> Outcome:
    """What was written before must be readable: the disk takes what comes until the recorder has flushed, which it does every second."""
    kib = round(kib * max(1.0, bench.speed / bench.period / DISK_HZ))
    with (
        tempfile.TemporaryDirectory() as folder,
        small_disk(Path(folder) / "disk", kib + int(rng.integers(64))) as disk,
    ):
        outcome = record_onto(bench, disk / "bag", "disk-full", lambda: None)
        kept = re.search(r"the (\d+) messages until then are kept", bench.nodes.output("record"))
        readable = sum(1 for _ in bag.read(disk / "bag")) if kept else 0
    if kept is None or not 0 < readable == int(kept[1]):
        return replace(outcome, safe=False, why=outcome.why or f"{readable} messages can be read")
    return outcome


def folder_gone(bench: Bench, rng: np.random.Generator) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bag"

        def vanish() -> None:
            bench.wait(float(rng.uniform(0, 0.5)))
            shutil.rmtree(out)

        return record_onto(bench, out, "folder-gone", vanish)


STATE_FAULTS = ("missing", "late", "repeat", "reorder", "nan", "names", "order", "clock")
TRIALS: dict[str, Callable[[Bench, np.random.Generator], Outcome]] = {
    **{f: (lambda bench, rng, f=f: state_fault(bench, f, rng)) for f in STATE_FAULTS},
    "robot-killed": robot_killed, "controller-killed": controller_killed, "nonsense": nonsense, "slow": slow, "sigint-twice": sigint_twice,
    "disk-full": disk_full, "folder-gone": folder_gone,
}  # fmt: skip


# A quadrotor has no joints to be named in another order, and no setting that makes planning slow while it runs.
FAULTS = {"ant": tuple(TRIALS), "quadrotor": tuple(f for f in TRIALS if f not in ("order", "slow"))}


@dataclass(frozen=True)
class FaultsConfig:
    """Inject every fault of the table, seeded, into running nodes: faults.json and faults.md."""

    robot: Literal["ant", "quadrotor"] = "ant"
    times: int = 20
    seed: int = 0
    domain: int = 77
    out: Path = Path("runs/faults")
    """where it has trials of the same robot, speed and seed already, those are not made again"""
    speed: float = 1.0
    """times real time; less than 1 for a machine that is busy with other things"""
    quick: bool = False
    """the ant plans with a search so small that it keeps pace on such a machine, in the place of the default one"""
    keep_awake: bool = False
    """the controller's parameter"""
    faults: tuple[str, ...] = ()
    """of controller.ros.faults.TRIALS; by default all that the robot can have"""
    again: bool = False
    """trials of these faults that `out` has already are made again; where that was cut, go on without"""


def remaining(c: FaultsConfig, rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[tuple[int, str]]]:
    """-> the rows to keep, and (trial, fault) that are to be made."""
    faults = c.faults or FAULTS[c.robot]
    kept = [r for r in rows if not (c.again and r["fault"] in faults)]
    done = {(r["trial"], r["fault"]) for r in kept}
    return kept, [(i, f) for i in range(c.times) for f in faults if (i, f) not in done]


def table(outcomes: list[Outcome]) -> str:
    lines = [
        "| fault | trials | safe | recovered | recovery, median / max [s of wall time] | longest without a command [ms] |",
        "|---|---|---|---|---|---|",
    ]
    for fault in sorted({o.fault for o in outcomes}, key=tuple(TRIALS).index):
        mine = [o for o in outcomes if o.fault == fault]
        took = [o.recovery_s for o in mine if o.recovered] or [float("nan")]
        lines.append(
            f"| {fault} | {len(mine)} | {sum(o.safe for o in mine)} | {sum(o.recovered for o in mine)} | "
            f"{np.median(took):.2f} / {max(took):.2f} | {max(o.max_gap_ms for o in mine):.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    c = tyro.cli(FaultsConfig)
    if unknown := sorted(set(c.faults) - set(FAULTS[c.robot])):
        print(
            f"sealegs: unknown fault {unknown[0]!r}; valid for {c.robot}: {', '.join(FAULTS[c.robot])}", file=sys.stderr
        )
        sys.exit(2)
    settings = {"robot": c.robot, "speed": c.speed, "seed": c.seed} | ({"quick": c.quick} if c.robot == "ant" else {})
    settings |= {"keep_awake": True} if c.keep_awake else {}
    try:
        rows = resume(c.out, "faults", settings)
    except UsageError as e:
        print(f"sealegs: {e}", file=sys.stderr)
        sys.exit(2)
    rows, left = remaining(c, rows)
    bench: Bench | None = None
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that the nodes end with it
    with tempfile.TemporaryDirectory() as folder:
        try:
            for i, fault in left:
                rng = np.random.default_rng([c.seed, i, tuple(TRIALS).index(fault)])
                try:
                    if bench is None:
                        search = QUICK if c.quick else SHIPPED
                        bench = Bench(Path(folder), c.domain, c.seed, c.speed, c.robot, search, c.keep_awake)
                    bench.running()
                    o = TRIALS[fault](bench, rng)
                except PermissionError as e:
                    print(f"{i + 1}/{c.times} {fault}: skipped, {e}", flush=True)
                    continue
                except (TimeoutError, subprocess.TimeoutExpired) as e:
                    o = Outcome(
                        fault, False, False, float("nan"), float("nan"), 0, f"a node does not answer: {e}"[:300]
                    )
                rows.append({"trial": i, **asdict(o)})
                print(
                    f"{i + 1}/{c.times} {fault}: {'safe' if o.safe else 'UNSAFE ' + o.why}, recovered: {o.recovered}",
                    flush=True,
                )
                keep(
                    c.out,
                    "faults",
                    settings,
                    rows,
                    table([Outcome(**{k: v for k, v in r.items() if k != "trial"}) for r in rows]),
                )
                if bench is not None and not o.recovered:  # the next one is to begin with sound nodes
                    bench.close()
                    bench = None
        finally:
            if bench is not None:
                bench.close()


if __name__ == "__main__":
    main()
