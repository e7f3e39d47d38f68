"""How soon control starts: from asking the controller to activate until it takes a state, and until its command is out.

    python -m controller.ros.activation --robot ant --times 40 --out results/ros/activation-ant

Both nodes in processes of their own, in real time, with the settings of `sealegs ros`. Configuring, which is slow, is over by then. Times are on the
controller's steady clock, which is this process's, too. A state comes once a period, whenever control was asked for: the wait for it is
between nothing and a period, and what follows is a step.
"""

import json
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Literal

import numpy as np
import rclpy
import tyro
from lifecycle_msgs.msg import Transition
from rclpy.context import Context

from controller.config import UsageError, at_least, check_seeds
from controller.ros.bench import HOVER, PATIENCE_S, Probe
from controller.ros.commands import Nodes, needs_ros
from controller.ros.keep import keep, resume
from controller.ros.loop import STEP
from robots import vehicle
from robots.ant import Ant

CALM_S = (0.3, 0.5)  # between two activations, at least and at most: at any part of a period
WHAT = {
    "answered_ms": "the controller has said that it is active",
    "state_ms": "a state is taken",
    "command_ms": "the command that answers it is sent",
}


@dataclass(frozen=True)
class ActivationConfig:
    """Activations of one controller, in activation.json and activation.md; where `out` has some already, it goes on."""

    robot: Literal["ant", "quadrotor"] = "ant"
    times: int = 40
    seed: int = 0
    domain: int = 77
    out: Path = Path("runs/activation")


def activations(c: ActivationConfig, first: int, folder: Path) -> Iterator[dict[str, float]]:
    """Number `first` and those that follow, each with the times of WHAT since it was asked for. Raises UsageError where a node does not run."""
    context = Context()
    rclpy.init(context=context, domain_id=c.domain)
    probe, nodes = Probe(context), Nodes(folder, c.domain, "")
    own = {"robot": c.robot, "seed": c.seed} | ({} if c.robot == "ant" else HOVER)
    try:
        nodes.start("controller", own)
        nodes.start("robot", own | {"mode": "real"})
        _changed(probe, nodes, Transition.TRANSITION_CONFIGURE)
        if not probe.spin(PATIENCE_S, lambda: len(probe.efforts) > 0 or probe.at is not None):
            raise UsageError(f"no state comes: {nodes.output('robot').strip()[-300:]}; valid: a robot node that starts")
        for i in range(first, c.times):
            sleep(
                np.random.default_rng([c.seed, i]).uniform(*CALM_S)
            )  # `spin` would end when a state comes, at the same part of every period
            probe.spin(0.0)
            seen, asked = len(probe.rows), monotonic()
            _changed(probe, nodes, Transition.TRANSITION_ACTIVATE)
            answered = monotonic()
            if not probe.spin(PATIENCE_S, lambda seen=seen: sum(r.kind == STEP for _, r in probe.rows[seen:]) >= 3):
                raise UsageError(
                    f"no commands come: {nodes.output('controller').strip()[-300:]}; valid: a controller that plans"
                )
            row = next(r for _, r in probe.rows[seen:] if r.kind == STEP)
            command_ms = 1e3 * (row.sent_s - asked)
            yield {
                "activation": i, "answered_ms": 1e3 * (answered - asked), "state_ms": command_ms - row.latency_ms, "command_ms": command_ms,
            }  # fmt: skip
            _changed(probe, nodes, Transition.TRANSITION_DEACTIVATE)
    finally:
        nodes.stop(*nodes.processes)
        probe.destroy_node()
        rclpy.try_shutdown(context=context)  # pyright: ignore[reportPrivateImportUsage]


def _changed(probe: Probe, nodes: Nodes, transition: int) -> None:
    """Raises UsageError with the controller's words."""
    try:
        if probe.change(transition):
            return
    except TimeoutError:
        pass
    said = nodes.output("controller").strip()[-300:]
    raise UsageError(f"the controller did not change its state: {said}; valid: settings that it can be configured with")


def table(rows: list[dict[str, float]], period_ms: float) -> str:
    lines = [
        f"Period {period_ms:g} ms, {len(rows)} activations.", "", "| since it was asked for [ms] | p50 | p90 | max |", "|---|---|---|---|",
    ]  # fmt: skip
    for name, what in WHAT.items():
        x = [r[name] for r in rows]
        lines.append(f"| {what} | " + " | ".join(f"{v:.1f}" for v in (*np.percentile(x, [50, 90]), max(x))) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    c = tyro.cli(ActivationConfig)
    period_ms = 1e3 * (Ant.dt if c.robot == "ant" else vehicle.load("1kg").dt)
    settings = {"robot": c.robot, "seed": c.seed}
    try:
        needs_ros()
        at_least(1, times=c.times)
        check_seeds(c.seed)
        rows = resume(c.out, "activation", settings)
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that the nodes end with it
        with tempfile.TemporaryDirectory() as folder:
            for row in activations(c, len(rows), Path(folder)) if len(rows) < c.times else ():
                rows.append(row)
                keep(c.out, "activation", settings, rows, table(rows, period_ms))
                print(json.dumps(row), flush=True)
    except OSError as e:
        print(
            f"sealegs: {c.out} cannot be used ({e.strerror}); valid: a folder that can be written to", file=sys.stderr
        )
        sys.exit(2)
    except UsageError as e:
        print(f"sealegs: {e}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
