"""The types that flow between the parts. Shapes: *b any batch, k context length, s state, a action, d delta, e ensemble."""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

Params = dict[str, Tensor]


class Transitions(NamedTuple):
    """The last k transitions, oldest first."""

    s: Tensor  # (*b, k, s)
    a: Tensor  # (*b, k, a), as commanded
    s_next: Tensor  # (*b, k, s)
    mask: Tensor  # (*b, k) bool; False pads a short history


class Theta(NamedTuple):
    """The meta-learned model. Never mutated.

    net   the network's weights: see MLP.init
    norm  means and standard deviations of features and deltas, fitted once and kept with the weights
    meta  what the adapters learned across tasks, keyed `<adapter>.<name>`: inner rates, prior precisions
    value the cost-to-go behind the planner's horizon: see dynamics.value; empty where none was learned
    risk  the chance of a fall that a plan pays for: see dynamics.risk; likewise
    """

    net: Params
    norm: Params
    meta: Params
    value: Params = {}  # noqa: RUF012 (a NamedTuple's default, never mutated)
    risk: Params = {}  # noqa: RUF012


class Phi(NamedTuple):
    """The model re-fitted to the present. Tensors of `net` are theta's own, or carry a leading robot dimension b.

    gain  (b, a + m) or None: the effect of each motor as a factor of the one theta knows, then the m parameters of the body (MLP.body)
    z     (b, n) or None: the latent that the network is conditioned on (dynamics.adapt.variational)
    speaks (b,) or None: the share of the network's residual that counts (dynamics.adapt.variational)
    """

    net: Params
    norm: Params
    gain: Tensor | None = None
    z: Tensor | None = None
    speaks: Tensor | None = None


class Gaussian(NamedTuple):
    """A diagonal Gaussian over the delta, in delta units."""

    mean: Tensor  # (*b, d)
    std: Tensor  # (*b, d)


class Adapter(Protocol):
    """phi = adapt(theta, recent), with a carry for those that remember. Pure."""

    def init(self, theta: Theta, b: int) -> Any: ...

    def adapt(self, theta: Theta, carry: Any, recent: Transitions) -> tuple[Phi, Any]: ...


def as_phi(theta: Theta) -> Phi:
    """The model without adaptation."""
    return Phi(theta.net, theta.norm)


def map_params(f: Any, params: Params) -> Params:
    return {name: f(value) for name, value in params.items()}


def detach(theta: Theta) -> Theta:
    return Theta(*(map_params(torch.Tensor.detach, group) for group in theta))
