"""Adaptation by gradient steps on the context.

    L(theta; recent) = 1 / (k d) sum_t || y_t - f_theta(s_t, a_t) ||^2          y: normalised delta
    GrBAL (Nagabandi, Clavera et al. 2019, eq. 3 and alg. 2):  phi <- theta - alpha grad L(theta), every tick from theta
    online SGD (dynamic evaluation, Krause et al. 2018):       phi <- phi   - alpha grad L(phi),   every tick from the last phi

alpha is learned per tensor, in meta training, for GrBAL (Li et al. 2017, Meta-SGD); a scalar for online SGD.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dynamics.mlp import MLP, mul
from dynamics.types import Params, Phi, Theta, Transitions

ADAPTED = ("W", "b", "K")  # the variance head V stays theta's


def context_loss(model: MLP, net: Params, norm: Params, recent: Transitions) -> Tensor:
    """-> (b,) mean squared error over each robot's unmasked context; 0 where there is none."""
    x = model.inputs(Theta(net, norm, {}), recent.s, recent.a)
    y = model.target(Theta(net, norm, {}), recent.s, recent.s_next)
    error = (mul(model.psi(net, x), net["K"]) - y[:, None]).square().mean((1, 3))  # (b, k)
    mask = recent.mask.float()
    return (error * mask).sum(1) / mask.sum(1).clamp_min(1)


def expand(net: Params, b: int) -> Params:
    """Weights (e, ., .) -> (b, e, ., .), for the tensors that adapt."""
    return {n: w.expand(b, *w.shape) if n.startswith(ADAPTED) else w for n, w in net.items()}


def descend(
    model: MLP, net: Params, norm: Params, recent: Transitions, rate: dict[str, Tensor], differentiable: bool
) -> Params:
    """One step for every robot's own weights (b, e, ., .). differentiable keeps the graph for meta training."""
    names = [n for n in net if n.startswith(ADAPTED)]
    with torch.enable_grad():
        if not differentiable:
            net = {n: w.detach().requires_grad_(n in names) for n, w in net.items()}
        loss = context_loss(model, net, norm, recent).sum()
        grads = torch.autograd.grad(loss, [net[n] for n in names], create_graph=differentiable)
    new = dict(net)
    for n, g in zip(names, grads, strict=True):
        new[n] = net[n] - rate[n] * g
    return new if differentiable else {n: w.detach() for n, w in new.items()}


INNER_STEPS = "grbal.steps"  # a checkpoint says for how many its rates were trained


@dataclass(frozen=True)
class GrBAL:
    model: MLP
    steps: int = 1

    def meta(self, theta: Theta) -> Params:
        """Fresh meta parameters: a log inner rate for each tensor."""
        return {f"grbal.log_rate.{n}": torch.tensor(-3.0) for n in theta.net if n.startswith(ADAPTED)}  # 0.05

    def init(self, theta: Theta, b: int) -> None:
        return None

    def adapt(self, theta: Theta, carry: None, recent: Transitions) -> tuple[Phi, None]:
        return self.fit(theta, recent, differentiable=False), None

    def fit(self, theta: Theta, recent: Transitions, differentiable: bool) -> Phi:
        prefix = "grbal.log_rate."
        rate = {n[len(prefix) :]: v.exp() for n, v in theta.meta.items() if n.startswith(prefix)}
        net = expand(theta.net, recent.mask.shape[0])
        for _ in range(self.steps):
            net = descend(self.model, net, theta.norm, recent, rate, differentiable)
        return Phi(net, theta.norm)


@dataclass(frozen=True)
class OnlineSGD:
    model: MLP

    def meta(self, theta: Theta) -> Params:
        return {"online-sgd.log_rate": torch.tensor(-4.6)}  # 0.01

    def init(self, theta: Theta, b: int) -> Params:
        """Every robot's own copy of the tensors that adapt."""
        return {n: w.clone() for n, w in expand(theta.net, b).items() if n.startswith(ADAPTED)}

    def adapt(self, theta: Theta, carry: Params, recent: Transitions) -> tuple[Phi, Params]:
        rate = dict.fromkeys(carry, theta.meta["online-sgd.log_rate"].exp())
        net = descend(self.model, theta.net | carry, theta.norm, recent, rate, differentiable=False)
        return Phi(net, theta.norm), {n: net[n] for n in carry}
