"""Starts a run from the trained parts of a model folder: to train another stage on the same tokens, or one part further."""
import pathlib

import torch

from .data import Images
from .errors import TrainError
from .export import net_config
from .folder import load
from .loop import DEFAULTS, save

# Of a part's section in discon.json, what export adds to the settings of its network.
ADDED = {"vae": ("latent_mean", "latent_std")}


def adopt(config, run, folder, parts):
    """Writes RUN/PART.pt at step 0 with the weights of FOLDER. Returns {part: path}."""
    run = pathlib.Path(run)
    published, nets = load(folder)
    wanted = {}
    for part in parts:
        path = run / f"{part}.pt"
        if part not in nets:
            raise TrainError(f"{folder}: no {part}.safetensors there")
        if path.exists():
            raise TrainError(f"{path}: already there; give another --run or remove it")
        if part in ("rar", "discon"):
            wanted[part] = net_config(config, part, len(Images(run / "data", "train").classes))
        else:
            wanted[part] = config[part]["net"]
        found = {k: v for k, v in published[part].items() if k not in ADDED.get(part, ())}
        if found != wanted[part]:
            raise TrainError(f"{part} of {folder}: expected {wanted[part]}, found {found}")
    for part in parts:
        save(run / f"{part}.pt", dict(step=0, net=nets[part].state_dict(), ema={}, opts=[], task={}, cooldown_from=float("inf"),
                                      seconds=0.0, settings={**DEFAULTS, **config[part]["train"]}, history=[]))
    return {part: run / f"{part}.pt" for part in parts}
