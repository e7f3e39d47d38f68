"""The dynamics model: a functional ensemble of MLPs that predicts the delta, with a Gaussian head.

    x   = (normalised features(s), g * a, p)                 g: motor gains, 1 unless adapted; p: parameters of the body, 0 likewise
    h   = relu(W3 relu(W2 relu(W1 x)))
    psi = (h, x, 1)
    delta = mu + sigma * (K^T psi),   log std = V^T psi (clamped)

The last layer sees x beside h, so that a change which is linear in state or action needs K alone (what the closed-form adapters move).
A parameter of the body (a leg's shortness, say) enters as an action that is always 1 and whose gain is 0: what finds the gains of motors finds it
too.
Weights carry an ensemble dimension e first; weights adapted per robot carry b before it.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dynamics import fused
from dynamics.types import Gaussian, Params, Phi, Theta
from robots.space import StateSpace
from robots.symmetry import Symmetry

LOG_STD = (-5.0, 2.0)
CLIP = 15.0  # normalised features and deltas beyond this many standard deviations are not believed


def mul(h: Tensor, w: Tensor) -> Tensor:
    """(b, e | 1, n, i) @ weights (e, i, o) or (b, e, i, o) -> (b, e, n, o), as one matrix product where weights are shared."""
    if w.dim() == 4:
        return h @ w
    if w.shape[0] == 1:
        return h @ w[0]
    b, e, n, i = h.shape
    flat = h.transpose(0, 1).reshape(e, b * n, i) @ w
    return flat.view(w.shape[0], b, n, -1).transpose(0, 1)


def _split(width: int, n_in: int) -> tuple[slice, slice, slice]:
    """Of psi = (h, x, 1)."""
    return slice(0, width), slice(width, width + n_in), slice(width + n_in, None)


def _mean(x: np.ndarray) -> np.ndarray:
    """(b, e, ...) -> (b, ...). numpy's own takes longer over one member than the products before it."""
    return x[:, 0] if x.shape[1] == 1 else x.mean(1)


