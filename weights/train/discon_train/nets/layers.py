"""Parts shared by the two transformers."""
import math

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    """Multi-head attention over [B, N, D] with explicit softmax (faster on CPU in training than the fused one)."""

    def __init__(self, dim, heads, qk_norm=False):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        if qk_norm:
            self.q_norm, self.k_norm = (nn.LayerNorm(dim // heads, eps=1e-6) for _ in range(2))

    def forward(self, x, mask=None, cache=None):
        """mask: [N, N] bool, True = not seen. cache: list [k, v] that grows along the token axis."""
        B, N, D = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        if hasattr(self, "q_norm"):
            q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        if cache is not None:
            if cache:
                k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
            cache[:] = [k, v]
        s = q @ k.transpose(-1, -2) / math.sqrt(D // self.heads)
        if mask is not None:
            s = s.masked_fill(mask, float("-inf"))
        return self.proj((s.softmax(-1).to(v.dtype) @ v).transpose(1, 2).reshape(B, N, D))


class Mlp(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


def init_linear(module, std=0.02):
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=std)


def sincos_2d(side, dim):
    """Position vectors of a side x side raster: [side * side, dim], entries in [-1, 1]."""
    quarter = dim // 4
    freq = 1.0 / 100.0 ** (torch.arange(quarter, dtype=torch.float64) / quarter)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    parts = [f(p.reshape(-1, 1) * freq) for p in (y, x) for f in (torch.sin, torch.cos)]
    out = torch.zeros(side * side, dim, dtype=torch.float64)
    out[:, : 4 * quarter] = torch.cat(parts, 1)
    return out.float()
