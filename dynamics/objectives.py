"""What training minimises: closures over a dataset, `loss(params, rng)`, for dynamics.train.fit.

params are the trainable tensors of a theta, named net.* and meta.*; see split and join.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dynamics.adapt.gradient import GrBAL
from dynamics.adapt.last_layer import LastLayer
from dynamics.data import DataError, Rows, window
from dynamics.losses import multi_step
from dynamics.mlp import LOG_STD, MLP, mul
from dynamics.train import Loss
from dynamics.types import Params, Phi, Theta, Transitions, as_phi
from robots.symmetry import Symmetry

# A processor without vector instructions for it takes 46 times as long for a product of bfloat16s as for one of float32s (AVX2, 512 x 256 x 256).
HALVED = torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def split(theta: Theta) -> Params:
    """theta -> its trainable tensors: the network and the adapters' meta parameters. The normaliser is fixed."""
    return {f"net.{n}": w for n, w in theta.net.items()} | {f"meta.{n}": w for n, w in theta.meta.items()}


def join(params: Params, norm: Params) -> Theta:
    """The inverse of split."""
    groups: dict[str, Params] = {"net": {}, "meta": {}}
    for name, w in params.items():
        group, _, key = name.partition(".")
        groups[group][key] = w
    return Theta(groups["net"], norm, groups["meta"])


@dataclass(frozen=True)
class Sampler:
    """Draws row numbers: half from all rows, half from the newest quarter of shards, where the planner goes now. `favouring`: before that, a share of
    them from rows that matter more.

    Episodes that are kept for validation (dynamics.data.held_out) are never drawn.
    """

    train: Tensor  # (n,) row numbers
    recent: Tensor  # (m,)
    held_out: Tensor  # (v,)
    newest: float = 0.5  # share from `recent` of what is not from `marked`
    marked: Tensor | None = None  # (k,)
    share: float = 0.0  # of what is drawn that is from `marked`

    @staticmethod
    def of(rows: Rows, newest: float = 0.5) -> "Sampler":
        """Raises DataError where there are too few episodes to keep one."""
        if (episodes := int(rows.episode.max()) + 1) < 8:
            raise DataError(
                f"the dataset has {episodes} episode(s); valid: 8 or more, of which one in eight is held out"
            )
        held = rows.held_out
        late = rows.shard > rows.shard.max() * 3 // 4 if rows.shard.max() else torch.ones_like(held)
        train, recent = ((~held & among).nonzero()[:, 0] for among in (torch.ones_like(held), late))
        # A newest shard of one episode may be held out whole.
        return Sampler(train, recent if len(recent) else train, held.nonzero()[:, 0], newest)

    def favouring(self, rows: Tensor, share: float) -> "Sampler":
        """A share of what is drawn from those of these row numbers that are not held out; none where all are."""
        marked = rows[~torch.isin(rows, self.held_out)]
        return replace(self, marked=marked, share=share if len(marked) else 0.0)

    def draw(self, count: int, rng: torch.Generator) -> Tensor:
        def some(rows: Tensor, n: int) -> Tensor:
            return rows[torch.randint(len(rows), (n,), generator=rng, device="cpu")]

        favoured = int(count * self.share) if self.marked is not None else 0
        part = int((count - favoured) * self.newest)
        drawn = [some(self.train, count - favoured - part), some(self.recent, part)]
        return torch.cat([*drawn, some(self.marked, favoured)] if self.marked is not None and favoured else drawn)


