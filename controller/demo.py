"""The demonstration: one damage in mid-run, the adapting controller beside the frozen one, on the same seeds."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from controller import report, score
from controller.config import ControllerConfig, at_least, check_onsets, check_seeds, make_controller
from controller.evaluate import _step_times
from controller.run import Record, episodes
from robots.ant import Ant
from robots.condition import Schedule, parse


@dataclass(frozen=True)
class DemoConfig:
    """Watch a robot lose a leg and walk on: writes summary.json, demo.png and demo.mp4."""

    out: Path = Path("runs/demo")
    seed: int = 0
    video: bool = True
    """draw demo.mp4 (needs OpenGL)"""
    steps: int = 300
    seeds: int = 4
    """pairs of robots; the first pair is filmed"""
    condition: str = ""
    """what happens; by default leg 3 is lost at a third of the episode"""
    weights: Path | None = None
    controller: ControllerConfig = field(default_factory=ControllerConfig)


def run(robot: Ant, config: DemoConfig, say: Any) -> dict[str, Any]:
    """say(line) reports progress. -> the summary, which is also written. Raises ConditionError, CheckpointError,
    UsageError."""
    at_least(1, seeds=config.seeds, steps=config.steps)
    check_seeds(config.seed)
    onset = config.steps // 3
    schedule = parse(config.condition or f"leg:3@{onset}")
    check_onsets(schedule, config.steps)
    seeds = [config.seed + i for i in range(config.seeds)]
    names = (config.controller.adapter, "frozen")
    controllers = [make_controller(robot, replace(config.controller, adapter=name), config.weights) for name in names]  # pyright: ignore[reportArgumentType]
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "config.json").write_text(json.dumps(asdict(config), indent=1, default=str))
    begun = time.perf_counter()
    records: list[Record] = []
    latencies: list[tuple[float, float]] = []
    for name, controller in zip(names, controllers, strict=True):

        def tell(t: int, s: np.ndarray, name: str = name) -> None:
            say(name, t + 1, config.steps)

        records.append(episodes(controller, robot, [schedule] * len(seeds), seeds, config.steps, progress=tell))
        latencies.append(_step_times(controller, records[-1].s[0], seeds[0]))
    rows = [
        summarise(robot, name, schedule, r, times) for name, r, times in zip(names, records, latencies, strict=True)
    ]
    summary = {
        "robot": robot.name, "condition": schedule.text, "onsets": schedule.onsets, "steps": config.steps, "seeds": seeds,
        "controllers": rows, "seconds": time.perf_counter() - begun,
    }  # fmt: skip
    plot(config.out / "demo.png", robot, names, records, schedule)
    summary["video"] = None
    if config.video:
        try:
            film(config.out / "demo.mp4", robot, names, records, schedule)
            summary["video"] = "demo.mp4"
        except NoOpenGL as e:
            summary["video_skipped"] = str(e)
    report.write_json(config.out / "summary.json", summary)
    return summary


def summarise(robot: Ant, name: str, schedule: Schedule, r: Record, times: tuple[float, float]) -> dict[str, Any]:
    onset = schedule.onsets[0] if schedule.onsets else 0
    speed = robot.score(r.s[:, :-1], r.s[:, 1:])
    recovered = [score.recovery(v, onset, robot.dt) for v in speed]
    known = [x for x in recovered if np.isfinite(x)]
    return {
        "adapter": name,
        "speed_before": float(speed[:, :onset].mean()) if onset else float("nan"),
        "speed_after": float(speed[:, onset:].mean()),
        "return_per_500": float(speed.mean() * 500),
        "falls": int(score.falls(robot.upright(r.s)).sum()),
        "recover_s": float(np.mean(known)) if known else float("nan"),
        "error_before": float(np.sqrt(np.nanmean(r.error_before[:, onset:] ** 2))),
        "error_after": float(np.sqrt(np.nanmean(r.error_after[:, onset:] ** 2))),
        "step_ms_p50": times[0],
        "step_ms_p99": times[1],
    }


def _smooth(x: np.ndarray, n: int = score.STRIDE) -> np.ndarray:
    """(t,) -> (t,) mean over n samples, of those there are at both ends."""
    window = np.ones(min(n, len(x)))  # of a shorter episode the mean would come out longer than the episode
    return np.convolve(x, window, mode="same") / np.convolve(np.ones_like(x), window, mode="same")


def plot(path: Path, robot: Ant, names: Sequence[str], records: Sequence[Record], schedule: Schedule) -> None:
    """Speed, prediction error before and after adaptation, and time taken, over the episode; the damage marked."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(3, 1, figsize=(8, 7.5), sharex=True, layout="constrained")
    time_s = np.arange(records[0].a.shape[1]) * robot.dt
    for j, (name, r) in enumerate(zip(names, records, strict=True)):
        speed = robot.score(r.s[:, :-1], r.s[:, 1:])
        for v in speed:
            axes[0].plot(time_s, _smooth(v), color=f"C{j}", lw=0.6, alpha=0.35)
        axes[0].plot(time_s, _smooth(speed.mean(0)), color=f"C{j}", lw=2, label=name)
    adapting = records[0]
    for key, label, color in (
        ("error_before", "before adaptation (theta)", "C3"),
        ("error_after", "after (phi)", "C0"),
    ):
        values = np.nan_to_num(getattr(adapting, key), nan=0.0)
        axes[1].plot(time_s, _smooth(np.sqrt((values**2).mean(0))), color=color, label=label)
    axes[2].plot(
        time_s, adapting.adapt_ms, color="C4", lw=0.8, label=f"adapt, {adapting.a.shape[0]} robots in one batch"
    )
    for ax in axes:
        report.mark(ax, schedule, robot.dt)
        ax.legend(loc="upper left", fontsize=8)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("forward speed [m/s], 0.5 s mean")
    axes[1].set_ylabel("one-step error, normalised")
    axes[2].set_ylabel("latency [ms]")
    axes[2].set_ylim(0, 2 * np.quantile(adapting.adapt_ms, 0.95))
    axes[2].set_xlabel("time [s]")
    figure.savefig(path, dpi=120)
    plt.close(figure)


