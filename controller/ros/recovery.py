"""A leg lost during a ROS run: how long until it runs again, against the same in one process.

    python -m controller.ros.recovery --out results/ros/recovery

For each seed three runs with the same controller: `ros`, both nodes in processes of their own, in real time or slower, delay compensated;
`process`, the loop of `evaluate`, without delay; `delayed`, the loop in one process whose commands act as late as the median of the ros run's
did, compensated too. The recovery of each is that of `evaluate` (controller/score.py). A gait is chaotic, so single runs differ whatever carries
the messages; where nothing is late (lockstep) they are the same to the bit (tests/ros/test_lockstep.py). So what is compared is the mean speed
over all seeds, too: when it is back (score.mean_recovery), and by how much the ways differ then.
"""

import json
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from controller import score
from controller.config import ControllerConfig, UsageError, make_controller
from controller.ros import delays
from controller.ros.commands import Ros, needs_ros, ros
from controller.ros.controller_config import real_time
from controller.ros.keep import keep, resume
from controller.ros.report import report, speed_after
from controller.run import episodes
from robots.ant import Ant
from robots.condition import parse

WAYS = ("process", "ros", "delayed")


@dataclass(frozen=True)
class RecoveryConfig:
    """Seeds x (process, ros, delayed): recovery.json, recovery.md. Runs that the folder has already are not made again."""

    condition: str = "leg:3@100"
    seeds: tuple[int, ...] = tuple(range(100, 120))
    steps: int = 270
    speed: float = 1.0
    """times real time; other than 1 with /clock"""
    domain: int = 78
    out: Path = Path("runs/recovery")
    controller: ControllerConfig = field(default_factory=real_time)


def in_process(c: RecoveryConfig, seed: int) -> dict[str, Any]:
    ant, schedule = Ant(threads=1), parse(c.condition)
    record = episodes(make_controller(ant, c.controller), ant, [schedule], [seed], c.steps, threads=1)
    speed = ant.score(record.s[0, :-1], record.s[0, 1:])
    onset = schedule.onsets[-1]
    return {
        "recover_s": score.recovery(speed, onset, ant.dt), "speed_m_s": float(speed.mean()), "after_m_s": speed[onset:].round(4).tolist(),
    }  # fmt: skip


def over_ros(c: RecoveryConfig, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        bag = Path(folder) / "bag"
        ros(
            Ros(
                duration=c.steps * Ant.dt,
                record=bag,
                speed=c.speed,
                condition=c.condition,
                seed=seed,
                domain=c.domain,
                controller=c.controller,
            )
        )
        told = report(bag, Path(folder) / "report")
        after = speed_after(bag, Ant.dt)
    return {
        "recover_s": told["motion"]["recovery"][-1]["recover_s"], "speed_m_s": told["motion"]["mean_forward_speed_m_s"],
        "stamp_to_command_ms": told["stamp_to_command_ms"], "states": told["states"],
        "without_a_new_plan": told["without_a_new_plan"], "adaptation_lag_s": told["adaptation"][-1]["lag_s"],
        "after_m_s": after.round(4).tolist(),
    }  # fmt: skip


def delayed(c: RecoveryConfig, seed: int, late_ms: float) -> dict[str, Any]:
    asked = delays.DelaysConfig(planning_ms=late_ms, condition=c.condition, steps=c.steps, controller=c.controller)
    told, speed = delays.episode(asked, 0.0, True, seed)
    after = speed[parse(c.condition).onsets[-1] :]
    return {"recover_s": told["recover_s"], "speed_m_s": told["score"], "after_m_s": after.round(4).tolist()}


def table(rows: list[dict[str, Any]]) -> str:
    by = {(r["way"], r["seed"]): r["recover_s"] for r in rows}
    seeds = list(dict.fromkeys(r["seed"] for r in rows))
    lines = [
        "| seed | " + " | ".join(f"{w} [s]" for w in WAYS) + " | ros - process [s] | ros - delayed [s] |",
        "|---|---|---|---|---|---|",
    ]

    def line(name: str, values: dict[str, float]) -> str:
        cells = [*(values[w] for w in WAYS), values["ros"] - values["process"], values["ros"] - values["delayed"]]
        return f"| {name} | " + " | ".join(f"{x:.2f}" for x in cells) + " |"

    each = {s: {w: by.get((w, s), float("nan")) for w in WAYS} for s in seeds}
    lines += [line(str(s), values) for s, values in each.items()]
    for name, middle in (("median", np.median), ("mean", np.mean)):
        known = {w: [v[w] for v in each.values() if np.isfinite(v[w])] for w in WAYS}
        lines.append(line(name, {w: float(middle(x)) if x else float("nan") for w, x in known.items()}))
    lines += [
        "",
        "| mean over seeds | below 90% of steady until [s] [95%] | first second [m/s] | steady [m/s] [95%] |",
        "|---|---|---|---|",
    ]
    for way in WAYS:
        speeds = [r["after_m_s"] for r in rows if r["way"] == way]
        if len(speeds) < len(seeds):
            continue
        # The last state of a recording may be one earlier.
        speed = np.array([v[: min(map(len, speeds))] for v in speeds])
        steady = speed[:, round(score.SPAN_S / Ant.dt) :].mean(1)
        value, low, high = score.mean_recovery(speed, 0, Ant.dt)
        first, (least, most) = speed[:, : round(1 / Ant.dt)].mean(), score.interval(steady)
        lines.append(
            f"| {way} | {value:.2f} [{low:.2f}, {high:.2f}] | {first:.2f} | {steady.mean():.2f} [{least:.2f}, {most:.2f}] |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    c = tyro.cli(RecoveryConfig)
    torch.set_num_threads(1)
    settings = {k: v for k, v in asdict(c).items() if k not in ("out", "seeds", "domain")}
    try:
        needs_ros()
        rows = resume(c.out, "recovery", settings)
        for seed in c.seeds:
            for way in ("process", "ros", "delayed"):
                if any(r["seed"] == seed and r["way"] == way for r in rows):
                    continue
                if way == "process":
                    told = in_process(c, seed)
                elif way == "ros":
                    told = over_ros(c, seed)
                else:
                    late = next(r for r in rows if r["seed"] == seed and r["way"] == "ros")["stamp_to_command_ms"][
                        "p50"
                    ]
                    told = delayed(c, seed, late)
                rows.append({"seed": seed, "way": way, **told})
                print(json.dumps(rows[-1]), flush=True)
                keep(c.out, "recovery", settings, rows, table(rows))
    except UsageError as e:
        print(f"sealegs: {e}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
