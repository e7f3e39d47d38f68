"""The loop drives any robot: of Gymnasium's pendulum it knows states, actions and a model learned from random torque."""

import gymnasium
import numpy as np
import pytest
import torch
from point import fresh_meta
from torch import Tensor

from controller.config import make_adapter
from controller.controller import Controller, Memory
from controller.guard import Guard
from dynamics import data, objectives
from dynamics import train as training
from dynamics.mlp import MLP
from dynamics.types import Theta
from planners.icem import ICEM
from robots.space import Euclidean


class Pendulum:
    """Gymnasium's Pendulum-v1: (cos, sin, angular velocity) [rad/s], a torque of +-2 [N m]. gain: what becomes of the torque."""

    space = Euclidean(3, 1)

    def __init__(self, gain: float = 1.0):
        self.env, self.gain = gymnasium.make("Pendulum-v1"), gain

    def reset(self, seed: int) -> np.ndarray:
        return self.env.reset(seed=seed)[0]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float]:
        s, reward, *_ = self.env.step(2 * self.gain * action)
        return s, float(reward)

    @staticmethod
    def cost(s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
        return torch.atan2(s_next[..., 1], s_next[..., 0]).square() + 0.1 * s_next[..., 2].square()


@pytest.fixture(scope="module")
def pendulum() -> tuple[MLP, Theta]:
    """A model learned from 16 episodes of random torque."""
    robot, rng = Pendulum(), np.random.default_rng(0)
    rows = []
    for episode in range(16):
        s = robot.reset(episode)
        for _ in range(150):
            a = rng.uniform(-1, 1, 1).astype(np.float32)
            s_next, _ = robot.step(a)
            rows.append((s, a, s_next, episode))
            s = s_next
    s, a, s_next, episode = (torch.as_tensor(np.stack(x)) for x in zip(*rows, strict=True))
    known = episode >= 0, torch.ones(len(s), 1), episode % 8 == 7
    dataset = data.Rows(s, a, s_next, episode, torch.zeros_like(episode), *known)
    model = MLP(robot.space, width=32, depth=2)
    net, norm = model.init(torch.Generator().manual_seed(0)), model.fit_norm(s, s_next)
    loss, _ = objectives.plain(model, norm, dataset, objectives.Sampler.of(dataset), batch=128, horizon=1)
    config = training.TrainConfig(steps=1000, lr=3e-3)
    net = objectives.join(
        training.fit(loss, training.fresh(objectives.split(Theta(net, norm, {}))), config).params, norm
    ).net
    return model, fresh_meta(model, Theta(net, norm, {}), 0.05)


def swing(controller: Controller, gain: float, steps: int = 120) -> tuple[list[float], Memory]:
    """-> rewards, the last memory. Nothing is known of the robot but states and actions."""
    robot, memory = Pendulum(gain), controller.init([0])
    s, rewards = robot.reset(seed=100), []
    for _ in range(steps):
        a, memory, _ = controller.step(memory, s[None])
        s, reward = robot.step(a[0])
        rewards.append(reward)
    return rewards, memory


@pytest.mark.parametrize(("name", "gain"), [("frozen", 1.0), ("effectiveness", 1.0), ("effectiveness", -1.0)])
def test_any_gymnasium_robot_can_be_driven(name, gain, pendulum):
    model, theta = pendulum
    one = torch.ones(1)
    controller = Controller(
        model, theta, make_adapter(name, model), ICEM(n_action=1, horizon=15, samples=64, std=0.8), Pendulum.cost,
        Guard(-one, one, 0 * one),
    )  # fmt: skip
    rewards, memory = swing(controller, gain)
    assert np.mean(rewards[-30:]) > -0.5  # upright and still is 0, hanging -10
    if name == "effectiveness":
        assert memory.phi.gain.item() == pytest.approx(gain, abs=0.3)
