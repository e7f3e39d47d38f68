"""No adaptation: phi = theta. The control of every experiment."""

from dataclasses import dataclass

from dynamics.mlp import MLP
from dynamics.types import Phi, Theta, Transitions, as_phi


@dataclass(frozen=True)
class Frozen:
    model: MLP

    def init(self, theta: Theta, b: int) -> None:
        return None

    def adapt(self, theta: Theta, carry: None, recent: Transitions) -> tuple[Phi, None]:
        return as_phi(theta), None