@dataclass(frozen=True)
class MLP:
    space: StateSpace
    width: int = 256
    depth: int = 3
    ensemble: int = 1
    body: int = 0
    """parameters of the body the network is conditioned on"""

    @property
    def n_acting(self) -> int:
        """Numbers in what acts: a gain for each motor, then the parameters of the body."""
        return self.space.n_action + self.body

    @property
    def n_in(self) -> int:
        return self.space.n_feature + self.n_acting

    @property
    def neutral(self) -> Tensor:
        """(n_acting,) the gains and parameters of the body that theta is of."""
        return torch.cat((torch.ones(self.space.n_action), torch.zeros(self.body)))

    @property
    def n_psi(self) -> int:
        return self.width + self.n_in + 1

    def init(self, rng: torch.Generator) -> Params:
        """W{i} (e, in, out), b{i} (e, 1, out); K, V (e, n_psi, d). He initialisation (He et al. 2015); the heads start near 0.
        Parameters of the body mean nothing yet: their rows are 0, and the others are those of a network without."""
        known = self.n_in - self.body
        sizes = [known] + [self.width] * self.depth
        net: Params = {}
        for i, (n, m) in enumerate(itertools.pairwise(sizes)):
            net[f"W{i}"] = torch.randn(self.ensemble, n, m, generator=rng) * (2.0 / n) ** 0.5
            net[f"b{i}"] = torch.zeros(self.ensemble, 1, m)
        n = self.n_psi - self.body
        net["K"] = torch.randn(self.ensemble, n, self.space.n_delta, generator=rng) * 0.1 / n**0.5
        net["V"] = torch.zeros(self.ensemble, n, self.space.n_delta)
        return self.widened(net) if self.body else net

    def widened(self, net: Params) -> Params:
        """The weights of a network without parameters of the body as weights of this one, to which they mean nothing yet."""

        def insert(w: Tensor, at: int) -> Tensor:
            return torch.cat((w[..., :at, :], w.new_zeros(*w.shape[:-2], self.body, w.shape[-1]), w[..., at:, :]), -2)

        known = self.n_in - self.body
        return net | {"W0": insert(net["W0"], known)} | {n: insert(net[n], self.width + known) for n in ("K", "V")}

    def fit_norm(self, s: Tensor, s_next: Tensor, symmetries: Sequence[Symmetry] = ()) -> Params:
        """Normalisers from data (n, .), and from its images under the robot's symmetries. Fitted once: stored data and weights
        keep their meaning as data grow."""
        x, d = self.space.features(s), self.space.local(s, s_next)
        if symmetries:
            x = torch.cat([x @ g.features.T for g in symmetries])
            d = torch.cat([d @ g.delta.T for g in symmetries])
        return {
            "x_mean": x.mean(0), "x_std": x.std(0).clamp_min(1e-3),
            "d_mean": d.mean(0), "d_std": d.std(0).clamp_min(1e-4),
        }  # fmt: skip

    def acting(self, a: Tensor, gain: Tensor | None) -> Tensor:
        """Commands (*b, a), gains and parameters of the body (*b, n_acting) or None -> (*b, n_acting) what acts. What is that wide already is taken
        for what acted."""
        if not self.body:
            return a if gain is None else a * gain
        missing = (0, self.n_acting - a.shape[-1])
        if gain is None:
            return torch.nn.functional.pad(a, missing)
        return torch.nn.functional.pad(a, missing, value=1.0) * gain

    def inputs(self, phi: Phi | Theta, s: Tensor, a: Tensor) -> Tensor:
        """(*b, s), (*b, a) or (*b, n_acting) -> (*b, n_in). The action as it acts, were every motor at theta's strength: gains are the caller's."""
        x = (self.space.features(s) - phi.norm["x_mean"]) / phi.norm["x_std"]
        return torch.cat((x.clamp(-CLIP, CLIP), self.acting(a, None)), -1)

    def psi(self, net: Params, x: Tensor) -> Tensor:
        """(b, n, n_in) -> (b, e, n, n_psi), with weights (e, ., .) or (b, e, ., .)."""
        h = x = x[:, None]
        for i in range(self.depth):
            h = torch.relu(mul(h, net[f"W{i}"]) + net[f"b{i}"])
        x = x.expand(-1, self.ensemble, -1, -1)
        return torch.cat((h, x, torch.ones_like(h[..., :1])), -1)

    def expand(self, net: Params, x: np.ndarray, slope: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """(b, n, n_in) -> the ensemble's mean (b, n, d) and, unless it is not asked for (then empty), its Jacobian by x (b, n, d, n_in),
        normalised. For few rows at a time, with no gradient: reverse mode written out, in numpy, where an operation this small takes a
        fifth of torch's time."""
        weights = {name: w.detach().numpy() for name, w in net.items() if name != "V"}
        inputs, on = x[:, None], []
        h = inputs
        for i in range(self.depth):
            out = h @ weights[f"W{i}"] + weights[f"b{i}"]
            on.append((out > 0)[..., None, :])
            h = np.maximum(out, 0)
        by_h, by_x, by_1 = (weights["K"][..., at, :] for at in _split(self.width, self.n_in))
        y = _mean(h @ by_h + inputs @ by_x + by_1)
        if not slope:
            return y, np.empty(0)
        d = by_h.swapaxes(-1, -2)[..., None, :, :] * on[-1]  # (b, e, n, d, width)
        for i in reversed(range(self.depth)):
            rows = d.reshape(*d.shape[:2], -1, self.width) @ weights[f"W{i}"].swapaxes(-1, -2)
            d = rows.reshape(*d.shape[:-1], -1)
            d = d * on[i - 1] if i else d + by_x.swapaxes(-1, -2)[..., None, :, :]
        return y, _mean(d)

    def target(self, phi: Phi | Theta, s: Tensor, s_next: Tensor) -> Tensor:
        """(*b, s), (*b, s) -> (*b, d) normalised delta."""
        y = (self.space.local(s, s_next) - phi.norm["d_mean"]) / phi.norm["d_std"]
        return y.clamp(-CLIP, CLIP)

    def normalised(self, phi: Phi, s: Tensor, a: Tensor) -> Tensor:
        """(b, n, s), (b, n, a) -> (b, e, n, d): each member's prediction of the normalised delta."""
        a = self.acting(a, None if phi.gain is None else phi.gain[:, None])
        return mul(self.psi(phi.net, self.inputs(phi, s, a)), phi.net["K"])

    def predict(self, phi: Phi, s: Tensor, a: Tensor) -> Gaussian:
        """(b, n, s), (b, n, a) -> Gaussian (b, n, d): the ensemble's mixture, matched in its first two moments
        (Lakshminarayanan et al. 2017, eq. 2)."""
        a = self.acting(a, None if phi.gain is None else phi.gain[:, None])
        psi = self.psi(phi.net, self.inputs(phi, s, a))
        mean = mul(psi, phi.net["K"])
        var = (2 * mul(psi, phi.net["V"]).clamp(*LOG_STD)).exp()
        total = var.mean(1) + mean.var(1, correction=0)
        return Gaussian(phi.norm["d_mean"] + phi.norm["d_std"] * mean.mean(1), phi.norm["d_std"] * total.sqrt())

    def stepper(self, phi: Phi, dtype: torch.dtype = torch.float32) -> Callable[[Tensor, Tensor], Tensor]:
        """-> predict(s (b, n, s), a (b, n, a)) -> s_next (b, n, s), for the planner's hot loop.

        The ensemble's mean is not taken: candidates are dealt to the members in turn, so an ensemble costs what one model
        costs. Everything inside is feature-major, (feature, b, n): features, state and delta are then rows, which are cut
        and joined without a copy. Weights are cast once and buffers reused. Only for planning: no gradient.
        In float32 and without an ensemble it is one function in C (dynamics.fused), where the machine can compile it.
        """
        if self.ensemble == 1 and dtype == torch.float32:
            quick = fused.stepper(self.space, self.width, self.depth, phi, self.neutral, CLIP)
            if quick is not None:
                return quick
        e, space, norm = self.ensemble, self.space, phi.norm
        mean, inv_std, d_mean, d_std = (
            v[:, None, None] for v in (norm["x_mean"], 1 / norm["x_std"], norm["d_mean"], norm["d_std"])
        )
        n_action = space.n_action
        gain = None if phi.gain is None else phi.gain.mT[:n_action, :, None]
        # Parameters of the body do not change along a plan: they are rows that are written once.
        body = torch.zeros(self.body, 1, 1) if phi.gain is None else phi.gain.mT[n_action:, :, None]

        members = [self._member(phi.net, i, dtype, body) for i in range(e)]

        @torch.inference_mode()
        def predict(s: Tensor, a: Tensor) -> Tensor:
            s = s.movedim(-1, 0).contiguous().movedim(0, -1)
            x = (space.features(s).movedim(-1, 0) - mean).mul_(inv_std).clamp_(-CLIP, CLIP)
            a = a.movedim(-1, 0) if gain is None else a.movedim(-1, 0) * gain
            if e == 1:
                y = members[0](x, a).float()
            else:
                y = torch.empty(space.n_delta, *x.shape[1:])
                for i, member in enumerate(members):
                    y[..., i::e] = member(x[..., i::e], a[..., i::e])
            return space.retract(s, torch.addcmul(d_mean, y.clamp_(-CLIP, CLIP), d_std).movedim(0, -1))

        return predict

    def _member(self, net: Params, i: int, dtype: torch.dtype, body: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """body (m, 1 | b, 1) -> f(x (f, b, n), a (a, b, n)) -> normalised delta (d, b, n) of member i, valid until the next call."""
        width, n_feature, n_delta = self.width, self.space.n_feature, self.space.n_delta
        # psi ends in (x, 1), which is the first layer's input too: its bias is a row of its weights.
        first = _own(torch.cat((net["W0"], net["b0"]), -2), i, dtype)
        layers = [(_own(net[f"W{j}"], i, dtype), _own(net[f"b{j}"], i, dtype)) for j in range(1, self.depth)]
        # Zeros below the head: products with a multiple of 16 rows are quicker.
        head = _own(torch.nn.functional.pad(net["K"], (0, -n_delta % 16)), i, dtype)
        # The 1 of psi. NaN or infinite weights make it NaN, and so reach the delta through a relu that may hide them.
        sums = (w.sum((-2, -1)) for w in (first, *(w for layer in layers for w in layer)))
        one = 1 + 0 * sum(sums, torch.zeros(())).view(-1, 1)
        buffers: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor, list[Layer]]] = {}

        def allocate(b: int, n: int) -> tuple[Tensor, Tensor, Tensor, list[Layer]]:
            psi, hidden, y = (torch.empty(rows, b, n, dtype=dtype) for rows in (self.n_psi, width, head.shape[-2]))
            psi[-1] = one
            psi[psi.shape[0] - 1 - self.body : -1] = body
            plan, h = [], psi[width:]
            for j, (w, bias) in enumerate([(first, None), *layers]):
                out = psi[:width] if (self.depth - j) % 2 else hidden  # in turn, so that the last layer writes into psi
                plan.append(Layer(w, bias, _facing(w, h), _facing(w, out), _bits(out)))
                h = out
            plan.append(Layer(head, None, _facing(head, psi), _facing(head, y), None))
            acting = psi[width + n_feature : width + n_feature + self.space.n_action]
            return psi[width : width + n_feature], acting, y[:n_delta], plan

        def forward(x: Tensor, a: Tensor) -> Tensor:
            size = (x.shape[1], x.shape[2])
            if size not in buffers:
                buffers[size] = allocate(*size)
            x_row, a_row, y, plan = buffers[size]
            x_row.copy_(x)
            a_row.copy_(a)
            for layer in plan:
                layer.apply()
            return y

        return forward


