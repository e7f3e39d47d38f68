"""Training losses, per element of a batch of windows."""

import torch
from torch import Tensor

from dynamics.mlp import LOG_STD, MLP, mul
from dynamics.types import Phi, Transitions


def multi_step(model: MLP, phi: Phi, future: Transitions) -> tuple[Tensor, Tensor]:
    """The model rolled out on its own predictions over a window, against what happened.

    future (b, h, .) -> mse, nll (scalars). mse: squared error of the normalised delta from the predicted state to the true
    next one, mean over the window; at h = 1 plain regression. nll: Gaussian negative log likelihood of the variance head alone,
    at the true states, features and mean held fixed, so that the mean is never traded for a wider variance
    (cf. Seitzer et al. 2022 on that pitfall).
    """
    space, norm = model.space, phi.norm
    s = future.s[:, 0]
    mask = future.mask.float()
    h = future.a.shape[1]
    loss = torch.zeros(())
    nll = torch.zeros(())
    for t in range(h):
        x = model.inputs(phi, s, model.acting(future.a[:, t], phi.gain))
        psi = model.psi(phi.net, x[:, None])
        y = mul(psi, phi.net["K"])  # (b, e, 1, d)
        target = model.target(phi, s, future.s_next[:, t])[:, None, None]
        error = (y - target).square().mean((1, 2, 3))
        loss = loss + (error * mask[:, t]).sum()
        if t == 0:
            log_std = mul(psi.detach(), phi.net["V"]).clamp(*LOG_STD)
            z = (target - y.detach()) * (-log_std).exp()
            nll = ((0.5 * z.square() + log_std).mean((1, 2, 3)) * mask[:, 0]).sum()
        if t + 1 < h:
            s = space.retract(s, norm["d_mean"] + norm["d_std"] * y.mean(1)[:, 0])
    return loss / mask.sum().clamp_min(1), nll / mask[:, 0].sum().clamp_min(1)
