"""The paper's claim: discrete tokens as conditions beside discrete tokens as result and continuous tokens alone."""
import hashlib
import pathlib

import torch

from discon_train.folder import load
from discon_train.sample import rebuild

from .features import JudgeSpace, PhotoSpace
from .judging import Yardstick, rebuilt
from .sets import held_out, sample, seconds_a_picture
from .tuning import GRIDS, as_options

SEED_STEP = 1_000_000


def identity(model):
    """Of a model folder: equal for equal settings and weights."""
    files = sorted(pathlib.Path(model).glob("*.safetensors"))
    digest = hashlib.sha256()
    for path in (pathlib.Path(model) / "discon.json", *files):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def of_sets(yardstick, photo, discon, data):
    """{set: {figure: value}} of held-out pictures and of those that the autoencoders make of them."""
    real, labels = held_out(data, "val")
    vq, vae = rebuild(load(discon)[1], real.float() / 127.5 - 1)
    found = {}
    for name, pictures in (("held out, the other half", real), ("rebuilt by the VQ", vq), ("rebuilt by the VAE", vae)):
        found[name] = yardstick.distances(pictures, labels, name) | yardstick.memorised(pictures, name)
        if pictures is not real:
            found[name] |= rebuilt(photo, real, pictures)
    return found


def systems(run, discon, continuous, count, seeds, work, tuned, dtype, earlier):
    """{"sets": {set: {figure: value}}, "systems": {system: [{figure: value} by seed]}, "seconds": {system: seconds a picture}, "options":
    {system: options of discon sample}, "models": {system: identity}}. `tuned`: {system: what tuning.tune found}. `earlier`: what this
    returned before; its figures of equal models and options are taken as they are. Times are not: they are of one machine."""
    data, work = pathlib.Path(run) / "data", pathlib.Path(work)
    photo = PhotoSpace()
    yardstick = Yardstick([JudgeSpace(), photo], *held_out(data, "test"), train=held_out(data, "train")[0])
    found = {"count": count, "dtype": dtype, "held out": len(yardstick.real), "sets": {}, "systems": {}, "seconds": {}, "options": {}, "models": {}}
    if any(found[key] != earlier.get(key) for key in ("count", "dtype", "held out")):
        earlier = {}

    def had(name, *keys):
        return all(earlier.get(key, {}).get(name) == found[key][name] for key in keys)

    for name, (what, _) in GRIDS.items():
        model = continuous if name == "continuous only" else discon
        if model is None:
            continue
        found["models"][name] = identity(model)
        found["options"][name] = [*what, "--dtype", dtype, *(as_options(tuned[name]["best"]) if name in tuned else ())]
        rows = {row["seed"]: row for row in earlier["systems"][name]} if had(name, "models", "options") else {}
        for seed in seeds:
            if seed not in rows:
                path = work / f"{name.replace(' ', '-')}-{seed}.npz"
                pictures, labels = sample(model, path, count, seed * SEED_STEP, found["options"][name])
                label = f"{name}, seed {seed}"
                rows[seed] = {"seed": seed} | yardstick.distances(pictures, labels, label) | yardstick.memorised(pictures, label)
                print(label, " ".join(f"{k} {v:.3f}" for k, v in rows[seed].items() if k != "seed"), flush=True)
        found["systems"][name] = [rows[seed] for seed in seeds]
        found["seconds"][name] = seconds_a_picture(model, found["options"][name])
    found["sets"] = earlier["sets"] if had("DisCon", "models") else of_sets(yardstick, photo, discon, data)
    return found
