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


def with_classes(part, state, cfg, old, new):
    """The weights of a transformer for classes `new` instead of `old`: a class of the same name keeps its embedding, another begins as
    the mean of all."""
    name = {"rar": "embeddings.weight", "discon": "class_emb.weight"}.get(part)
    if name is None or old == new:
        return state
    first = cfg["codebook_size"] + 1 if part == "rar" else 0
    before, rows, after = state[name].split([first, len(old), len(state[name]) - first - len(old)])
    rows = [rows[old.index(c)] if c in old else rows.mean(0) for c in new]
    return {**state, name: torch.cat([before, torch.stack(rows), after])}


def adopt(config, run, folder, parts):
    """Writes RUN/PART.pt at step 0 with the weights of FOLDER. Returns {part: path}."""
    run = pathlib.Path(run)
    published, nets = load(folder)
    wanted, classes = {}, published["classes"]
    if not {"rar", "discon"}.isdisjoint(parts):
        classes = Images(run / "data", "train").classes
    for part in parts:
        path = run / f"{part}.pt"
        if part not in nets:
            raise TrainError(f"{folder}: no {part}.safetensors there")
        if path.exists():
            raise TrainError(f"{path}: already there; give another --run or remove it")
        if part in ("rar", "discon"):
            wanted[part] = net_config(config, part, len(published["classes"]))
        else:
            wanted[part] = config[part]["net"]
        found = {k: v for k, v in published[part].items() if k not in ADDED.get(part, ())}
        if found != wanted[part]:
            raise TrainError(f"{part} of {folder}: expected {wanted[part]}, found {found}")
    for part in parts:
        state = with_classes(part, nets[part].state_dict(), published[part], published["classes"], classes)
        save(run / f"{part}.pt", dict(step=0, net=state, ema={}, opts=[], task={}, cooldown_from=float("inf"),
                                      seconds=0.0, settings={**DEFAULTS, **config[part]["train"]}, history=[]))
    return {part: run / f"{part}.pt" for part in parts}
