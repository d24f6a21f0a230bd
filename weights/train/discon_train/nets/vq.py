"""MaskGIT-style VQGAN with discrete codes.

Images are [B, 3, H, W] in [0, 1]; codes [B, L] with L = h * w places in raster order.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

from .vae import norm


def conv(cin, cout, bias=False, size=3):
    return nn.Conv2d(cin, cout, size, padding=size // 2, bias=bias)


class ResBlock(nn.Module):
    """[B, cin, H, W] -> [B, cout, H, W]. Where widths differ the shortcut is taken of the block's own output."""

    def __init__(self, cin, cout):
        super().__init__()
        self.norm1, self.conv1 = norm(cin), conv(cin, cout)
        self.norm2, self.conv2 = norm(cout), conv(cout, cout)
        if cin != cout:
            self.nin_shortcut = conv(cout, cout, size=1)
        else:
            nn.init.zeros_(self.conv2.weight)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(h) if hasattr(self, "nin_shortcut") else x)


class Level(nn.Module):
    def __init__(self, cin, cout, blocks):
        super().__init__()
        self.block = nn.ModuleList(ResBlock(cin if j == 0 else cout, cout) for j in range(blocks))

    def forward(self, x):
        for block in self.block:
            x = block(x)
        return x


class Encoder(nn.Module):
    """[B, 3, H, W] -> features [B, C, h, w]."""

    def __init__(self, cfg):
        super().__init__()
        widths, n = [cfg["hidden_channels"] * m for m in cfg["channel_mult"]], cfg["num_res_blocks"]
        self.conv_in = conv(3, cfg["hidden_channels"])
        self.down = nn.ModuleList(Level(widths[i - 1] if i else cfg["hidden_channels"], w, n) for i, w in enumerate(widths))
        self.mid = nn.ModuleList(ResBlock(widths[-1], widths[-1]) for _ in range(n))
        self.norm_out, self.conv_out = norm(widths[-1]), conv(widths[-1], cfg["z_channels"], bias=True, size=1)

    def forward(self, x):
        x = self.conv_in(x)
        for i, level in enumerate(self.down):
            x = level(x)
            if i != len(self.down) - 1:
                x = F.avg_pool2d(x, 2, 2)
        for block in self.mid:
            x = block(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Decoder(nn.Module):
    """Features [B, C, h, w] -> [B, 3, H, W]."""

    def __init__(self, cfg):
        super().__init__()
        widths, n = [cfg["hidden_channels"] * m for m in cfg["channel_mult"]], cfg["num_res_blocks"]
        top = len(widths) - 1
        self.conv_in = conv(cfg["z_channels"], widths[-1], bias=True)
        self.mid = nn.ModuleList(ResBlock(widths[-1], widths[-1]) for _ in range(n))
        levels = []
        for i in range(top + 1):
            level = Level(widths[min(i + 1, top)], widths[i], n)
            if i:
                level.upsample_conv = conv(widths[i], widths[i], bias=True)
            levels.append(level)
        self.up = nn.ModuleList(levels)
        self.norm_out, self.conv_out = norm(widths[0]), conv(widths[0], 3, bias=True)

    def forward(self, x):
        x = self.conv_in(x)
        for block in self.mid:
            x = block(x)
        for level in reversed(self.up):
            x = level(x)
            if hasattr(level, "upsample_conv"):
                x = level.upsample_conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv_out(F.silu(self.norm_out(x)))


class Quantize(nn.Module):
    """Codebook [K, C]. Trained by exponential averages, kept in the trainer's state and not exported."""

    def __init__(self, codes, channels):
        super().__init__()
        self.embedding = nn.Embedding(codes, channels)
        self.embedding.weight.requires_grad_(False)

    def nearest(self, features):
        """[N, C] -> [N] index of the nearest entry, the lowest on a tie."""
        e = self.embedding.weight
        d = features.pow(2).sum(1, keepdim=True) + e.pow(2).sum(1) - 2 * features @ e.T
        return d.argmin(1)


class Vq(nn.Module):
    """cfg: hidden_channels, channel_mult, num_res_blocks, z_channels, codebook_size."""

    def __init__(self, cfg):
        super().__init__()
        self.encoder, self.decoder = Encoder(cfg), Decoder(cfg)
        self.quantize = Quantize(cfg["codebook_size"], cfg["z_channels"])

    def encode(self, image):
        """[B, 3, H, W] -> codes [B, L]."""
        f = self.encoder(image)
        return self.quantize.nearest(f.permute(0, 2, 3, 1).flatten(0, 2)).view(image.shape[0], -1)

    def decode(self, codes):
        """[B, L] -> [B, 3, H, W], not clamped."""
        B, L = codes.shape
        s = math.isqrt(L)
        return self.decoder(self.quantize.embedding(codes).view(B, s, s, -1).permute(0, 3, 1, 2))
