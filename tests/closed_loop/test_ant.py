"""The shipped weights on the real physics: the ant runs, loses a leg, and adaptation is worth having."""

from dataclasses import replace

import numpy as np
import pytest

from controller import score
from controller.config import WEIGHTS, ControllerConfig, make_controller
from controller.run import Record, episodes
from robots.ant import Ant
from robots.condition import parse

SEEDS = range(900, 906)
SHIPPED = ControllerConfig().adapter


@pytest.fixture(scope="module")
def ant() -> Ant:
    return Ant()


def fly(ant: Ant, adapter: str, condition: str, steps: int) -> Record:
    controller = make_controller(ant, replace(ControllerConfig(), adapter=adapter))
    return episodes(controller, ant, [parse(condition)] * len(SEEDS), SEEDS, steps)


def speed(r: Record) -> np.ndarray:
    """(b,) mean forward speed [m/s]"""
    return Ant.score(r.s[:, :-1], r.s[:, 1:]).mean(1)


def test_the_healthy_ant_runs_forward_on_its_feet(ant):
    r = fly(ant, SHIPPED, "healthy", 120)
    assert np.median(speed(r)) > 2.5  # [m/s]; a published model-based learner reaches 3.8 at its best
    assert np.median(Ant.upright(r.s)) > 0.8
    assert (np.abs(r.a) <= 1).all()


def test_adaptation_pays_with_two_hips_reversed(ant):
    adapted, frozen = (fly(ant, a, "reverse:2+reverse:6", 150) for a in (SHIPPED, "frozen"))
    assert speed(adapted).mean() > 1.3 * speed(frozen).mean()


def test_an_ant_whose_leg_is_shortened_in_full_run_walks_on_because_it_adapts(ant):
    adapted, frozen = (fly(ant, a, "leg-short:3@50", 150) for a in (SHIPPED, "frozen"))
    after = {
        name: Ant.score(r.s[:, 70:-1], r.s[:, 71:]).mean() for name, r in (("adapted", adapted), ("frozen", frozen))
    }
    assert after["adapted"] > 1.5 * after["frozen"] and after["adapted"] > 1.5, after  # [m/s]


def test_the_error_on_an_unseen_leg_falls_and_only_after_the_damage(ant):
    r = fly(ant, SHIPPED, "leg:3@60", 140)
    before, after = (np.sqrt(np.nanmean(e[:, 70:] ** 2)) for e in (r.error_before, r.error_after))
    assert after < 0.9 * before
    healthy = r.error_after[:, 10:60] - r.error_before[:, 10:60]
    assert abs(np.nanmean(healthy)) < 0.02


@pytest.mark.parametrize("adapter", ["online-sgd", "grbal", "last-layer", "effectiveness", "effectiveness+last-layer"])
def test_every_adapter_drives_the_ant(ant, adapter):
    r = fly(ant, adapter, "leg:3", 60)
    assert np.isfinite(r.s).all() and speed(r).mean() > 0.5
    assert np.nanmean(r.error_after) < 1.05 * np.nanmean(r.error_before)


@pytest.mark.parametrize(("robot", "megabytes"), [("ant", 5), ("quadrotor", 2)])
def test_the_shipped_weights_are_small(robot, megabytes):
    files = list(WEIGHTS.glob(f"{robot}*.safetensors"))
    assert files and sum(f.stat().st_size for f in files) <= megabytes * 1e6


def test_falls_count_tumbles_not_steps():
    upright = np.array([[1.0, -0.1, -0.9, -0.1, 0.3, -0.2, 0.6, -0.5], [0.9, 0.2, 0.1, 0.4, 0.8, 0.9, 0.9, 1.0]])
    assert score.falls(upright).tolist() == [2, 0]


def test_recovery_is_the_time_to_steady_speed():
    v = np.concatenate((np.full(50, 4.0), np.zeros(8), np.full(200, 3.0)))
    assert score.recovery(v, 50, 0.05) == pytest.approx(7 * 0.05, abs=0.051)
