"""Cosine diffusion with learned-range variance (improved DDPM), and the MLP that denoises one token."""
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class Schedule:
    """Cosine schedule of `train_steps`, respaced to `steps` of them; arrays are indexed by the respaced step."""

    def __init__(self, train_steps, steps=None):
        steps = steps or train_steps
        bar = lambda t: math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = np.array([min(1 - bar((i + 1) / train_steps) / bar(i / train_steps), 0.999) for i in range(train_steps)])
        stride = (train_steps - 1) / (steps - 1) if steps > 1 else 1
        self.t = sorted({round(i * stride) for i in range(steps)})
        a = np.cumprod(1 - betas)[self.t]
        prev = np.append(1.0, a[:-1])
        self.betas, self.cum = 1 - a / prev, a
        self.recip, self.recipm1 = np.sqrt(1 / a), np.sqrt(1 / a - 1)
        var = self.betas * (1 - prev) / (1 - a)
        self.min_log = np.log(np.append(var[1], var[1:])) if len(var) > 1 else np.log(self.betas)
        self.max_log = np.log(self.betas)
        self.c1 = self.betas * np.sqrt(prev) / (1 - a)
        self.c2 = (1 - prev) * np.sqrt(1 - self.betas) / (1 - a)


class TimeEmbed(nn.Module):
    def __init__(self, width, frequencies=256):
        super().__init__()
        self.half = frequencies // 2
        self.mlp = nn.Sequential(nn.Linear(frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t):
        dtype = self.mlp[0].weight.dtype
        freqs = torch.exp(-math.log(10000.0) * torch.arange(self.half, dtype=torch.float64, device=t.device) / self.half).to(dtype)
        a = t[:, None].to(dtype) * freqs[None]
        return self.mlp(torch.cat([a.cos(), a.sin()], -1))


class ResBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.in_ln = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))

    def forward(self, x, silu_y):
        shift, scale, gate = self.adaLN_modulation[1](silu_y).chunk(3, -1)
        return x + gate * self.mlp(self.in_ln(x) * (1 + scale) + shift)


class FinalLayer(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.linear = nn.Linear(width, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x, silu_y):
        shift, scale = self.adaLN_modulation[1](silu_y).chunk(2, -1)
        return self.linear(F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift)


class HeadNet(nn.Module):
    """x [N, C] noisy tokens, t [N] timestep, z [N, D] condition -> [N, 2C]: noise, variance logits."""

    def __init__(self, token_dim, cond_dim, width, depth):
        super().__init__()
        self.time_embed, self.cond_embed = TimeEmbed(width), nn.Linear(cond_dim, width)
        self.input_proj = nn.Linear(token_dim, width)
        self.res_blocks = nn.ModuleList(ResBlock(width) for _ in range(depth))
        self.final_layer = FinalLayer(width, 2 * token_dim)

    def reset(self):
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.xavier_uniform_(m.weight)
                nn.init.zeros_(m.bias)
        for m in (self.time_embed.mlp[0], self.time_embed.mlp[2]):
            nn.init.normal_(m.weight, std=0.02)
        for m in [b.adaLN_modulation[1] for b in self.res_blocks] + [self.final_layer.adaLN_modulation[1], self.final_layer.linear]:
            nn.init.zeros_(m.weight)
            nn.init.zeros_(m.bias)

    def forward(self, x, t, z):
        y = F.silu(self.time_embed(t) + self.cond_embed(z))
        h = self.input_proj(x)
        for block in self.res_blocks:
            h = block(h, y)
        return self.final_layer(h, y)


class DiffLoss(nn.Module):
    """Training loss and sampling of the head; `train_steps` of the schedule."""

    def __init__(self, token_dim, cond_dim, width, depth, train_steps):
        super().__init__()
        self.net, self.train_steps = HeadNet(token_dim, cond_dim, width, depth), train_steps
        full = Schedule(train_steps)
        table = np.stack([np.sqrt(full.cum), np.sqrt(1 - full.cum), full.recip, full.recipm1, full.min_log, full.max_log, full.c1, full.c2], 1)
        self.register_buffer("table", torch.from_numpy(table).float(), persistent=False)

    def loss(self, x0, z, t, noise):
        """x0, noise [N, C]; z [N, D]; t [N] -> (squared error of the noise [N], variational bound in bits [N])."""
        sa, sb, recip, recipm1, lo, hi, c1, c2 = self.table[t][:, :, None].unbind(1)
        x = sa * x0 + sb * noise
        eps, v = self.net(x, t, z).float().chunk(2, -1)
        mse = (eps - noise).pow(2).mean(-1)
        frac = (v + 1) / 2
        log_var = frac * hi + (1 - frac) * lo
        fixed = eps.detach()                       # the bound trains the variance only
        mean = c1 * (recip * x - recipm1 * fixed) + c2 * x
        true = c1 * x0 + c2 * x
        kl = 0.5 * (log_var - lo + (lo - log_var).exp() + (true - mean).pow(2) * (-log_var).exp() - 1)
        return mse, kl.mean(-1) / math.log(2.0)

    def sample(self, z, z_null, start, noise, steps, guidance, temperature, clip_x0=None):
        """start [N, C]; noise [steps, N, C] -> tokens [N, C]; `guidance` acts on the noise only, 1 = none."""
        s, x, N = Schedule(self.train_steps, steps), start, len(start)
        both = torch.cat([z, z_null]) if guidance != 1.0 else z
        for j, i in enumerate(reversed(range(len(s.t)))):
            twice = torch.cat([x, x]) if guidance != 1.0 else x
            eps, v = self.net(twice, torch.full((len(twice),), s.t[i]), both).chunk(2, -1)
            if guidance != 1.0:
                eps, v = eps[N:] + guidance * (eps[:N] - eps[N:]), v[:N]
            frac = (v + 1) / 2
            log_var = frac * s.max_log[i] + (1 - frac) * s.min_log[i]
            x0 = s.recip[i] * x - s.recipm1[i] * eps
            if clip_x0 is not None:
                x0 = x0.clamp(-clip_x0, clip_x0)
            x = s.c1[i] * x0 + s.c2[i] * x
            if i > 0:
                x = x + torch.exp(0.5 * log_var) * noise[j] * temperature
        return x
