"""What the nominal model lacks, learned: a slung load of unknown mass and a network on top of the nominal equations.

    s' = nominal(s, a, m(z_0)) + dt (0, 0, R dt/2 e_v, e_v, 0, 0, 0, e_rd)          e = (e_v, e_rd) = net(x, a, z)  [m/s^2], body coordinates

z is a latent with prior N(0, 1) whose first coordinate is the load, by a fixed link on its share of the total mass,

    m / (m + m_vehicle) = share(z_0) = max(SHARE + SPREAD z_0, LEAST)

in which the nominal acceleration is linear (dynamics.nominal), so that Gaussian beliefs about it stay Gaussian. What the other coordinates mean
is learned. x is invariant: u, v, w, T / m, the cable's direction, rd, and c, what the cable adds; never position or heading. With the
network at zero the model is the nominal one, exactly.

Learning sees rows (x, z = 0; a; y): y is the acceleration that the nominal model lacks at z = 0. So dynamics.mlp and the adapters, which know of
spaces and transitions alone, take rows as they take an ant's transitions (`Rows`).
"""

from dataclasses import dataclass
from functools import cached_property

import casadi
import numpy as np
import torch
from torch import Tensor

from dynamics.mlp import CLIP, MLP
from dynamics.nominal import PRESENT, Nominal
from dynamics.types import Phi, Theta, Transitions
from native.symbolic import Symbolic
from robots.space import rotation
from robots.vehicle import Vehicle

# [deviations of a feature over training] how far the network is trusted. Swings go up to ten times as far, and beyond its data a network says
# anything: there it fades, by 1 / (1 + far), far the squared distance from where it is trusted, and the nominal model stays.
NEAR = 4.0
SHARE, SPREAD, LEAST, MOST = 0.15, 0.1, 1e-3, 0.5  # of the load in the total mass: prior mean and deviation, bounds
N_OUT = 6  # e_v, e_rd
N_SEEN = 19  # features of state alone


def share(z: Tensor) -> Tensor:
    """(*b, n_z) -> (*b, 1) the load's share of the total mass."""
    return (SHARE + SPREAD * z[..., :1]).clamp(LEAST, MOST)


@dataclass(frozen=True)
class Rows:
    """The space of rows (robots.space.StateSpace). A row's state is (x, z, y, pull): features; what the nominal model lacks; dy_v / dshare,
    negated. A transition (s, s_next) of rows has x, z in s and y, pull in s_next."""

    n_z: int
    n_action: int = 4

    native = None

    @property
    def n_feature(self) -> int:
        return N_SEEN + self.n_z

    @property
    def n_delta(self) -> int:
        return N_OUT

    @property
    def n_state(self) -> int:
        return self.n_feature + N_OUT + 3

    def features(self, s: Tensor) -> Tensor:
        return s[..., : self.n_feature]

    def directed(self, s: Tensor) -> Tensor:
        return self.features(s)

    def local(self, s: Tensor, s_next: Tensor) -> Tensor:
        return s_next[..., self.n_feature : self.n_feature + N_OUT]

    def pull(self, s_next: Tensor) -> Tensor:
        """(*b, s) -> (*b, 3) [m/s^2]"""
        return s_next[..., -3:]

    def there(self, s: Tensor) -> Tensor:
        """(*b, s) -> (*b, 6) 1 for the outputs that mean something: those of the load are 0 without one."""
        load = (s[..., 10:13].square().sum(-1, keepdim=True) > 0).float()
        return torch.cat((torch.ones_like(load).expand(*load.shape[:-1], 3), load.expand(*load.shape[:-1], 3)), -1)

    def retract(self, s: Tensor, delta: Tensor) -> Tensor:
        return torch.cat((self.features(s), delta, s[..., -3:]), -1)


