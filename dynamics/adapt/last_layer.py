"""The last layer in closed form, with a meta-learned prior (Harrison et al. 2018, ALPaCA, eq. 4-5, kept in its dual form).

    K_d | recent = K_d + P Psi^T (Psi P Psi^T + n_d W^-1)^-1 (y_d - Psi K_d),        d = 1 .. outputs

P: diagonal prior covariance of the columns of K, n_d: noise variance of output d, W = diag(gamma^age): forgetting. P, n and gamma are learned
by predicting what follows the context. The k x k system is what is solved, never one of the size of psi.

`after` runs another adapter first (motor gains, say); the last layer then explains what that one leaves, where there is something to explain:
it moves only where that lowers the leave-one-out error over the context, which the dual form gives in closed form
(Rasmussen and Williams 2006, eq. 5.12), below `worth` times what the prior's is. Else it would fit noise, and a planner finds what noise promises.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dynamics.mlp import MLP, mul
from dynamics.types import Adapter, Params, Phi, Theta, Transitions, as_phi


@dataclass(frozen=True)
class LastLayer:
    model: MLP
    after: Adapter | None = None
    worth: float = 0.8
    """of the prior's mean squared error; asked only where `after` has explained what it can"""

    def meta(self, theta: Theta) -> Params:
        """Fresh meta parameters: log of the diagonal of P (n_psi), log noise (d), logit of the forgetting factor."""
        return {
            "last-layer.log_prior": torch.full((self.model.n_psi,), -7.0),
            "last-layer.log_noise": torch.full((self.model.space.n_delta,), -1.5),
            "last-layer.logit_gamma": torch.tensor(3.0),
        }

    def init(self, theta: Theta, b: int) -> Any:
        return None if self.after is None else self.after.init(theta, b)

    def adapt(self, theta: Theta, carry: Any, recent: Transitions) -> tuple[Phi, Any]:
        phi = as_phi(theta)
        if self.after is not None:
            phi, carry = self.after.adapt(theta, carry, recent)
        fitted, without = self.solve(theta, phi, recent)
        if self.after is None:
            return fitted, carry
        k = phi.net["K"].expand_as(fitted.net["K"])
        moved = torch.where(without.view(-1, 1, 1, 1) < self.worth, fitted.net["K"], k)
        return fitted._replace(net=fitted.net | {"K": moved}), carry

    def fit(self, theta: Theta, phi: Phi, recent: Transitions) -> Phi:
        """Differentiable in theta. recent (b, k, .) -> phi with K (b, e, n_psi, d)."""
        return self.solve(theta, phi, recent)[0]

    def solve(self, theta: Theta, phi: Phi, recent: Transitions) -> tuple[Phi, Tensor]:
        """-> phi, and the leave-one-out mean squared error as a share of the prior's (b,), NaN where nothing was seen."""
        meta = theta.meta
        a = self.model.acting(recent.a, None if phi.gain is None else phi.gain[:, None])
        psi = self.model.psi(phi.net, self.model.inputs(theta, recent.s, a))  # (b, e, k, n_psi)
        y = self.model.target(theta, recent.s, recent.s_next)[:, None]
        age = torch.arange(recent.mask.shape[-1] - 1, -1, -1, dtype=torch.float32)
        root = (meta["last-layer.logit_gamma"].sigmoid() ** (age / 2) * recent.mask)[:, None, :, None]
        residual = (y - mul(psi, phi.net["K"])) * root  # (b, e, k, d)
        psi = psi * root
        spread = psi * meta["last-layer.log_prior"].exp()  # Psi P
        gram = spread @ psi.mT  # (b, e, k, k)
        # Below a millionth of the trace the noise is float32's own: the factorisation would fail in mid-run.
        least = 1e-6 * gram.diagonal(dim1=-2, dim2=-1).sum(-1)[:, :, None]
        noise = torch.maximum(meta["last-layer.log_noise"].exp(), least)  # (b, e, d)
        eye = torch.eye(gram.shape[-1])
        system = gram[:, :, None] + noise[..., None, None] * eye  # (b, e, d, k, k)
        factor = torch.linalg.cholesky_ex(system).L  # NaN makes NaN, for the loop to catch, and raises nothing
        weight: Tensor = torch.cholesky_solve(residual.mT[..., None], factor)[..., 0]  # (b, e, d, k)
        delta = (weight @ spread).mT  # (b, e, n_psi, d)
        precision = torch.cholesky_inverse(factor.detach()).diagonal(dim1=-2, dim2=-1)  # (b, e, d, k)
        out = (weight.detach() / precision).square().sum((1, 2, 3))
        share = out / residual.detach().square().sum((1, 2, 3))
        return phi._replace(net=phi.net | {"K": phi.net["K"] + delta}), share