class Images:
    """Random images of normalised rows, with `body` parameters of the body, under the robot's symmetries. These are signed permutations, and a
    normaliser fitted with them commutes with them, so an image is a gather and a sign."""

    def __init__(self, symmetries: Sequence[Symmetry], allowed: Tensor, body: int = 0):
        x = torch.stack([torch.block_diag(g.features, g.action, g.body[:body, :body]) for g in symmetries])
        d = torch.stack([g.delta for g in symmetries])
        self._x, self._d = (m.abs().argmax(-1) for m in (x, d))
        self._x_sign, self._d_sign = x.sum(-1), d.sum(-1)
        self._allowed, self._count = allowed, len(symmetries)

    def __call__(self, at: Tensor, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        g = torch.randint(self._count, (len(at),), generator=rng, device="cpu").to(at.device)
        g = torch.where(self._allowed[at], g, 0)
        return x.gather(1, self._x[g]) * self._x_sign[g], y.gather(1, self._d[g]) * self._d_sign[g]


def regression(
    model: MLP,
    norm: Params,
    rows: Rows,
    gains: Tensor,
    sampler: Sampler,
    batch: int,
    symmetries: Sequence[Symmetry] = (),
) -> Loss:
    """One-step squared error, the action taken as it acted (gains (episodes, n_acting)); features and targets are computed once, products run
    in bfloat16 on float32 weights where that is quicker. With symmetries, each row whose gains and body are those that were told (Rows.told) is
    seen as one of its images, at random; the normaliser must have been fitted with them."""
    known = Theta({}, norm, {})
    x = model.inputs(known, rows.s, model.acting(rows.a, gains[rows.episode]))
    y = model.target(known, rows.s, rows.s_next)
    whole = (rows.told[:, : model.n_acting] == gains[rows.episode]).all(1)  # never where something is NaN
    image = Images(symmetries, whole, model.body) if symmetries else None

    def loss(params: Params, rng: torch.Generator) -> Tensor:
        net = join(params, norm).net
        at = sampler.draw(batch, rng)
        with torch.autocast("cpu", torch.bfloat16, enabled=HALVED):
            xs, ys = (x[at], y[at]) if image is None else image(at, x[at], y[at], rng)
            psi = model.psi(net, xs[None])
            mean = mul(psi, net["K"])[0].float()
        with torch.no_grad():
            z2 = (ys - mean).square()
        # The variance head learns from detached features: it must not trade the mean's accuracy for a wider variance.
        log_std = mul(psi.detach().float(), net["V"])[0].clamp(*LOG_STD)
        nll = (0.5 * z2 * (-2 * log_std).exp() + log_std).mean()
        return (ys - mean).square().mean() + 0.1 * nll

    return loss


def rollout(model: MLP, norm: Params, rows: Rows, gains: Tensor, sampler: Sampler, batch: int, horizon: int) -> Loss:
    """Squared error of the model fed its own predictions for `horizon` steps."""

    def loss(params: Params, rng: torch.Generator) -> Tensor:
        at = sampler.draw(batch, rng)
        _, future = window(rows, at, 0, horizon)
        mse, nll = multi_step(model, Phi(join(params, norm).net, norm, gains[rows.episode[at]]), future)
        return mse + 0.1 * nll

    return loss


def windowed(model: MLP, phi: Phi, ahead: Transitions, horizon: int) -> Tensor:
    """Mean squared error over a window: one-step, or of the model fed its own predictions where horizon > 1."""
    if horizon > 1:
        return multi_step(model, phi, ahead)[0]
    error = model.normalised(phi, ahead.s, ahead.a) - model.target(phi, ahead.s, ahead.s_next)[:, None]
    per = error.square().mean((1, 3)) * ahead.mask
    return per.sum() / ahead.mask.sum().clamp_min(1)


def plain(
    model: MLP, norm: Params, rows: Rows, sampler: Sampler, batch: int, horizon: int
) -> tuple[Loss, Callable[[Params], float]]:
    """Regression on the actions as commanded, whatever the motors made of them: what a model that does not adapt is trained on."""

    def at_rows(params: Params, at: Tensor) -> tuple[Tensor, Tensor]:
        _, ahead = window(rows, at, 0, horizon)
        return multi_step(model, as_phi(join(params, norm)), ahead)

    def loss(params: Params, rng: torch.Generator) -> Tensor:
        mse, nll = at_rows(params, sampler.draw(batch, rng))
        return mse + 0.1 * nll

    def validate(params: Params) -> float:
        at = sampler.held_out[:: max(1, len(sampler.held_out) // 2048)]
        with torch.no_grad():
            return float(at_rows(params, at)[0])

    return loss, validate


def meta(
    model: MLP,
    adapter: GrBAL | LastLayer,
    norm: Params,
    rows: Rows,
    sampler: Sampler,
    windows: int,
    past: int,
    future: int,
    horizon: int = 1,
) -> tuple[Loss, Callable[[Params], float]]:
    """The error on what follows the context, after adapting to it (Nagabandi, Clavera et al. 2019, eq. 2), plus a third of the error without
    adapting, which keeps theta itself a usable model. -> loss, validation on held-out windows (after adaptation alone).

    past: transitions adapted to (a random number of them is masked, so that short contexts work too); future: transitions predicted.
    """

    def after(theta: Theta, at: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        before, ahead = window(rows, at, past, future)
        length = torch.randint(0, past + 1, (len(at), 1), generator=rng, device="cpu").to(at.device)
        mask = before.mask & (torch.arange(past, 0, -1) <= length)
        before = before._replace(mask=mask)
        if isinstance(adapter, GrBAL):
            phi = adapter.fit(theta, before, differentiable=torch.is_grad_enabled())
        else:
            phi = adapter.fit(theta, as_phi(theta), before)
        # The variance head has no part in adaptation; the zero keeps it in the graph.
        return (
            windowed(model, phi, ahead, horizon),
            windowed(model, as_phi(theta), ahead, horizon),
            theta.net["V"].sum() * 0,
        )

    def loss(params: Params, rng: torch.Generator) -> Tensor:
        theta = join(params, norm)
        adapted, plain, unused = after(theta, sampler.draw(windows, rng), rng)
        return adapted + plain / 3 + unused

    def validate(params: Params) -> float:
        rng = torch.Generator("cpu").manual_seed(0)
        at = sampler.held_out[torch.randint(len(sampler.held_out), (256,), generator=rng, device="cpu")]
        with torch.no_grad():
            parts = [after(join(params, norm), chunk, rng)[0] for chunk in at.split(64)]
        return float(torch.stack(parts).mean())

    return loss, validate
