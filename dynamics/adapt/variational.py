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
from functools import cached_property
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


class Row(NamedTuple):
    """The newest row of each robot, as arrays: a tick is some fifty operations on a few numbers each, and torch's take three times as long."""

    x: np.ndarray  # (b, 1, .)
    a: np.ndarray  # (b, 1, 4)
    y: np.ndarray  # (b, 1, .)

    @property
    def there(self) -> np.ndarray:
        """(b,) bool: a load."""
        return (self.x[:, 0, 10:13] ** 2).sum(1) > 0


def prior(n_z: int, b: int) -> Belief:
    """The prior, but for coordinates beside the load's that begin nearer to 0: while the load hangs below the vehicle, a weight and a weak
    rotor look alike, and the weight is the likelier of the two where a load has just come."""
    mean = torch.zeros(b, n_z)
    cov = torch.diag(torch.tensor([1.0] + [FRESH**2] * (n_z - 1))).repeat(b, 1, 1)
    plain, no = torch.tensor([0.0, 1.0]).repeat(b, 1), torch.zeros(b, dtype=torch.bool)
    return Belief(mean, cov, torch.zeros(b), torch.zeros(b, dtype=torch.int64), no, plain, torch.zeros(b, 2))


def explain(model: MLP, phi: Theta | Phi, t: Transitions, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What z (b, n) leaves of each row (b, k, .), and dg/dz: -> (b, k, 6), (b, k, n, 6) [m/s^2]. The ensemble's mean."""
    return _explain(model, phi, Row(t.s.numpy(), t.a.numpy(), t.s_next.numpy()), z)


def _explain(model: MLP, phi: Theta | Phi, rows: Row, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    error, slope, there = _left(model, phi, rows, z, True)
    jac = slope[..., N_SEEN : N_SEEN + z.shape[1]].swapaxes(-1, -2) * there[..., None, :]
    jac[..., 0, :3] += SPREAD * rows.y[..., -3:]
    return error, jac


def far(theta: Theta, x: np.ndarray) -> np.ndarray:
    """(*b, Rows.n_state) -> (*b, 1)"""
    mean, std = (theta.norm[name].numpy()[:N_SEEN] for name in ("x_mean", "x_std"))
    over = np.maximum(np.abs((x[..., :N_SEEN] - mean) / std) - NEAR, 0)
    return (over * over).sum(-1, keepdims=True)


def left(model: MLP, phi: Theta | Phi, rows: Row, z: np.ndarray) -> np.ndarray:
    """`explain`, in arrays and without dg/dz: rows (b, k, .), z (b, n) -> (b, k, 6) [m/s^2]."""
    return _left(model, phi, rows, z, False)[0]


def _left(
    model: MLP, phi: Theta | Phi, rows: Row, z: np.ndarray, slope: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, a, y = rows
    mean, d = outputs(model, phi, x[..., :N_SEEN], z, a, slope)
    there = np.ones_like(mean)
    there[..., 3:] = (x[..., 10:13] ** 2).sum(-1, keepdims=True) > 0  # as Rows.there
    error = (y[..., -N_OUT - 3 : -3] - mean) * there
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
        return prior(self.n_z, b)

    @cached_property
    def _prior(self) -> tuple[np.ndarray, ...]:
        """The arrays of a Belief of one robot, made once: they stand against any b, and are not to be written into."""
        return tuple(x.numpy() for x in prior(self.n_z, 1))

    def adapt(self, theta: Theta, carry: Belief, recent: Transitions) -> tuple[Phi, Belief]:
        """Takes the newest row. A load that is seen to come or go is a change that needs no test: q(z) returns to the prior, as a whole,
        because what the other coordinates found was found under the old load."""
        row = Row(*(x[:, -1:].numpy() for x in (recent.s, recent.a, recent.s_next)))
        seen = recent.mask[:, -1].numpy()
        was = [x.numpy() for x in carry]
        old_mean, old_cov, old_alarm, restarts, had, old_plain, old_scores = was
        keep, c, log_sigma = (
            theta.meta[f"variational.{x}"].detach().numpy() for x in ("keep", "inflation", "log_sigma")
        )
        prior_mean, prior_cov, _, _, _, prior_plain, _ = self._prior
        there = np.where(seen, row.there, had)
        other = there != had
        mean = np.where(other[:, None], prior_mean, keep * old_mean)
        cov = np.where(other[:, None, None], prior_cov, keep[:, None] * old_cov * keep + np.diag(1 - keep * keep))
        noise = c * np.exp(2 * log_sigma) * (1 + FAR * far(theta, row.x[:, 0]))
        error, surprised, surprise, gain, told = self._innovate(theta, row, mean, cov, noise)
        afresh = other
        start = np.where(afresh[:, None], prior_plain, old_plain)
        plain, plainly, least = self._plain(row, start, noise)
        nu = np.minimum(np.minimum(surprise, least), np.float32(CAP))
        alarm = np.maximum(old_alarm + nu - error.shape[-1] - ALLOWANCE, 0)
        changed = seen & (alarm > LIMIT)
        if changed.any():
            mean = np.where(changed[:, None], prior_mean, mean)
            cov = np.where(changed[:, None, None], prior_cov, cov)
            error, surprised, _, gain, told = self._innovate(theta, row, mean, cov, noise)
            afresh = afresh | changed
            plain, plainly, _ = self._plain(row, np.where(afresh[:, None], prior_plain, start), noise)
        mean = mean + (gain @ error[..., None])[..., 0]
        cov = cov - gain @ told
        cov = (cov + cov.swapaxes(1, 2)) / 2
        scores = np.where(afresh[:, None], 0, old_scores) * MEMORY + np.stack((plainly, surprised), 1)
        new = (mean, cov, np.where(changed, 0, alarm), restarts + changed, there, plain, scores)
        if not seen.all():
            new = (np.where(seen.reshape(-1, *[1] * (x.ndim - 1)), x, o) for x, o in zip(new, was, strict=True))
        belief = Belief(*(torch.from_numpy(x.astype(o.dtype, copy=False)) for x, o in zip(new, was, strict=True)))
        speaks = belief.scores[:, 1:] < belief.scores[:, :1]
        z = torch.where(speaks, belief.mean, torch.nn.functional.pad(belief.plain[:, :1], (0, self.n_z - 1)))
        return Phi(theta.net, theta.norm, z=z, speaks=speaks[:, 0].float()), belief

    def _plain(self, row: Row, plain: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One row of the nominal model with a load: -> the belief (b, 2) after it; how it surprised the one before, by the noise alone and as
        nu (b,)."""
        mean, known = plain[:, 0], KEEP / plain[:, 1]
        y, pull = row.y[:, 0, -N_OUT - 3 : -3], row.y[:, 0, -3:]
        error = y.copy()
        error[:, 3:] *= row.there[:, None]
        error[:, :3] -= (np.clip(SHARE + SPREAD * mean, LEAST, MOST) - SHARE)[:, None] * pull
        slope, var = SPREAD * pull, noise[:, :3]
        told, along = (slope * slope / var).sum(1), (slope * error[:, :3] / var).sum(1)
        precision = np.maximum(known + told, 1)  # never less sure than the prior
        square = (error * error / noise).sum(1)
        return (
            np.stack((mean + along / precision, 1 / precision), 1),
            square,
            square - along * along / (known + told),
        )

    def _innovate(
        self, theta: Theta, row: Row, mean: np.ndarray, cov: np.ndarray, noise: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        """-> e (b, 6), how it surprises by the noise alone (b,) and as nu (b,), the gain (b, n, 6), dg/dz' P (b, 6, n)."""
        error, jac = (x[:, 0] for x in _explain(self.model, theta, row, mean))
        told = jac.swapaxes(1, 2) @ cov
        spread = told @ jac
        each = np.arange(spread.shape[1])
        spread[:, each, each] += noise
        solved = np.linalg.solve(spread, np.concatenate((error[..., None], told), 2))
        surprise = (error * solved[..., 0]).sum(1)
        return error, (error * error / noise).sum(1), surprise, solved[..., 1:].swapaxes(1, 2), told
