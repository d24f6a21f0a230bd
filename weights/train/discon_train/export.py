"""Writes a model folder from the checkpoints of a run."""
import json
import pathlib

import torch

from .data import Images, read_json
from .folder import PARTS, write_weights
from .loop import trained
from .nets.rar import Rar
from .nets.stage2 import Stage2
from .nets.vae import Vae
from .nets.vq import Vq

LICENCE = "Weights: CC BY 4.0. The training pictures keep the licences named in the attribution."
DEFAULT_SAMPLING = {"rar": {"guidance": 2.0, "guidance_pow": 1.0, "temperature": 0.9},
                    "discon": {"ar_steps": 8, "diffusion_steps": 25, "guidance": 3.0, "guidance_schedule": "linear",
                               "temperature": 0.7, "clip_x0": 5.0}}


def net_config(config, part, classes):
    """Section of discon.json of a transformer: what the run's config says plus what follows from the other parts."""
    levels = len(config["vae"]["net"]["ch_mult"])
    places = (config["image_size"] // 2 ** (levels - 1)) ** 2
    shared = dict(seq_len=places, codebook_size=config["vq"]["net"]["codebook_size"], num_classes=classes)
    if part == "discon":
        shared["token_dim"] = config["vae"]["net"]["z_channels"]
    return {**config[part]["net"], **shared}


def networks(config, run):
    """Trained networks of a run by part, and the number of steps each was trained."""
    classes = len(Images(run / "data", "train").classes)
    flag = config["vae"].get("task", {}).get("attention", False)
    made = {"rar": Rar(net_config(config, "rar", classes)), "discon": Stage2(net_config(config, "discon", classes)),
            "vae": Vae(config["vae"]["net"], (flag, flag)), "vq": Vq(config["vq"]["net"])}
    found = {part: trained(made[part], run, part) for part in PARTS}
    return {p: n for p, (n, _) in found.items()}, {p: s["step"] for p, (_, s) in found.items()}


def export(config, run, out):
    """Writes OUT/discon.json and the weights in bf16. Returns {file: bytes}."""
    run, out = pathlib.Path(run), pathlib.Path(out)
    nets, _ = networks(config, run)
    classes, stats = Images(run / "data", "train").classes, read_json(run / "latents" / "stats.json")
    n = len(classes)
    doc = {"format": "discon/1", "name": config["name"], "image_size": config["image_size"], "classes": classes,
           "licence": config.get("licence", LICENCE), "attribution": config.get("attribution", ""),
           "rar": net_config(config, "rar", n), "discon": net_config(config, "discon", n),
           "vae": {**config["vae"]["net"], "latent_mean": stats["mean"], "latent_std": stats["std"]},
           "vq": dict(config["vq"]["net"]), "sampling": config.get("sampling", DEFAULT_SAMPLING)}
    out.mkdir(parents=True, exist_ok=True)
    (out / "discon.json").write_text(json.dumps(doc, indent=1) + "\n")
    for part, net in nets.items():
        write_weights(out / f"{part}.safetensors", net.state_dict(), torch.bfloat16)
    return {p.name: p.stat().st_size for p in sorted(out.iterdir()) if p.is_file()}
