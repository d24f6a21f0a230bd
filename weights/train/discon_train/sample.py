"""Pictures from a model folder's networks, for looking at and measuring. Random numbers are PyTorch's own: they are not
those of the engine, so seeds do not match its pictures."""
import torch

from .folder import to_u8, tokens_to_latent
from .progress import bar


@torch.no_grad()
def generate(config, nets, classes, seed, sampling=None, batch=32):
    """classes [N] -> (codes [N, L], discrete pictures, continuous pictures), pictures uint8 [N, 3, H, W]."""
    s = sampling or config["sampling"]
    r, d, L, C = s["rar"], s["discon"], config["discon"]["seq_len"], config["discon"]["token_dim"]
    out = []
    for i in bar(range(0, len(classes), batch), "pictures"):
        part, gen = classes[i : i + batch], torch.Generator().manual_seed(seed * 1_000_003 + i)
        B = len(part)
        codes = nets["rar"].sample(part, torch.rand(B, L, generator=gen), r["guidance"], r["guidance_pow"], r["temperature"])
        order = torch.rand(B, L, generator=gen).argsort(1)
        start, noise = torch.randn(B, L, C, generator=gen), torch.randn(d["diffusion_steps"], B, L, C, generator=gen)
        tokens = nets["discon"].sample(part, codes if config["discon"]["discrete"] else None, order, start, noise, d["ar_steps"],
                                       d["diffusion_steps"], d["guidance"], d["guidance_schedule"], d["temperature"], d["clip_x0"])
        out.append((codes, to_u8(2 * nets["vq"].decode(codes) - 1), to_u8(nets["vae"].decode(tokens_to_latent(config["vae"], tokens)))))
    return tuple(torch.cat(x) for x in zip(*out))


@torch.no_grad()
def rebuild(nets, images, batch=32):
    """[N, 3, H, W] in [-1, 1] -> (through the VQ, through the VAE), uint8."""
    vq, vae = [], []
    for i in bar(range(0, len(images), batch), "rebuilt"):
        x = images[i : i + batch]
        vq.append(to_u8(2 * nets["vq"].decode(nets["vq"].encode((x + 1) / 2)) - 1))
        vae.append(to_u8(nets["vae"].decode(nets["vae"].encode(x)[0])))
    return torch.cat(vq), torch.cat(vae)
