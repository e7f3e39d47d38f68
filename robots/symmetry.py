"""The ant's symmetries: four quarter turns about the vertical and their mirror images, eight in all.

Turning or mirroring the body permutes the legs, and flips the joints whose axes in ant.xml point the other way round. The true physics
agree to rounding (tests/contracts/test_symmetry.py), so one recorded transition of a healthy ant is eight. A broken ant is another
matter: the mirror image of a broken leg 0 is a broken leg 3, so recordings of dead, weak and reversed motors are left as they are: no motor that
training did not break is seen broken. Those of a short leg are turned with their parameters of the body: one short leg teaches all four.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from robots.condition import motors_of_leg


class Symmetry(NamedTuple):
    """Signed permutation matrices: features (x, x), actions (a, a), deltas (d, d), parameters of the body (m, m); x' = features @ x and so on."""

    features: Tensor
    action: Tensor
    delta: Tensor
    body: Tensor

    @property
    def directed(self) -> Tensor:
        """As features, for FloatingBase.directed: the body turns under a world that stays, so f turns as u does."""
        return torch.block_diag(self.features, self.features[1:4, 1:4])

    def then(self, other: "Symmetry") -> "Symmetry":
        return Symmetry(*(b @ a for a, b in zip(self, other, strict=True)))


def _joints(to: dict[int, int], hip: int, ankle: dict[int, int]) -> Tensor:
    """Leg l's joints become leg to[l]'s, hips times `hip`, ankles times ankle[l]. -> (8, 8) in joint order."""
    matrix = torch.zeros(8, 8)
    for leg, target in to.items():
        matrix[2 * target, 2 * leg] = hip
        matrix[2 * target + 1, 2 * leg + 1] = ankle[leg]
    return matrix


def _lift(joints: Tensor, vector: Tensor, pseudo: Tensor) -> Symmetry:
    """From what happens to joints, vectors (u, v, displacement) and pseudovectors (w, rotation) in body coordinates."""
    motor = torch.zeros(8, 8)  # joint order -> motor order
    for leg in range(4):
        hip, ankle = motors_of_leg(leg)
        motor[hip, 2 * leg] = motor[ankle, 2 * leg + 1] = 1
    return Symmetry(
        torch.block_diag(torch.ones(1, 1), vector, joints, vector, pseudo, joints),
        motor @ joints @ motor.T,
        torch.block_diag(vector, pseudo, joints, vector, pseudo, joints),
        joints[::2, ::2].abs(),  # a leg's shortness goes where its hip goes
    )


@cache
def ant() -> tuple[Symmetry, ...]:
    """The eight symmetries, the identity first."""
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    mirror = torch.diag(torch.tensor([1.0, -1.0, 1.0]))  # y -> -y; pseudovectors also change sign
    turn = _lift(_joints({0: 1, 1: 2, 2: 3, 3: 0}, 1, {0: -1, 1: 1, 2: -1, 3: 1}), quarter, quarter)
    flip = _lift(_joints({0: 3, 3: 0, 1: 2, 2: 1}, -1, dict.fromkeys(range(4), 1)), mirror, -mirror)
    turns = [Symmetry(torch.eye(26), torch.eye(8), torch.eye(28), torch.eye(4))]
    for _ in range(3):
        turns.append(turns[-1].then(turn))
    return tuple(turns + [flip.then(t) for t in turns])
