"""Muon: momentum whose matrix is made orthogonal before the step; convolutions are taken as [out, in * k * k]."""
import torch

from .precision import HAS_BF16


@torch.no_grad()
def orthogonal(m, rounds=5):
    """[R, C] -> a matrix with the same singular vectors and singular values near 1 (Newton-Schulz, quintic)."""
    x = m.bfloat16() if HAS_BF16 else m.float()
    flip = x.shape[0] > x.shape[1]
    if flip:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(rounds):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.T if flip else x).to(m.dtype)


class Muon(torch.optim.Optimizer):
    """The step is scaled so that its entries are as large as AdamW's usually are: the same rates fit."""

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                m = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                ahead = p.grad.lerp(m, group["momentum"]).flatten(1)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(orthogonal(ahead).view_as(p), alpha=-group["lr"] * 0.2 * max(ahead.shape) ** 0.5)
