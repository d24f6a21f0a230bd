"""The paper's claim: discrete tokens as conditions beside discrete tokens as result and continuous tokens alone."""
import pathlib

import torch

from discon_train.folder import load
from discon_train.sample import rebuild

from .features import JudgeSpace, PhotoSpace
from .judging import Yardstick, rebuilt
from .sets import held_out, sample, seconds_a_picture
from .tuning import GRIDS, as_options

SEED_STEP = 1_000_000


def systems(run, discon, continuous, count, seeds, work, tuned, dtype):
    """{"sets": {set: {figure: value}}, "systems": {system: [{figure: value} by seed]}, "seconds": {system: seconds a picture}, "options":
    {system: options of discon sample}}. `tuned`: {system: what tuning.tune found}."""
    data, work = pathlib.Path(run) / "data", pathlib.Path(work)
    photo = PhotoSpace()
    yardstick = Yardstick([JudgeSpace(), photo], *held_out(data, "test"), train=held_out(data, "train")[0])
    found = {"count": count, "dtype": dtype, "held out": len(yardstick.real), "sets": {}, "systems": {}, "seconds": {}, "options": {}}
    real, labels = held_out(data, "val")
    vq, vae = rebuild(load(discon)[1], real.float() / 127.5 - 1)
    for name, pictures in (("held out, the other half", real), ("rebuilt by the VQ", vq), ("rebuilt by the VAE", vae)):
        found["sets"][name] = yardstick.distances(pictures, labels, name) | yardstick.memorised(pictures, name)
        if pictures is not real:
            found["sets"][name] |= rebuilt(photo, real, pictures)
    for name, (what, _) in GRIDS.items():
        model = continuous if name == "continuous only" else discon
        if model is None:
            continue
        options = [*what, "--dtype", dtype, *(as_options(tuned[name]["best"]) if name in tuned else ())]
        found["options"][name], found["systems"][name] = options, []
        for seed in seeds:
            path = work / f"{name.replace(' ', '-')}-{seed}.npz"
            pictures, labels = sample(model, path, count, seed * SEED_STEP, options)
            label = f"{name}, seed {seed}"
            row = {"seed": seed} | yardstick.distances(pictures, labels, label) | yardstick.memorised(pictures, label)
            print(label, " ".join(f"{k} {v:.3f}" for k, v in row.items() if k != "seed"), flush=True)
            found["systems"][name].append(row)
        found["seconds"][name] = seconds_a_picture(model, options)
    return found
