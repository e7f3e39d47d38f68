"""Which model plans: phi where it is better, theta where phi is worse or not finite; the errors told are those of the model in force."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from point import GAINS, SEEDS, START, STEPS, B, drive, exact, leaves, make, move

from controller.guard import OK, THETA
from dynamics.adapt.frozen import Frozen
from dynamics.adapt.gradient import OnlineSGD
from dynamics.mlp import MLP
from dynamics.types import Phi, Theta, Transitions, as_phi


def test_a_carry_that_diverges_starts_again():
    model, theta = exact()
    wild = theta._replace(meta=theta.meta | {"online-sgd.log_rate": torch.tensor(6.0)})
    controller = make(OnlineSGD(model), theta=wild)
    run = drive(controller, 30)
    fresh = controller.adapter.init(wild, B)
    diverged = 0
    for memory, said in zip(run.memory, run.said, strict=True):
        assert all(x.isfinite().all() for x in leaves((memory.carry, memory.phi)))
        diverged += int((said.event == THETA).sum())
    again = [all(torch.equal(m.carry[n][i], w[i]) for n, w in fresh.items()) for m in run.memory[1:] for i in SEEDS]
    assert diverged > STEPS and any(again) and not all(again)


@dataclass(frozen=True)
class Worse:
    """An adapter that is wrong about the robots in `whom`."""

    model: MLP
    how: str
    whom: Sequence[int]

    def init(self, theta: Theta, b: int) -> None:
        return None

    def adapt(self, theta: Theta, carry: None, recent: Transitions) -> tuple[Phi, None]:
        b = recent.mask.shape[0]
        wrong = torch.zeros(b, dtype=torch.bool)
        wrong[list(self.whom)] = True
        wrong &= recent.mask.any(1)  # without a context there is nothing to judge it by
        if self.how == "gain":
            return Phi(theta.net, theta.norm, torch.where(wrong[:, None], -2.0, 1.0).expand(b, 2)), None
        w = theta.net["K"].expand(b, -1, -1, -1)
        bad = {"reversed": -w, "nan": w * torch.nan, "inf": w / 0}[self.how]
        return Phi(theta.net | {"K": torch.where(wrong[:, None, None, None], bad, w)}, theta.norm), None


@pytest.mark.parametrize("how", ["gain", "reversed", "nan", "inf"])
def test_where_phi_is_worse_than_theta_theta_plans(how):
    healthy = np.ones((B, 2))
    model, _ = exact()
    bad, frozen = make(Worse(model, how, (0, 2))), make(Frozen(model))
    memory, memory_frozen, s = bad.init(SEEDS), frozen.init(SEEDS), START
    for t in range(STEPS):
        a, memory, said = bad.step(memory, s)
        b, memory_frozen, _ = frozen.step(memory_frozen, s)
        np.testing.assert_allclose(a, b, atol=1e-4)
        if t > 0:
            assert said.event.tolist() == [THETA, OK, THETA]
            assert all(x.isfinite().all() for x in leaves(memory.phi))
        s = move(s, b, healthy)


def test_where_phi_is_better_phi_plans():
    run = drive(make("effectiveness"), 30)
    assert (run.said[-1].event[1:] == OK).all()
    np.testing.assert_allclose(run.memory[-1].phi.gain, GAINS, atol=0.3)
    # The reversed motor: adapted, the robot stands at the origin; frozen, it flees from it.
    frozen = drive(make("frozen"), 30)
    assert np.abs(run.s[-1][1, 0]) < 0.3 and np.abs(frozen.s[-1][1, 0]) > 1


def test_errors_are_those_of_the_model_in_force_on_what_came_next():
    controller = make("effectiveness")
    run = drive(controller)
    assert np.isnan(run.said[0].error_before).all() and np.isnan(run.said[0].error_after).all()
    for t in range(1, STEPS):
        s, a, s_next = (torch.as_tensor(x).float()[:, None] for x in (run.s[t - 1], run.a[t - 1], run.s[t]))
        for phi, said in (
            (as_phi(controller.theta), run.said[t].error_before), (run.memory[t - 1].phi, run.said[t].error_after),
        ):  # fmt: skip
            error = controller.model.normalised(phi, s, a)[:, 0, 0] - controller.model.target(phi, s, s_next)[:, 0]
            np.testing.assert_allclose(said, error.square().mean(-1).sqrt(), atol=1e-5)
