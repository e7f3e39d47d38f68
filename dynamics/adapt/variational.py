"""A latent z with a Gaussian belief q(z) = N(mu, P), updated on every transition (Belkhale et al. 2021, Model-Based Meta-RL for Flight with
Suspended Payloads, with the run-time inference in closed form).

    y = g(x, a, z) + noise,     g = net(x, a, z) + (share(z_0) - share(0)) pull,     noise ~ N(0, c sigma^2 (1 + FAR far(x)))

far(x) is how far x is from where the network is trusted, squared (dynamics.residual.NEAR): sigma was learned inside, and rows from outside would
else be believed where the model is wrong.

Weights stay frozen; maximising the ELBO over q(z), given all transitions so far, is for a Gaussian noise and a g that is linear in z the
Kalman filter (here an extended one: g is linearised at mu, exact in z_0), so that a tick costs one transition, however long the flight. The
coordinates beside the load's may drift (an Ornstein-Uhlenbeck process with the prior as its stationary law), the load's may not: it changes at once,
when one is hooked on or dropped, which a cumulative sum over the normalised innovations notices (CUSUM: Page 1954, Continuous Inspection Schemes):

    G <- max(0, G + min(nu, CAP) - d - ALLOWANCE),   nu = e' S^-1 e of d outputs;   G > LIMIT: q(z) = prior, G = 0

The network speaks only where it is the better model. Beside it goes the nominal model with a load and nothing else, with its own belief about z_0
(recursive least squares with forgetting, KEEP a row). Each says what the next row will be before it learns from it, and the one whose surprises

    J <- MEMORY J + sum e^2 / (c sigma^2)

were smaller lately is what the plan is made with (Dawid 1984, The Prequential Approach). In still air the nominal model is exact and the network is
not: 0.1 m/s^2, 2 mm of tracking error where the path turns hardest, against 0.3 mm without it. A change surprises both, so nu is that of the less
surprised.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dynamics.mlp import MLP
from dynamics.residual import LEAST, MOST, N_OUT, N_SEEN, NEAR, SHARE, SPREAD, Rows, outputs
from dynamics.types import Params, Phi, Theta, Transitions

CAP, ALLOWANCE, LIMIT = 40.0, 6.0, 60.0
FAR = 4.0
KEEP, MEMORY = 0.98, 0.9  # a row: half a second and a tenth of one at 100 Hz
FRESH = 0.5  # deviation of the coordinates beside the load's when q(z) begins; they drift towards the prior's 1 (chosen on training loads)


class Belief(NamedTuple):
    mean: Tensor  # (b, n)
    cov: Tensor  # (b, n, n)
    alarm: Tensor  # (b,) G
    restarts: Tensor  # (b,) int64, how often a change was noticed
    there: Tensor  # (b,) bool, whether the newest row had a load
    plain: Tensor  # (b, 2) mean and variance of z_0 without the network
    scores: Tensor  # (b, 2) J without the network and with it


def explain(model: MLP, phi: Theta | Phi, t: Transitions, z: Tensor) -> tuple[Tensor, Tensor]:
    """What z (b, n) leaves of each row (b, k, .), and dg/dz: -> (b, k, 6), (b, k, n, 6) [m/s^2]. The ensemble's mean."""
    error, slope, there = _left(model, phi, t, z.numpy(), True)
    space = model.space
    jac = slope[..., N_SEEN : space.n_feature].swapaxes(-1, -2) * there[..., None, :]
    jac[..., 0, :3] += SPREAD * t.s_next.numpy()[..., -3:]
    return torch.as_tensor(error), torch.as_tensor(jac)


def far(theta: Theta, s: Tensor) -> Tensor:
    """(*b, Rows.n_state) -> (*b, 1)"""
    x = (s[..., :N_SEEN] - theta.norm["x_mean"][:N_SEEN]) / theta.norm["x_std"][:N_SEEN]
    return (x.abs() - NEAR).clamp_min(0).square().sum(-1, keepdim=True)


def left(model: MLP, phi: Theta | Phi, t: Transitions, z: Tensor) -> np.ndarray:
    """`explain` without dg/dz: (b, k, 6) [m/s^2]."""
    return _left(model, phi, t, z.numpy(), False)[0]