class NoOpenGL(RuntimeError):
    """Rendering is not possible here. The message names the package that would make it so."""


def film(
    path: Path, robot: Ant, names: Sequence[str], records: Sequence[Record], schedule: Schedule, height: int = 360
) -> None:
    """Both robots of the first seed side by side, at real speed (20 frames/s). Raises NoOpenGL."""
    import imageio
    from PIL import Image, ImageDraw

    from robots.render import Camera, RenderError

    try:
        camera = Camera(robot.physics.model, width=480, height=height)
    except RenderError as e:
        raise NoOpenGL(str(e)) from e
    video: Any = imageio.get_writer(path, fps=round(1 / robot.dt), codec="libx264", quality=7, macro_block_size=8)
    with camera, video as writer:
        for t in range(records[0].a.shape[1]):
            tiles = []
            for name, r in zip(names, records, strict=True):
                qpos, _ = robot.space.to_mujoco(r.s[0, t])
                broken = robot.broken_geoms(schedule.at(t))
                picture = Image.fromarray(camera.draw(qpos, broken))
                speed = robot.score(r.s[0, max(0, t - 10)], r.s[0, t]) / min(10, max(1, t))
                draw = ImageDraw.Draw(picture)
                draw.text((10, 8), f"{name}", fill="white", font_size=22)
                draw.text(
                    (10, 34),
                    f"{speed:4.1f} m/s   {r.s[0, t, 0]:6.1f} m   {t * robot.dt:5.1f} s",
                    fill="white",
                    font_size=18,
                )
                if broken:
                    draw.text((10, 58), schedule.text, fill=(255, 90, 70), font_size=18)
                tiles.append(np.asarray(picture))
            writer.append_data(np.concatenate(tiles, 1))
