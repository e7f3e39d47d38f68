"""The work that is timed: adapt, rollout, plan and step of one robot, as closures over one network and one recorded walk.
Used by `sealegs bench` and by benchmarks/."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from controller.config import (
    ControllerConfig,
    PlannerConfig,
    assemble,
    check_learned,
    make_adapter,
    make_planner,
    weights_of,
)
from dynamics import checkpoint
from dynamics.adapt.effectiveness import Effectiveness
from dynamics.adapt.gradient import GrBAL, OnlineSGD
from dynamics.adapt.last_layer import LastLayer
from dynamics.mlp import MLP
from dynamics.types import Params, Theta, Transitions, as_phi
from planners.mppi import MPPI
from planners.rollout import evaluate
from robots.ant import Ant
from robots.condition import HEALTHY

Work = Callable[[], Any]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Size:
    samples: int
    horizon: int

    def __str__(self) -> str:
        return f"{self.samples} x {self.horizon}"


class Workload(NamedTuple):
    """A network and what it is run on: the `walk` (m, k + 2, s) of m healthy robots under random `actions` (m, k + 1, a)."""

    robot: Ant
    loaded: checkpoint.Checkpoint
    walk: Tensor
    actions: Tensor
    k: int
    weights: str  # where they come from

    @property
    def model(self) -> MLP:
        return self.loaded.model

    @property
    def theta(self) -> Theta:
        return self.loaded.theta

    @property
    def s(self) -> Tensor:
        """(1, s) where the first robot stands after k + 1 steps."""
        return self.walk[:1, self.k + 1]

    @property
    def recent(self) -> Transitions:
        """(1, k, .) the first robot's last k transitions."""
        now = self.walk[:1, 1 : self.k + 1], self.actions[:1, 1 : self.k + 1], self.walk[:1, 2 : self.k + 2]
        return Transitions(*now, torch.ones(1, self.k, dtype=torch.bool))


def make(seed: int, path: Path | None, *, k: int = 32, robots: int = 16, width: int = 256, depth: int = 3) -> Workload:
    """path: a checkpoint; None takes the shipped weights, or random ones of this width and depth where none are shipped.
    Raises CheckpointError."""
    robot, rng = Ant(threads=1), torch.Generator().manual_seed(seed)
    start = robot.reset([HEALTHY] * robots, range(seed, seed + robots))
    actions = candidates(robot.space.n_action, Size(robots, k + 1), [rng])[0]
    states = robot.rollout(actions.double().numpy())
    walk = torch.as_tensor(np.concatenate((start[:, None], states), 1), dtype=torch.float32)
    shipped = weights_of(robot.name, ControllerConfig().adapter)
    if path is None and not shipped.exists():
        model, before, after = MLP(robot.space, width, depth), walk[:, :-1], walk[:, 1:]
        norm = model.fit_norm(before.flatten(0, 1), after.flatten(0, 1))
        loaded, weights = checkpoint.Checkpoint(model, Theta(model.init(rng), norm, {}), {}), "random"
    else:
        loaded = checkpoint.load(path or shipped, robot.name, robot.space)
        weights = str(path or shipped)
    theta = loaded.theta._replace(meta=_fresh_meta(loaded.model, loaded.theta) | loaded.theta.meta)
    loaded = loaded._replace(theta=theta)
    for name in ("online-sgd", "grbal", "last-layer", "effectiveness"):
        check_learned(name, loaded)
    return Workload(robot, loaded, walk, actions, k, weights)


def _fresh_meta(model: MLP, theta: Theta) -> Params:
    """Every adapter's meta parameters before meta-training: a checkpoint carries those of the adapters it was made for."""
    meta: Params = {"effectiveness.sigma": torch.ones(model.space.n_delta)}
    for kind in (OnlineSGD, GrBAL, LastLayer, Effectiveness):
        meta |= kind(model).meta(theta)
    return meta


def adapt(w: Workload, name: str) -> Work:
    adapter = make_adapter(name, w.model)
    carry, recent = adapter.init(w.theta, 1), w.recent
    return lambda: adapter.adapt(w.theta, carry, recent)


def rollout(w: Workload, size: Size, dtype: torch.dtype) -> Work:
    """Candidates' costs, the weights being cast already."""
    predict = w.model.stepper(as_phi(w.theta), dtype)
    actions = candidates(w.model.space.n_action, size, [torch.Generator().manual_seed(0)])
    return lambda: evaluate(predict, w.robot.cost, w.s, actions)


def plan(w: Workload, size: Size, dtype: torch.dtype) -> Work:
    """The default planner, from weights to actions."""
    config = PlannerConfig(samples=size.samples, horizon=size.horizon)
    planner = make_planner(config, w.model.space.n_action)
    memory, rng, phi = planner.init(1), torch.Generator().manual_seed(0), as_phi(w.theta)
    return lambda: planner.plan(memory, w.model.stepper(phi, dtype), w.s, w.robot.cost, [rng])


def mppi(w: Workload, size: Size, dtype: torch.dtype) -> Work:
    """One iteration of MPPI: what the peer is compared with."""
    planner = MPPI(w.model.space.n_action, size.horizon, size.samples)
    memory, rng, phi = planner.init(1), torch.Generator().manual_seed(0), as_phi(w.theta)
    return lambda: planner.plan(memory, w.model.stepper(phi, dtype), w.s, w.robot.cost, [rng])


def step(w: Workload, size: Size, precision: str) -> Work:
    """The default controller, with a full context window: state in, action out."""
    config = ControllerConfig(k=w.k, precision="float32" if precision == "float32" else "bfloat16")
    config = replace(config, planner=replace(config.planner, samples=size.samples, horizon=size.horizon))
    controller = assemble(w.robot, config, w.loaded)
    memory = controller.init([0])
    memory = memory._replace(recent=w.recent, last_s=w.walk[:1, w.k])
    state = w.s.numpy()
    return lambda: controller.step(memory, state)


def gemm(w: Workload, rows: int, repeat: int, dtype: torch.dtype) -> Work:
    """The network's products for this many rows, `repeat` times, and nothing else: the limit at these shapes."""
    sizes = [w.model.n_in] + [w.model.width] * w.model.depth
    shapes = [*pairwise(sizes), (w.model.n_psi, w.model.space.n_delta)]
    rng = torch.Generator().manual_seed(0)
    triples = [
        tuple(torch.randn(shape, generator=rng).to(dtype) for shape in ((rows, i), (i, o), (rows, o)))
        for i, o in shapes
    ]

    def work() -> None:
        for _ in range(repeat):
            for x, y, out in triples:
                torch.mm(x, y, out=out)

    return work


def candidates(n_action: int, size: Size, rngs: list[torch.Generator]) -> Tensor:
    """(b, n, h, a) as a planner draws them around zero, one generator a robot."""
    planner = MPPI(n_action, size.horizon, size.samples)
    return (planner.std * planner.noise(size.samples, rngs)).clamp(planner.low, planner.high)