def outputs(
    mlp: MLP, phi: Phi | Theta, seen: np.ndarray, z: np.ndarray, a: np.ndarray, slope: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """phi's network: features of state alone (b, n, N_SEEN), latents (b, n_z), actions (b, n, 4) -> e (b, n, 6) [m/s^2] as if there were a
    load, and its Jacobian by all of these (b, n, 6, N_SEEN + n_z + 4), empty where it is not asked for."""
    x_mean, x_std, d_mean, d_std = (phi.norm[name].numpy() for name in ("x_mean", "x_std", "d_mean", "d_std"))
    k = N_SEEN + z.shape[1]
    x = np.empty((*seen.shape[:2], k + a.shape[2]), np.float32)
    x[..., :N_SEEN], x[..., N_SEEN:k], x[..., k:] = seen, z[:, None], a
    features = x[..., :k]
    features -= x_mean
    features /= x_std
    over = features - np.minimum(np.maximum(features, -NEAR), NEAR)
    features -= over
    trust = _spoken(phi, 1 / (1 + (over * over).sum(-1, keepdims=True)))
    y, d = mlp.expand(phi.net, x, slope)
    e = trust * (d_mean + d_std * np.minimum(np.maximum(y, -CLIP), CLIP))
    if slope:
        d = d * (trust * d_std * (np.abs(y) <= CLIP))[..., None]
        d[..., :k] = (d[..., :k] * (over == 0)[..., None, :] - e[..., None] * (2 * trust * over)[..., None, :]) / x_std
    return e, d


def _spoken(phi: Phi | Theta, trust: np.ndarray) -> np.ndarray:
    """(b, n, 1) -> what of it is left by Phi.speaks."""
    speaks = phi.speaks if isinstance(phi, Phi) else None
    return trust if speaks is None else trust * speaks.numpy()[:, None, None]


@dataclass(frozen=True)
class Residual:
    """States (., 22) with a load, which is seen or filtered. n_z: coordinates of the latent, the load's among them."""

    vehicle: Vehicle
    mlp: MLP
    n_z: int

    @cached_property
    def nominal(self) -> Nominal:
        return Nominal(self.vehicle, load=True)

    @cached_property
    def _quick(self) -> Symbolic:
        return Symbolic(self._expected)

    @cached_property
    def _expected(self) -> casadi.Function:
        """(s, a) -> s_next at share SHARE, d v_next / d share (3)."""
        s, a, f = casadi.SX.sym("s", 22), casadi.SX.sym("a", 4), self.nominal.symbolic()
        mass = [self.vehicle.mass_kg * x / (1 - x) for x in (SHARE, 0.5)]
        at = [f(s, a, m) for m in mass]
        both = at[0], (at[1] - at[0])[9:12] / (0.5 - SHARE)
        return casadi.Function("expected", [s, a], [casadi.densify(x) for x in both], {"cse": True})

    def mass(self, z: Tensor) -> Tensor:
        """(*b, n_z) -> (*b, 1) [kg]"""
        return self.vehicle.mass_kg * share(z) / (1 - share(z))

    def features(self, s: Tensor, z: Tensor) -> Tensor:
        """(*b, 22), (*b, n_z) -> (*b, n_feature)."""
        m, w_drag = self.vehicle.mass_kg, s.new_tensor(self.vehicle.drag_n_s_per_m) / self.vehicle.mass_kg
        u, v, w, thrust, r, rd = s[..., 6:].split([3, 3, 3, 1, 3, 3], -1)
        force = torch.cat((-w_drag[:2] * v[..., :2], thrust / m - w_drag[2] * v[..., 2:]), -1)
        length2 = r.square().sum(-1, keepdim=True)
        there = length2 > PRESENT**2
        inverse = torch.where(
            there, 1 / torch.where(there, length2, torch.ones_like(length2)), torch.zeros_like(length2)
        )
        c = (rd.square().sum(-1, keepdim=True) - (r * force).sum(-1, keepdim=True)) * inverse * r
        x = torch.cat((u, v, w, thrust / m, r * inverse.sqrt(), rd, c), -1)
        return torch.cat((x, z[..., : self.mlp.space.n_feature - N_SEEN]), -1)

    def lacking(self, phi: Phi, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """phi's network: (b, n, 22), (b, n, 4), (b, n, n_z) -> (b, n, 6) e [m/s^2]. Nothing acts on a load that is not there."""
        e = self._network(phi, self.features(s, z), a)
        there = s[..., 16:19].square().sum(-1, keepdim=True) > PRESENT**2
        return torch.cat((e[..., :3], e[..., 3:] * there), -1)

    def _network(self, phi: Phi, x: Tensor, a: Tensor) -> Tensor:
        """Features (b, n, n_feature), (b, n, 4) -> e (b, n, 6) as if there were a load; it fades beyond NEAR."""
        norm = phi.norm
        x = (x - norm["x_mean"]) / norm["x_std"]
        near = x.clamp(-NEAR, NEAR)
        y = (self.mlp.psi(phi.net, torch.cat((near, a), -1)) @ phi.net["K"]).mean(1)
        trust = 1 / (1 + (x - near).square().sum(-1, keepdim=True))
        trust = trust if phi.speaks is None else trust * phi.speaks[:, None, None]
        return trust * (norm["d_mean"] + norm["d_std"] * y.clamp(-CLIP, CLIP))

    def expand(
        self, phi: Phi, s: np.ndarray, a: np.ndarray, z: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`lacking` to first order: (b, n, 22), (b, n, 4), (b, n_z) -> e (b, n, 6), its Jacobian by the tangent of s (b, n, 6, 19) and by a
        (b, n, 6, 4). Written out: a tenth of autograd's time."""
        e, slope = outputs(self.mlp, phi, self._seen(s), z, a)
        gone = (s[..., 16:19] ** 2).sum(-1) <= PRESENT**2
        e[gone, 3:] = slope[gone, 3:] = 0
        return e, slope[..., :N_SEEN] @ self._slope(s), slope[..., self.mlp.space.n_feature :]

    def add(self, phi: Phi, s: np.ndarray, a: np.ndarray, z: np.ndarray) -> np.ndarray:
        """`lacking` for one state of each robot: (b, 22), (b, 4), (b, n_z) -> e (b, 6)."""
        e = outputs(self.mlp, phi, self._seen(s)[:, None], z, a[:, None], slope=False)[0][:, 0]
        e[(s[:, 16:19] ** 2).sum(1) <= PRESENT**2, 3:] = 0
        return e

    def push(self, phi: Phi, s: np.ndarray, a: np.ndarray, z: np.ndarray) -> np.ndarray:
        """(b, 22), (b, 4), (b, n_z) -> (b, 3) what the network adds to the acceleration of vehicle and load together, in body coordinates [m/s^2]."""
        e = outputs(self.mlp, phi, self._seen(s)[:, None], z, a[:, None], slope=False)[0][:, 0]
        loaded = (s[:, 16:19] ** 2).sum(1, keepdims=True) > PRESENT**2
        return e[:, :3] + loaded * np.clip(SHARE + SPREAD * z[:, :1], LEAST, MOST) * e[:, 3:]

    def _seen(self, s: np.ndarray) -> np.ndarray:
        """(*b, 22) -> the features of state alone (*b, N_SEEN)."""
        _, inverse, size = self._cable(s)
        r = s[..., 16:19]
        return np.concatenate(
            (s[..., 6:15], s[..., 15:16] / self.vehicle.mass_kg, np.sqrt(inverse) * r, s[..., 19:], size * r), -1
        )

    def _cable(self, s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(*b, 22) -> F (*b, 3), 1 / |r|^2 (*b, 1), c / r (*b, 1), the latter two 0 without a load."""
        m, r, rd = self.vehicle.mass_kg, s[..., 16:19], s[..., 19:]
        force = s[..., 9:12] * (-np.array(self.vehicle.drag_n_s_per_m) / m)
        force[..., 2] += s[..., 15] / m
        length2 = (r * r).sum(-1, keepdims=True)
        there = length2 > PRESENT**2
        inverse = there / np.where(there, length2, 1.0)
        return force, inverse, (rd * rd - r * force).sum(-1, keepdims=True) * inverse

    def _slope(self, s: np.ndarray) -> np.ndarray:
        """The Jacobian of `_seen` by the tangent of s: (*b, N_SEEN, 19)."""
        force, inverse, size = self._cable(s)
        m, u, r, eye = self.vehicle.mass_kg, s[..., 6:9], s[..., 16:19], np.eye(3)
        along = inverse * r
        d = np.zeros((*s.shape[:-1], N_SEEN, 19))
        # By turning: u' = u x turned. Velocities, body rates, T and the load are plain vectors.
        d[..., 0, 4], d[..., 0, 5] = -u[..., 2], u[..., 1]
        d[..., 1, 3], d[..., 1, 5] = u[..., 2], -u[..., 0]
        d[..., 2, 3], d[..., 2, 4] = -u[..., 1], u[..., 0]
        d[..., range(3, 9), range(6, 12)] = 1
        d[..., 9, 12] = 1 / m
        d[..., 10:13, 13:16] = np.sqrt(inverse)[..., None] * (eye - r[..., None] * along[..., None, :])
        d[..., range(13, 16), range(16, 19)] = 1
        # c = r (|rd|^2 - r . F) / |r|^2
        drag = np.array(self.vehicle.drag_n_s_per_m) / m
        by_r = -inverse * force - 2 * size * along
        by = np.concatenate((along * drag, -along[..., 2:] / m, by_r, 2 * inverse * s[..., 19:]), -1)
        d[..., 16:, [6, 7, 8, 12, 13, 14, 15, 16, 17, 18]] = r[..., None] * by[..., None, :]
        d[..., 16:, 13:16] += size[..., None] * eye
        return d

    def error(self, phi: Phi, t: Transitions, z: Tensor) -> Tensor:
        """What phi and z (b, n_z) leave of rows (b, k, .) -> (b, k, 6) [m/s^2]."""
        space = self.mlp.space
        assert isinstance(space, Rows)
        x = torch.cat((t.s[..., :N_SEEN], z[:, None].expand(-1, t.s.shape[1], -1)), -1)
        y = self._network(phi, x, t.a)
        load = (share(z) - share(0 * z))[:, None] * space.pull(t.s_next)
        return (space.local(t.s, t.s_next) - y - torch.cat((load, 0 * load), -1)) * space.there(t.s)

    def predict(self, phi: Phi, s: Tensor, a: Tensor, z: Tensor) -> Tensor:
        """(b, n, 22), (b, n, 4), (b, n, n_z) -> (b, n, 22) a control period later."""
        dt = self.vehicle.dt
        e, s_next = self.lacking(phi, s, a, z), self.nominal.predict(s, a, self.mass(z))
        moved = (rotation(s) @ e[..., :3, None])[..., 0] * (dt**2 / 2)
        p, fu, v, rest, r, rd = s_next.split([3, 6, 3, 4, 3, 3], -1)
        return torch.cat((p + moved, fu, v + dt * e[..., :3], rest, r, rd + dt * e[..., 3:]), -1)

    def rows(self, s: np.ndarray, a: np.ndarray, s_next: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Transitions of the robot (n, .) -> of rows: s, s_next (n, Rows.n_state), and whether they teach anything (n,) bool: not while a
        load appears, vanishes or is slack."""
        dt, space = self.vehicle.dt, self.mlp.space
        # `Symbolic` keeps room for every number of points; without it a single one takes five times as long.
        expected, slope = self._quick(s, a) if len(s) == 1 else (np.asarray(x).T for x in self._expected(s.T, a.T))
        y = (s_next - expected)[:, [9, 10, 11, 19, 20, 21]] / dt
        was, now = (np.linalg.norm(x[:, 16:19], axis=1) for x in (s, s_next))
        good = (np.abs(was - now) < SLACK) & np.isfinite(y).all(1)
        x = np.zeros((len(s), space.n_state), np.float32)
        x[:, :N_SEEN] = self._seen(s)
        x_next = x.copy()
        x_next[:, -N_OUT - 3 :] = np.nan_to_num(np.concatenate((y, slope / dt), 1))
        return torch.as_tensor(x), torch.as_tensor(x_next), torch.as_tensor(good)


SLACK = 1e-3  # [m] in one control period: a taut cable keeps its length to a hundredth of that
