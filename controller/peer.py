"""pytorch-mppi (UM-ARM-Lab; extra `bench`) on our network: Williams et al. 2017, alg. 2, as a torch user would run it."""

import importlib
import importlib.util
from importlib import metadata

import torch
from torch import Tensor, nn

from controller.workload import Size, Work, Workload
from dynamics.mlp import CLIP, MLP
from dynamics.types import Theta, as_phi
from planners.mppi import MPPI

PACKAGE, TESTED = "pytorch-mppi", "0.9.1"


def missing() -> str | None:
    """Why the peer cannot be measured, in one line; None if it can."""
    if importlib.util.find_spec("pytorch_mppi") is None:
        return f"{PACKAGE} is not installed: pip install {PACKAGE}=={TESTED}"
    return None


def version() -> str:
    return metadata.version(PACKAGE)


class Network(nn.Module):
    """The first member's network and its normalisers as modules, with the same result as MLP.predict's mean."""

    def __init__(self, model: MLP, theta: Theta):
        super().__init__()
        self.space, self.norm = model.space, theta.norm
        net = {name: w[0] for name, w in theta.net.items()}
        # Parameters of the body are 0 here: their rows are left out.
        known = model.n_in - model.body
        net["W0"] = net["W0"][:known]
        self.hidden = nn.ModuleList(_linear(net[f"W{i}"], net[f"b{i}"][0]) for i in range(model.depth))
        self.head = _linear(net["K"][: model.width + known], net["K"][-1])

    def forward(self, s: Tensor, a: Tensor) -> Tensor:
        """(n, s), (n, a) -> s_next (n, s)."""
        x = ((self.space.features(s) - self.norm["x_mean"]) / self.norm["x_std"]).clamp(-CLIP, CLIP)
        x = torch.cat((x, a), -1)
        h = x
        for layer in self.hidden:
            h = torch.relu(layer(h))
        y = self.head(torch.cat((h, x), -1)).clamp(-CLIP, CLIP)
        return self.space.retract(s, self.norm["d_mean"] + self.norm["d_std"] * y)


def _linear(w: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(w.shape[0], w.shape[1])
    layer.weight.data, layer.bias.data = w.mT.contiguous(), bias
    return layer


def command(w: Workload, size: Size, fast: bool) -> Work:
    """One call of its `command` a work. fast: with our float32 stepper as its dynamics instead of the module.

    Its own eager path (its `compile` was slower when tried), no gradient. It hands the cost the new state alone, so the
    dynamics keep the state before it: ours is a cost of transitions. It draws from torch's global generator.
    """
    ours = MPPI(w.model.space.n_action, size.horizon, size.samples)
    stepper, network = w.model.stepper(as_phi(w.theta)), Network(w.model, w.theta)
    before = w.s

    def dynamics(s: Tensor, a: Tensor) -> Tensor:
        nonlocal before
        before = s
        return stepper(s[None], a[None])[0] if fast else network(s, a)

    def cost(s_next: Tensor, a: Tensor) -> Tensor:
        return w.robot.cost(before, a, s_next)

    one = torch.ones(ours.n_action)
    planner = importlib.import_module("pytorch_mppi").MPPI(
        dynamics, cost, w.model.space.n_state, torch.diag(one * ours.std**2), num_samples=size.samples,
        horizon=size.horizon, lambda_=ours.temperature, u_min=ours.low * one, u_max=ours.high * one,
    )  # fmt: skip
    s = w.s[0]

    def work() -> None:
        with torch.no_grad():
            planner.command(s)

    return work
