"""Symmetric images of rows: those of really transformed states, and only of rows whose body is known."""

import torch
from small_model import SPACE, make_theta
from torch import Tensor

from dynamics import data, objectives
from dynamics.mlp import MLP
from robots.ant import Ant
from robots.symmetry import ant


def test_rows_are_seen_as_images_where_all_of_the_body_is_told_and_believed(walk):
    """A loss over rows of a short leg, of which training has been told all, of a leg without torque, whose gains are inferred, and of a short leg
    to which a model is fitted that knows of no gains: only the first is seen mirrored."""
    model = MLP(SPACE, 8, 1, body=4)
    theta = make_theta(model, walk, symmetric=True)
    s, a, s_next = (x.float().flatten(0, 1) for x in walk[:3])
    short = torch.tensor(Ant.tell("leg-short:1"))
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Watched(MLP):
        def psi(self, net, x):
            seen.append((x[0].detach(), net["K"]))
            return super().psi(net, x)

    watched = Watched(SPACE, 8, 1, body=4)
    for told, gain, mirrored in (
        (short, short, True),
        (torch.tensor(Ant.tell("leg:1")), short, False),
        (short, model.neutral, False),
    ):
        n = len(s)
        rows = data.Rows(
            s, a, s_next, torch.arange(n) // 40, torch.zeros(n).long(), torch.zeros(n) > 0, told.expand(n, -1),
            torch.arange(n) // 40 == 7,
        )  # fmt: skip
        gains = gain.expand(8, -1)
        seen.clear()
        loss = objectives.regression(watched, theta.norm, rows, gains, objectives.Sampler.of(rows), 400, ant())
        loss(objectives.split(theta), torch.Generator().manual_seed(0))
        bodies = seen[0][0][:, -4:].unique(dim=0)
        assert len(bodies) == (4 if mirrored else 1) and (bodies.sum(1) == gain[8:].sum()).all()


def test_images_are_the_features_and_targets_of_really_transformed_states(walk):
    model = MLP(SPACE, 16, 2, body=4)
    theta = make_theta(model, walk, symmetric=True)
    s, a, s_next = (x.float().flatten(0, 1) for x in walk[:3])
    a = torch.cat((a, torch.rand(len(a), 4, generator=torch.Generator().manual_seed(2))), 1)
    x, y = model.inputs(theta, s, a), model.target(theta, s, s_next)
    allowed = torch.arange(len(s)) % 3 > 0
    at = torch.randperm(len(s), generator=torch.Generator().manual_seed(0))
    x_image, y_image = objectives.Images(ant(), allowed, 4)(at, x[at], y[at], torch.Generator().manual_seed(1))
    # The states themselves are transformed: the body axes of a turned or mirrored robot, its joints renamed.
    candidates = []
    for g in ant():
        turned = [_image(g, z[at]) for z in (s, s_next)]
        acts = torch.cat((a[at, :8] @ g.action.T, a[at, 8:] @ g.body.T), 1)
        candidates.append((model.inputs(theta, turned[0], acts), model.target(theta, *turned)))
    close = torch.stack(
        [((x_image - i).abs().amax(1) < 1e-3) & ((y_image - j).abs().amax(1) < 1e-3) for i, j in candidates]
    )
    assert (close.sum(0) == 1).all()  # each is an image, and of one symmetry alone
    assert close[0, ~allowed[at]].all()  # a row that is not of the healthy robot stays as it is
    share = close[:, allowed[at]].float().mean(1)
    assert (share > 0.06).all() and (share < 0.2).all()  # all eight are drawn, 1/8 each


def _image(g, s: Tensor) -> Tensor:
    """(n, 31) -> (n, 31). The mirror image of a robot that moves to its left moves to its right."""
    x = SPACE.features(s) @ g.features.T
    f = s[:, 3:6] @ g.features[1:4, 1:4].T
    y = s[:, 1:2] * torch.linalg.det(g.features[1:4, 1:4])
    return torch.cat((s[:, :1], y, x[:, :1], f, x[:, 1:]), -1)
