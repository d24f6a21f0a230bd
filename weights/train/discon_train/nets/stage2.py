"""Stage 2: masked autoregression over continuous tokens, with discrete codes in front, and a diffusion head.

Sequence: [class tokens (buffer_size) | codes (L) | tokens (L)]; the encoder sees the known tokens only, the decoder
all places. Every row of a batch masks the same number of places.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

from .diffusion import DiffLoss
from .layers import Attention, Mlp, init_linear, sincos_2d


class Block(nn.Module):
    def __init__(self, dim, heads, hidden):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim, eps=1e-6), Attention(dim, heads)
        self.norm2, self.mlp = nn.LayerNorm(dim, eps=1e-6), Mlp(dim, hidden)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Stage2(nn.Module):
    """cfg: encoder_dim/depth/heads/mlp, decoder_dim/depth/heads/mlp, buffer_size, discrete, codebook_size, seq_len,
    token_dim, num_classes, head {width, depth, train_steps}."""

    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        E, D, L = cfg["encoder_dim"], cfg["decoder_dim"], cfg["seq_len"]
        self.prefix = cfg["buffer_size"] + (L if cfg["discrete"] else 0)
        self.class_emb = nn.Embedding(cfg["num_classes"], E)
        self.fake_latent = nn.Parameter(torch.zeros(1, E))
        if cfg["discrete"]:
            self.discrete_emb = nn.Embedding(cfg["codebook_size"] + 1, E)
        self.z_proj, self.z_proj_ln = nn.Linear(cfg["token_dim"], E), nn.LayerNorm(E, eps=1e-6)
        self.encoder_pos_embed_learned = nn.Parameter(torch.zeros(1, self.prefix + L, E))
        self.encoder_blocks = nn.ModuleList(Block(E, cfg["encoder_heads"], cfg["encoder_mlp"]) for _ in range(cfg["encoder_depth"]))
        self.encoder_norm = nn.LayerNorm(E, eps=1e-6)
        self.decoder_embed = nn.Linear(E, D)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, D))
        self.decoder_pos_embed_learned = nn.Parameter(torch.zeros(1, self.prefix + L, D))
        self.decoder_blocks = nn.ModuleList(Block(D, cfg["decoder_heads"], cfg["decoder_mlp"]) for _ in range(cfg["decoder_depth"]))
        self.decoder_norm = nn.LayerNorm(D, eps=1e-6)
        self.diffusion_pos_embed_learned = nn.Parameter(torch.zeros(1, L, D))
        self.diffloss = DiffLoss(cfg["token_dim"], D, cfg["head"]["width"], cfg["head"]["depth"], cfg["head"]["train_steps"])
        self.reset()

    def reset(self):
        """Code place i and token place i start from the same position, so that a token finds its code at once."""
        self.apply(init_linear)
        self.diffloss.net.reset()
        cfg, L = self.cfg, self.cfg["seq_len"]
        for p in (self.fake_latent, self.mask_token):
            nn.init.normal_(p, std=0.02)
        side = math.isqrt(L)
        with torch.no_grad():
            for name, dim in (("encoder", cfg["encoder_dim"]), ("decoder", cfg["decoder_dim"])):
                p, scale = getattr(self, name + "_pos_embed_learned"), 0.5
                nn.init.normal_(p, std=0.02)
                if side * side == L:
                    place = scale * sincos_2d(side, dim)
                    p[0, -L:] = place
                    if cfg["discrete"]:
                        p[0, cfg["buffer_size"] : self.prefix] = place
            nn.init.normal_(self.class_emb.weight, std=0.2)
            nn.init.normal_(self.diffusion_pos_embed_learned, std=0.02)

    def start_codes(self, codebook):
        """Code embeddings from a random projection of the codebook [K, C], to unit size."""
        e = codebook.float()
        e = (e - e.mean(0)) / e.std()
        with torch.no_grad():
            self.discrete_emb.weight[:-1] = 0.5 * e @ torch.randn(e.shape[1], self.cfg["encoder_dim"]) / math.sqrt(e.shape[1])
            nn.init.normal_(self.discrete_emb.weight[-1], std=0.2)

    def forward(self, classes, codes, tokens, masked):
        """Condition of the head for every place: [B, L, D]. classes [B] (num_classes = none); codes [B, L]
        (codebook_size = none); tokens [B, L, C]; masked [B, L] bool, True = not yet known."""
        cfg, (B, L, _), P = self.cfg, tokens.shape, self.prefix
        prefix = torch.cat([self.class_emb.weight, self.fake_latent])[classes][:, None].expand(-1, cfg["buffer_size"], -1)
        if cfg["discrete"]:
            prefix = torch.cat([prefix, self.discrete_emb(codes)], 1)
        # known places of a row, in raster order: gather indices, the same number in every row
        places = torch.argsort(masked.int(), dim=1, stable=True)[:, : L - int(masked[0].sum())]
        known = self.z_proj(tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[-1])))
        pos = self.encoder_pos_embed_learned
        x = torch.cat([prefix.to(known.dtype) + pos[:, :P], known + pos[0][places + P]], 1)
        x = self.z_proj_ln(x)
        for block in self.encoder_blocks:
            x = block(x)
        x = self.decoder_embed(self.encoder_norm(x))
        rest = self.mask_token.to(x.dtype).expand(B, L, -1)
        rest = rest.scatter(1, places[..., None].expand(-1, -1, x.shape[-1]), x[:, P:])
        x = torch.cat([x[:, :P], rest], 1) + self.decoder_pos_embed_learned
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_norm(x)[:, P:] + self.diffusion_pos_embed_learned

    @torch.no_grad()
    def sample(self, classes, codes, order, start, noise, ar_steps, steps, guidance, guidance_schedule, temperature, clip_x0=None):
        """Tokens [B, L, C] in `ar_steps` rounds. order [B, L]: its first entries are the places still masked;
        start [B, L, C] and noise [steps, B, L, C] by place."""
        cfg, (B, L) = self.cfg, order.shape
        tokens = torch.zeros_like(start)
        masked = torch.ones(B, L, dtype=torch.bool)
        null_class = torch.full_like(classes, cfg["num_classes"])
        null_codes = torch.full_like(codes, cfg["codebook_size"]) if codes is not None else None
        for r in range(ar_steps):
            z = self(classes, codes, tokens, masked)
            zn = self(null_class, null_codes, tokens, masked) if guidance != 1.0 else z
            left = int(masked[0].sum())
            keep = max(1, min(left - 1, math.floor(L * math.cos(math.pi / 2 * (r + 1) / ar_steps))))
            nxt = torch.zeros_like(masked).scatter(1, order[:, :keep], True)
            pred = masked if r == ar_steps - 1 else masked ^ nxt
            g = 1 + (guidance - 1) * (L - keep) / L if guidance_schedule == "linear" else guidance
            tokens[pred] = self.diffloss.sample(z[pred], zn[pred], start[pred], noise[:, pred], steps, g, temperature, clip_x0)
            masked = nxt
        return tokens
