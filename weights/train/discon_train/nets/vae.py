"""KL autoencoder with continuous latents.

Images are [B, 3, H, W] in [-1, 1]; latents [B, C, h, w] with h = H / 2 ** (levels - 1).
"""
import torch
import torch.nn.functional as F
from torch import nn


def norm(channels):
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    """[B, cin, H, W] -> [B, cout, H, W]; the second convolution starts at zero."""

    def __init__(self, cin, cout):
        super().__init__()
        self.norm1, self.conv1 = norm(cin), nn.Conv2d(cin, cout, 3, padding=1)
        self.norm2, self.conv2 = norm(cout), nn.Conv2d(cout, cout, 3, padding=1)
        if cin != cout:
            self.nin_shortcut = nn.Conv2d(cin, cout, 1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class AttnBlock(nn.Module):
    """Self-attention over the H * W places of [B, C, H, W], one head."""

    def __init__(self, channels):
        super().__init__()
        self.norm = norm(channels)
        for name in ("q", "k", "v", "proj_out"):
            setattr(self, name, nn.Conv2d(channels, channels, 1))
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, x):
        B, C, H, W = x.shape
        h = self.norm(x)
        q, k, v = (f(h).flatten(2) for f in (self.q, self.k, self.v))
        a = (q.transpose(1, 2) @ k * C ** -0.5).softmax(-1)
        return x + self.proj_out((v @ a.transpose(1, 2)).view(B, C, H, W))


class Resample(nn.Module):
    """Halves (down) or doubles the picture, then one 3x3 convolution. Halving pads right and below only."""

    def __init__(self, channels, down):
        super().__init__()
        self.down = down
        self.conv = nn.Conv2d(channels, channels, 3, stride=2 if down else 1, padding=0 if down else 1)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.down else F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    def __init__(self, cin, cout, blocks, attention):
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(cin if j == 0 else cout, cout) for j in range(blocks))
        self.attn = nn.ModuleList(AttnBlock(cout) for _ in range(blocks if attention else 0))

    def forward(self, x):
        for j, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[j](x)
        return x


class Mid(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.block_1, self.attn_1, self.block_2 = ResnetBlock(channels, channels), AttnBlock(channels), ResnetBlock(channels, channels)

    def forward(self, x):
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    def __init__(self, cfg, attention):
        super().__init__()
        widths = [cfg["ch"] * m for m in cfg["ch_mult"]]
        self.conv_in = nn.Conv2d(3, cfg["ch"], 3, padding=1)
        self.down = nn.ModuleList()
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            level = Level(widths[i - 1] if i else cfg["ch"], width, cfg["num_res_blocks"], attention and last)
            if not last:
                level.downsample = Resample(width, down=True)
            self.down.append(level)
        self.mid = Mid(widths[-1])
        self.norm_out, self.conv_out = norm(widths[-1]), nn.Conv2d(widths[-1], 2 * cfg["z_channels"], 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
            if hasattr(level, "downsample"):
                x = level.downsample(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    def __init__(self, cfg, attention):
        super().__init__()
        widths = [cfg["ch"] * m for m in cfg["ch_mult"]]
        top = len(widths) - 1
        self.conv_in = nn.Conv2d(cfg["z_channels"], widths[-1], 3, padding=1)
        self.mid = Mid(widths[-1])
        levels = []
        for i in range(top + 1):
            level = Level(widths[min(i + 1, top)], widths[i], cfg["num_res_blocks"] + 1, attention and i == top)
            if i:
                level.upsample = Resample(widths[i], down=False)
            levels.append(level)
        self.up = nn.ModuleList(levels)
        self.norm_out, self.conv_out = norm(widths[0]), nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, z):
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
            if hasattr(level, "upsample"):
                x = level.upsample(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Vae(nn.Module):
    """cfg: ch, ch_mult, num_res_blocks, z_channels. attention: also at the lowest resolution of (encoder, decoder)."""

    def __init__(self, cfg, attention=(False, False)):
        super().__init__()
        z = cfg["z_channels"]
        self.encoder, self.decoder = Encoder(cfg, attention[0]), Decoder(cfg, attention[1])
        self.quant_conv, self.post_quant_conv = nn.Conv2d(2 * z, 2 * z, 1), nn.Conv2d(z, z, 1)

    def encode(self, image):
        """[B, 3, H, W] -> (mean, logvar), each [B, C, h, w]."""
        mean, logvar = self.quant_conv(self.encoder(image)).chunk(2, 1)
        return mean, logvar.clamp(-30.0, 20.0)

    def decode(self, latent):
        """[B, C, h, w] -> [B, 3, H, W], not clamped."""
        return self.decoder(self.post_quant_conv(latent))


def has_attention(names):
    """Which halves (encoder, decoder) have attention at the lowest resolution, by their tensor names."""
    return tuple(any(n.startswith(half) and ".attn.0." in n for n in names) for half in ("encoder.", "decoder."))