def _left(
    model: MLP, phi: Theta | Phi, t: Transitions, z: np.ndarray, slope: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    space = model.space
    assert isinstance(space, Rows)
    x, y = t.s.numpy(), t.s_next.numpy()
    mean, d = outputs(model, phi, x[..., :N_SEEN], z, t.a.numpy(), slope)
    there = np.ones_like(mean)
    there[..., 3:] = (x[..., 10:13] ** 2).sum(-1, keepdims=True) > 0  # as Rows.there
    error = (y[..., space.n_feature : space.n_feature + N_OUT] - mean) * there
    error[..., :3] -= (np.clip(SHARE + SPREAD * z[:, None, :1], LEAST, MOST) - SHARE) * y[..., -3:]
    return error, d, there


@dataclass(frozen=True)
class Variational:
    model: MLP

    @property
    def n_z(self) -> int:
        space = self.model.space
        assert isinstance(space, Rows)
        return space.n_z

    def meta(self, theta: Theta) -> Params:
        """Fresh meta parameters: log sigma of every output [m/s^2], inflation c of the noise's variance, what a coordinate keeps from
        tick to tick."""
        keep = torch.full((self.n_z,), 0.998)  # 5 s at 100 Hz; at 0.99 they take up a steady load's weight
        keep[0] = 1.0
        return {
            "variational.log_sigma": torch.zeros(self.model.space.n_delta),
            "variational.inflation": torch.tensor(4.0),
            "variational.keep": keep,
        }

    def init(self, theta: Theta, b: int) -> Belief:
        """The prior, but for coordinates beside the load's that begin nearer to 0: while the load hangs below the vehicle, a weight and a weak
        rotor look alike, and the weight is the likelier of the two where a load has just come."""
        mean = torch.zeros(b, self.n_z)
        cov = torch.diag(torch.tensor([1.0] + [FRESH**2] * (self.n_z - 1))).repeat(b, 1, 1)
        plain, no = torch.tensor([0.0, 1.0]).repeat(b, 1), torch.zeros(b, dtype=torch.bool)
        return Belief(mean, cov, torch.zeros(b), torch.zeros(b, dtype=torch.int64), no, plain, torch.zeros(b, 2))

    @torch.no_grad()
    def adapt(self, theta: Theta, carry: Belief, recent: Transitions) -> tuple[Phi, Belief]:
        """Takes the newest row. A load that is seen to come or go is a change that needs no test: q(z) returns to the prior, as a whole,
        because what the other coordinates found was found under the old load."""
        row = Transitions(*(x[:, -1:] for x in recent))
        seen = row.mask[:, 0]
        space = self.model.space
        assert isinstance(space, Rows)
        there = torch.where(seen, space.there(row.s)[:, 0, -1] > 0, carry.there)
        keep, prior = theta.meta["variational.keep"], self.init(theta, len(seen))
        mean = keep * carry.mean
        cov = keep[:, None] * carry.cov * keep + torch.diag_embed(1 - keep**2)
        other = there != carry.there
        mean = torch.where(other[:, None], prior.mean, mean)
        cov = torch.where(other[:, None, None], prior.cov, cov)
        noise = theta.meta["variational.inflation"] * (2 * theta.meta["variational.log_sigma"]).exp()
        noise = noise * (1 + FAR * far(theta, row.s[:, 0]))
        error, jac, spread = self._innovate(theta, row, mean, cov, noise)
        surprised = (error.square() / noise).sum(-1)
        surprise = (error * torch.linalg.solve(spread, error)).sum(-1)
        afresh = other[:, None]
        start = torch.where(afresh, prior.plain, carry.plain)
        plain, plainly, least = self._plain(row, start, noise)
        surprise = torch.minimum(surprise, least)
        alarm = (carry.alarm + surprise.clamp(max=CAP) - error.shape[-1] - ALLOWANCE).clamp_min(0.0)
        changed = seen & (alarm > LIMIT)
        if changed.any():
            mean = torch.where(changed[:, None], prior.mean, mean)
            cov = torch.where(changed[:, None, None], prior.cov, cov)
            error, jac, spread = self._innovate(theta, row, mean, cov, noise)
            surprised = (error.square() / noise).sum(-1)
        gain = torch.linalg.solve(spread, jac.mT @ cov).mT  # (b, n, 6)
        new_mean = mean + (gain @ error[..., None])[..., 0]
        new_cov = cov - gain @ (jac.mT @ cov)
        new_cov = (new_cov + new_cov.mT) / 2
        mean = torch.where(seen[:, None], new_mean, carry.mean)
        cov = torch.where(seen[:, None, None], new_cov, carry.cov)
        alarm = torch.where(seen, torch.where(changed, 0.0, alarm), carry.alarm)
        if changed.any():
            afresh = afresh | changed[:, None]
            plain, plainly, _ = self._plain(row, torch.where(afresh, prior.plain, start), noise)
        scores = torch.where(afresh, 0.0, carry.scores) * MEMORY + torch.stack((plainly, surprised), 1)
        plain, scores = (torch.where(seen[:, None], *x) for x in ((plain, carry.plain), (scores, carry.scores)))
        speaks = scores[:, 1:] < scores[:, :1]
        z = torch.where(speaks, mean, torch.cat((plain[:, :1], torch.zeros_like(mean[:, 1:])), 1))
        phi = Phi(theta.net, theta.norm, z=z, speaks=speaks[:, 0].float())
        return phi, Belief(mean, cov, alarm, carry.restarts + changed, there, plain, scores)

    def _plain(self, row: Transitions, plain: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One row (b, 1, .) of the nominal model with a load: -> the belief (b, 2) after it; how it surprised the one before, by the noise alone
        and as nu (b,)."""
        space = self.model.space
        assert isinstance(space, Rows)
        mean, known = plain[:, 0], KEEP / plain[:, 1]
        pull, there = space.pull(row.s_next)[:, 0], space.there(row.s)[:, 0]
        load = ((SHARE + SPREAD * mean).clamp(LEAST, MOST) - SHARE)[:, None] * pull
        error = space.local(row.s, row.s_next)[:, 0] * there - torch.cat((load, 0 * load), 1)
        slope, var = SPREAD * pull, noise[:, :3]
        told, along = (slope.square() / var).sum(1), (slope * error[:, :3] / var).sum(1)
        precision = (known + told).clamp_min(1.0)  # never less sure than the prior
        square = (error.square() / noise).sum(1)
        return (
            torch.stack((mean + along / precision, 1 / precision), 1),
            square,
            square - along.square() / (known + told),
        )

    def _innovate(
        self, theta: Theta, row: Transitions, mean: Tensor, cov: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """-> e (b, 6), dg/dz (b, n, 6), S (b, 6, 6)."""
        error, jac = (x[:, 0] for x in explain(self.model, theta, row, mean))
        return error, jac, jac.mT @ cov @ jac + torch.diag_embed(noise)
