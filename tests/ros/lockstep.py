"""A run in lockstep that several modules look at."""

from pathlib import Path

from controller.cli import main
from controller.config import ControllerConfig, PlannerConfig
from robots.ant import Ant

STEPS, CONDITION, SEED = 100, "leg:3@30", 5
CONFIG = ControllerConfig(planner=PlannerConfig(samples=16, horizon=3, iterations=1))
QUICK = [
    "--controller.planner.samples",
    "16",
    "--controller.planner.horizon",
    "3",
    "--controller.planner.iterations",
    "1",
]


def record(path: Path, domain: int) -> Path:
    main(
        ["ros", "ant", "--lockstep", "--duration", str(STEPS * Ant.dt), "--record", str(path), "--condition", CONDITION,
         "--seed", str(SEED), "--domain", str(domain), *QUICK]
    )  # fmt: skip
    return path
