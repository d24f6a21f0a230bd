"""The paper's claim: discrete tokens as conditions beside discrete tokens as result and continuous tokens alone."""
import hashlib
import pathlib

import torch

from discon_train.data import Images
from discon_train.folder import load
from discon_train.sample import rebuild

from .features import JUDGE, JudgeSpace, PhotoSpace
from .judging import Yardstick, rebuilt
from .sets import held_out, sample, seconds_a_picture
from .tuning import GRIDS, as_options

SEED_STEP = 1_000_000
# Systems that are models of their own: they may be left out.
RIVALS = ("continuous only", "without codes")
# The autoencoder that a system's pictures come out of.
THROUGH = {"discrete only": "VQ", "continuous only": "VAE", "without codes": "VAE", "DisCon": "VAE"}


def identity(paths):
    """Of files: equal for equal names and contents."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as f:
            digest.update(path.name.encode() + hashlib.file_digest(f, "sha256").digest())
    return digest.hexdigest()[:16]


def identity_of_model(folder):
    folder = pathlib.Path(folder)
    return identity([folder / "discon.json", *sorted(folder.glob("*.safetensors"))])


def of_sets(yardstick, photo, nets, data, count):
    """{set: {figure: value}} of `count` held-out pictures, of what the autoencoders make of them, and of training pictures that the VAE has
    rebuilt: what a model would draw that knew these by heart."""
    classes = len(Images(data, "val").classes)
    (real, labels), (known, known_labels) = (held_out(data, split, count // classes) for split in ("val", "train"))
    vq, vae = rebuild(nets, real.float() / 127.5 - 1)
    sets = {"held out, the other half": (real, labels, None), "rebuilt by the VQ": (vq, labels, "VQ"), "rebuilt by the VAE": (vae, labels, "VAE"),
            "training, rebuilt by the VAE": (rebuild(nets, known.float() / 127.5 - 1)[1], known_labels, "VAE")}
    found = {}
    for name, (pictures, of, through) in sets.items():
        found[name] = yardstick.distances(pictures, of, name) | yardstick.memorised(pictures, of, name, through)
        if through and of is labels:
            found[name] |= rebuilt(photo, real, pictures)
    return found


def systems(run, discon, rivals, count, seeds, work, tuned, dtype, earlier):
    """{"sets": {set: {figure: value}}, "systems": {system: [{figure: value} by seed]}, "seconds": {system: seconds a picture}, "options":
    {system: options of discon sample}, "models": {system: identity}, "yardstick": identity of the classifier and the pictures}. `rivals`:
    {system: model folder} of those that are models of their own. `tuned`:
    {system: what tuning.tune found}. `earlier`: what this returned before; its figures of equal models, options and yardstick are taken as
    they are. Times are not: they are of one machine."""
    data, work = pathlib.Path(run) / "data", pathlib.Path(work)
    photo, nets = PhotoSpace(), load(discon)[1]
    real, labels = held_out(data, "test")
    vq, vae = rebuild(nets, real.float() / 127.5 - 1)
    yardstick = Yardstick([JudgeSpace(), photo], real, labels, train=held_out(data, "train")[0], rebuilt={"VQ": vq, "VAE": vae})
    found = {"count": count, "dtype": dtype, "yardstick": identity([JUDGE, *sorted(data.rglob("*.npy"))]),
             "sets": {}, "systems": {}, "seconds": {}, "options": {}, "models": {}}
    if any(found[key] != earlier.get(key) for key in ("count", "dtype", "yardstick")):
        earlier = {}

    def had(name, *keys):
        return all(earlier.get(key, {}).get(name) == found[key][name] for key in keys)

    for name, (what, _) in GRIDS.items():
        model = rivals.get(name) if name in RIVALS else discon
        if model is None:
            continue
        found["models"][name] = identity_of_model(model)
        found["options"][name] = [*what, "--dtype", dtype, *(as_options(tuned[name]["best"]) if name in tuned else ())]
        rows = {row["seed"]: row for row in earlier["systems"][name]} if had(name, "models", "options") else {}
        for seed in seeds:
            if seed not in rows:
                path = work / f"{name.replace(' ', '-')}-{seed}.npz"
                pictures, labels = sample(model, path, count, seed * SEED_STEP, found["options"][name])
                label = f"{name}, seed {seed}"
                rows[seed] = {"seed": seed} | yardstick.distances(pictures, labels, label) | yardstick.memorised(pictures, labels, label, THROUGH[name])
                print(label, " ".join(f"{k} {v:.3f}" for k, v in rows[seed].items() if k != "seed"), flush=True)
        found["systems"][name] = [rows[seed] for seed in seeds]
        found["seconds"][name] = seconds_a_picture(model, found["options"][name])
    found["sets"] = earlier["sets"] if had("DisCon", "models") else of_sets(yardstick, photo, nets, data, count)
    return found