class Layer(NamedTuple):
    """out = relu(w h + bias) in place, all as from `_own` and `_facing`."""

    w: Tensor
    bias: Tensor | None
    h: Tensor
    out: Tensor
    rectified: Tensor | None  # `_bits` of out; None for no relu

    def apply(self) -> None:
        shared = self.w.dim() == 2
        if self.bias is None:
            (torch.mm if shared else torch.bmm)(self.w, self.h, out=self.out)
        else:
            (torch.addmm if shared else torch.baddbmm)(self.bias, self.w, self.h, out=self.out)
        if self.rectified is not None:
            self.rectified.relu_()


def _own(w: Tensor, i: int, dtype: torch.dtype) -> Tensor:
    """Member i of weights (e, i, o) or (b, e, i, o) -> (o, i) where all robots share them, (b, o, i) where each has its
    own."""
    w = w[i] if w.dim() == 3 else w[:, i]
    w = (w[0] if w.dim() == 3 and w.shape[0] == 1 else w).mT
    # Products of bfloat16 are slower through a transposed view, by more than the copy takes; those of float32 are not.
    return w if w.dtype == dtype else w.to(dtype).contiguous()


def _facing(w: Tensor, h: Tensor) -> Tensor:
    """h (i, b, n) as weights from `_own` can multiply it, without a copy: (i, b n) or (b, i, n)."""
    return h.view(h.shape[0], -1) if w.dim() == 2 else h.transpose(0, 1)


def _bits(h: Tensor) -> Tensor:
    """A view of h whose relu is h's: a bfloat16 is negative where the int16 of the same bits is, and the relu of integers takes
    a fifth of the time. It sends a NaN with its sign bit set to 0."""
    return h.view(torch.int16) if h.dtype == torch.bfloat16 else h
