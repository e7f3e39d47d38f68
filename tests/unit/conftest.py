"""What several files look at: a walk of ants; a checkpoint and a dataset. Nobody may write to them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from controller import cli
from dynamics import checkpoint
from dynamics.mlp import MLP
from dynamics.types import Theta, Transitions
from robots.ant import Ant
from robots.condition import HEALTHY

pytest.register_assert_rewrite("control_problem", "refusals")  # their asserts explain themselves as those of tests do


@pytest.fixture(scope="session")
def walk() -> Transitions:
    """(b, t, .) real transitions of eight ants under random actions, float64."""
    robot, rng = Ant(threads=1), np.random.default_rng(0)
    start = robot.reset([HEALTHY] * 8, range(8))
    actions = np.repeat(rng.uniform(-1, 1, (8, 10, 8)), 4, axis=1)
    s = torch.as_tensor(np.concatenate((start[:, None], robot.rollout(actions)), 1))
    return Transitions(s[:, :-1], torch.as_tensor(actions), s[:, 1:], torch.ones(8, 40, dtype=torch.bool))


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A folder with a checkpoint of random weights for the frozen ant, and a small dataset. Not to be written to."""
    folder = tmp_path_factory.mktemp("made")
    model = MLP(Ant.space, 8, 1)
    norm = {
        "x_mean": torch.zeros(26),
        "x_std": torch.ones(26),
        "d_mean": torch.zeros(28),
        "d_std": torch.full((28,), 0.1),
    }
    theta = Theta(model.init(torch.Generator().manual_seed(0)), norm, {})
    checkpoint.save(folder / "ant.safetensors", "ant", model, theta, {})
    checkpoint.save(folder / "cheetah.safetensors", "cheetah", model, theta, {})
    cli.main(["collect", "--out", str(folder / "data"), "--robots", "8", "--steps", "10"])
    return folder


@pytest.fixture
def own(made, tmp_path) -> Path:
    """The same, to be spoilt."""
    shutil.copytree(made, tmp_path / "own")
    return tmp_path / "own"
