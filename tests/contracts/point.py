"""A point on a plane with two motors, its model exact: what goes wrong in the loop is what the test breaks."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from controller.config import make_adapter
from controller.controller import Controller, Diagnostics, Memory
from controller.guard import Guard
from dynamics.adapt.effectiveness import Effectiveness
from dynamics.adapt.gradient import GrBAL, OnlineSGD
from dynamics.adapt.last_layer import LastLayer
from dynamics.mlp import MLP
from dynamics.types import Adapter, Theta
from planners.icem import ICEM
from robots.space import Euclidean

DT, B, STEPS = 0.2, 3, 12  # [s], robots, steps
SEEDS = range(B)
ADAPTERS = ("frozen", "online-sgd", "grbal", "last-layer", "effectiveness", "effectiveness+last-layer")
each_adapter = pytest.mark.parametrize("name", ADAPTERS)


def fresh_meta(model: MLP, theta: Theta, sigma: float) -> Theta:
    meta = {"effectiveness.sigma": torch.full((model.space.n_delta,), sigma)}
    for kind in (OnlineSGD, GrBAL, LastLayer, Effectiveness):
        meta |= kind(model).meta(theta)
    meta["effectiveness.precision"] = torch.full((model.space.n_action,), 0.2)
    return theta._replace(meta=meta)


def exact(ensemble: int = 1) -> tuple[MLP, Theta]:
    """The point's own dynamics: linear, so that the last layer alone expresses them. State: position (2) [m], velocity (2)."""
    model = MLP(Euclidean(4, 2), width=8, depth=1, ensemble=ensemble)
    net = model.init(torch.Generator().manual_seed(0))
    one = torch.eye(2)
    blocks = ((torch.zeros(2, 4)), torch.cat((DT * one, 0 * one), 1), torch.cat((DT**2 / 2 * one, DT * one), 1))
    net["K"] = torch.cat((torch.zeros(8, 4), *blocks, torch.zeros(1, 4))).expand(ensemble, -1, -1).clone()
    norm = {"x_mean": torch.zeros(4), "x_std": torch.ones(4), "d_mean": torch.zeros(4), "d_std": torch.full((4,), 0.1)}
    net["K"] /= 0.1
    return model, fresh_meta(model, Theta(net, norm, {}), 0.5)


def cost(s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
    return s_next[..., :2].square().sum(-1) + 0.1 * s_next[..., 2:].square().sum(-1)


GAINS = np.array(
    [[1.0, 1.0], [-1.0, 1.0], [0.3, 0.5]]
)  # what the motors make of an action: the second robot's is reversed


def move(s: np.ndarray, a: np.ndarray, gains: np.ndarray = GAINS) -> np.ndarray:
    u = a * gains
    return np.concatenate((s[:, :2] + DT * s[:, 2:] + DT**2 / 2 * u, s[:, 2:] + DT * u), 1)


START = np.array([[1.0, 0.5, 0.0, 0.0], [0.5, -1.0, 0.2, 0.0], [-1.0, 1.0, 0.0, 0.3]])


def make(name: str | Adapter = "effectiveness", ensemble: int = 1, **settings: Any) -> Controller:
    model, theta = exact(ensemble)
    adapter = make_adapter(name, model) if isinstance(name, str) else name
    one = torch.ones(2)
    guard = Guard(-one, one, torch.zeros(2))
    planner = ICEM(n_action=2, horizon=7, samples=24, elites=6)
    return Controller(
        **{"model": model, "theta": theta, "adapter": adapter, "planner": planner, "cost": cost, "guard": guard, "k": 6}
        | settings
    )


class Run:
    """A recorded run: what the controller saw, did, said and remembered."""

    def __init__(self) -> None:
        self.s: list[np.ndarray] = []
        self.a: list[np.ndarray] = []
        self.said: list[Diagnostics] = []
        self.memory: list[Memory] = []


def drive(controller: Controller, steps: int = STEPS, memory: Memory | None = None, s: np.ndarray = START) -> Run:
    run, memory = Run(), memory or controller.init(SEEDS)
    for _ in range(steps):
        run.s.append(s)
        a, memory, said = controller.step(memory, s)
        run.a.append(a)
        run.said.append(said)
        run.memory.append(memory)
        s = move(s, a)
    return run


def leaves(x: object) -> list[Tensor]:
    if x is None or isinstance(x, Tensor):
        return [] if x is None else [x]
    return [leaf for part in (x.values() if isinstance(x, dict) else x) for leaf in leaves(part)]


def same(x: object, y: object) -> bool:
    """Bit for bit; NaN equals NaN."""
    pairs = zip(leaves(x), leaves(y), strict=True)
    return all(p.shape == q.shape and torch.equal(p.nan_to_num(nan=7.25e9), q.nan_to_num(nan=7.25e9)) for p, q in pairs)
