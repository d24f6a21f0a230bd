"""Stage 1: autoregression over discrete codes in raster order (RAR).

Sequence: [cls, class, code 0 .. code L-2]; the place of the class predicts code 0 and so on.
Ids: 0..K-1 codes, K mask (unused), K + 1 + c class c, K + 1 + num_classes "no class".
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

from .layers import Attention, Mlp, init_linear, sincos_2d


# [1, seq_len + 2, D] here; published files hold more rows, which nothing reads
TABLES = ("pos_embed", "target_aware_pos_embed", "timesteps_embeddings")


class Modulation(nn.Module):
    """SiLU then linear; the linear is called adaLN_modulation.1 and starts at zero."""

    def __init__(self, dim, parts):
        super().__init__()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, parts * dim))
        self.parts = parts

    def forward(self, c):
        return self.adaLN_modulation(c).chunk(self.parts, -1)


class Block(Modulation):
    def __init__(self, cfg):
        dim = cfg["hidden_size"]
        super().__init__(dim, 6)
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, cfg["heads"], qk_norm=True)
        self.mlp = Mlp(dim, cfg["mlp_size"])

    def forward(self, x, c, mask=None, cache=None):
        m = self.adaLN_modulation(c).chunk(6, -1)
        x = x + m[2] * self.attn(self.norm1(x) * (1 + m[1]) + m[0], mask, cache)
        return x + m[5] * self.mlp(self.norm2(x) * (1 + m[4]) + m[3])


class Rar(nn.Module):
    """cfg: hidden_size, depth, heads, mlp_size, seq_len, codebook_size, num_classes."""

    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        dim, L = cfg["hidden_size"], cfg["seq_len"]
        self.embeddings = nn.Embedding(cfg["codebook_size"] + cfg["num_classes"] + 2, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        for name in TABLES:
            setattr(self, name, nn.Parameter(torch.zeros(1, L + 2, dim)))
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg["depth"]))
        self.adaln_before_head = Modulation(dim, 2)
        self.lm_head = nn.Linear(dim, cfg["codebook_size"])
        self.reset()

    def reset(self):
        """Positions start from sines of row and column: of the code at this place, and of the next one."""
        self.apply(init_linear)
        L, dim = self.cfg["seq_len"], self.cfg["hidden_size"]
        for m in self.modules():
            if isinstance(m, Modulation):
                nn.init.zeros_(m.adaLN_modulation[1].weight)
                nn.init.zeros_(m.adaLN_modulation[1].bias)
        nn.init.normal_(self.lm_head.weight, std=0.02)
        with torch.no_grad():
            place = 0.02 * math.sqrt(2) * sincos_2d(math.isqrt(L), dim) if math.isqrt(L) ** 2 == L else torch.zeros(L, dim)
            shuffle = torch.randperm(dim)
            self.pos_embed[0, 2 : 2 + L] = place
            self.target_aware_pos_embed[0, 2 : 2 + L] = place[:, shuffle]
            nn.init.normal_(self.cls_token, std=0.02)
            nn.init.normal_(self.timesteps_embeddings, std=0.02)

    def start_codes(self, codebook):
        """Code embeddings from a random projection of the codebook [K, C], scaled to the usual size."""
        e = codebook.float()
        e = (e - e.mean(0)) / e.std()
        dim = self.cfg["hidden_size"]
        with torch.no_grad():
            self.embeddings.weight[: e.shape[0]] = 0.02 * e @ torch.randn(e.shape[1], dim) / math.sqrt(e.shape[1])

    def forward(self, ids, condition):
        """Logits of codes 0..n: [B, n + 1, K]. ids [B, n] codes so far; condition [B], num_classes = no class."""
        cfg, B, n = self.cfg, ids.shape[0], ids.shape[1]
        emb = self.embeddings(torch.cat([condition[:, None] + cfg["codebook_size"] + 1, ids], 1))
        x = torch.cat([self.cls_token.expand(B, -1, -1), emb], 1)
        return self.run(x, emb[:, :1], 0)

    def run(self, x, cls_emb, first, caches=None):
        """x [B, N, D] embeddings of places first .. first + N - 1 (0 cls, 1 class, 2.. codes). Logits of the
        places from 1 on."""
        L, N = self.cfg["seq_len"], x.shape[1]
        x = x + self.pos_embed[:, first : first + N]
        target = torch.zeros_like(self.target_aware_pos_embed[:, : first + N])
        m = min(first + N - 1, L)
        target = torch.cat([target[:, :1], self.target_aware_pos_embed[:, 2 : 2 + m], target[:, 1 + m :]], 1)
        x = x + target[:, first : first + N]
        c = cls_emb + self.timesteps_embeddings[:, first : first + N]
        mask = torch.ones(N, N, dtype=torch.bool, device=x.device).triu(1) if N > 1 else None
        for i, block in enumerate(self.blocks):
            x = block(x, c, mask, caches[i] if caches is not None else None)
        if first == 0:
            x, c = x[:, 1:], c[:, 1:]
        scale, shift = self.adaln_before_head(c)
        return self.lm_head(F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift)

    @torch.no_grad()
    def sample(self, classes, uniforms, guidance, guidance_pow, temperature):
        """Draws codes [B, L] by inverse CDF from uniforms [B, L]."""
        cfg, (B, L) = self.cfg, uniforms.shape
        guided = guidance != 0
        cond = torch.cat([classes, torch.full_like(classes, cfg["num_classes"])]) if guided else classes
        cls_emb = self.embeddings(cond[:, None] + cfg["codebook_size"] + 1)
        x = torch.cat([self.cls_token.expand(cond.shape[0], -1, -1), cls_emb], 1)
        caches, out = [[] for _ in self.blocks], []
        for step in range(L):
            logits = self.run(x, cls_emb, 0 if step == 0 else step + 1, caches)[:, -1]
            if guided:
                scale = (guidance - 1) * (1 - math.cos((step / L) ** guidance_pow * math.pi)) / 2 + 1
                logits = logits[B:] + (logits[:B] - logits[B:]) * scale
            cdf = (logits / temperature).softmax(-1).cumsum(-1)
            code = (cdf <= uniforms[:, step : step + 1]).sum(-1).clamp(max=cdf.shape[-1] - 1)
            out.append(code)
            x = self.embeddings(torch.cat([code, code]) if guided else code)[:, None]
        return torch.stack(out, 1)
