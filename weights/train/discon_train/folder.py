"""Model folders: discon.json and the four weight files."""
import json
import pathlib

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from .data import read_json
from .errors import TrainError
from .nets.rar import TABLES, Rar
from .nets.stage2 import Stage2
from .nets.vae import Vae, has_attention
from .nets.vq import Vq

PARTS = ("rar", "discon", "vae", "vq")


def build(part, cfg, names=()):
    """The network of a part from its section of discon.json."""
    if part == "vae":
        return Vae(cfg, has_attention(names))
    return {"rar": Rar, "discon": Stage2, "vq": Vq}[part](cfg)


def load(folder, dtype=torch.float32):
    """(config, {part: network}) of a model folder."""
    folder = pathlib.Path(folder)
    config, nets = read_json(folder / "discon.json"), {}
    for part in PARTS:
        path = folder / f"{part}.safetensors"
        if not path.exists():
            continue
        with safe_open(path, "pt") as f:
            weights = {k: f.get_tensor(k).to(dtype) for k in f.keys()}
        if part == "rar":
            weights |= {k: weights[k][:, : config["rar"]["seq_len"] + 2] for k in TABLES}
        net = build(part, config[part], weights).to(dtype)
        try:
            net.load_state_dict(weights)
        except RuntimeError as e:
            raise TrainError(f"{path}: {e}") from None
        nets[part] = net.eval().requires_grad_(False)
    return config, nets


def write_weights(path, state, dtype=torch.bfloat16):
    """Tensors of a state dict in `dtype`, each starting at a multiple of its element size in the file."""
    save_file({k: v.detach().to(dtype).contiguous() for k, v in sorted(state.items())}, path)


def tokens_to_latent(cfg, tokens):
    """[B, L, C] normalised tokens -> [B, C, h, w] latents. cfg: the vae section."""
    B, L, C = tokens.shape
    side = round(L ** 0.5)
    std, mean = (torch.tensor(cfg[k], dtype=tokens.dtype).view(1, -1, 1, 1) for k in ("latent_std", "latent_mean"))
    return tokens.transpose(1, 2).reshape(B, C, side, side) * std + mean


def latent_to_tokens(cfg, latent):
    """[B, C, h, w] -> [B, L, C] normalised tokens."""
    std, mean = (torch.tensor(cfg[k], dtype=latent.dtype).view(1, -1, 1, 1) for k in ("latent_std", "latent_mean"))
    return ((latent - mean) / std).flatten(2).transpose(1, 2)


def to_u8(image):
    """[-1, 1] picture -> uint8, half up, clamped."""
    return ((image.clamp(-1, 1) + 1) * 127.5 + 0.5).floor().clamp(0, 255).to(torch.uint8)
