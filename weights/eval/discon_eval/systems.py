"""The paper's claim: discrete tokens as conditions beside discrete tokens as result and continuous tokens alone; and the model as it is shipped."""
import functools
import pathlib

import torch

from discon_train.data import Images
from discon_train.folder import load
from discon_train.grids import sheet
from discon_train.sample import rebuild

from . import identity
from .features import JudgeSpace, PhotoSpace
from .judging import Yardstick, rebuilt
from .sets import held_out, sample, seconds_a_picture
from .tuning import TRIES, as_options

SEED_STEP = 1_000_000
# Pictures of a class on a sheet.
LOOK = 4
# Systems that are models of their own: they may be left out.
RIVALS = ("continuous only", "without codes")
# DisCon by its own settings, rounds and steps: what a user gets who gives none.
SHIPPED = "DisCon as shipped"
# The autoencoder that a system's pictures come out of.
THROUGH = {"discrete only": "VQ", "continuous only": "VAE", "without codes": "VAE", "DisCon": "VAE", SHIPPED: "VAE"}


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


def look(name, model, classes, seed, work, options, folder):
    """A sheet of the first pictures that a system is judged by, a column a class."""
    pictures, _ = sample(model, work / f"look-{name}.npz", LOOK * classes, seed, options)
    folder.mkdir(parents=True, exist_ok=True)
    sheet(pictures, classes).save(folder / f"system-{name}.png", optimize=True)


def systems(run, discon, rivals, count, seeds, work, tuned, dtype, earlier, looks=None):
    """{"sets": {set: {figure: value}}, "systems": {system: [{figure: value} by seed]}, "seconds": {system: seconds a picture}, "options":
    {system: options of discon sample}, "sampling": {system: the model's own settings beside those}, "models": {system: identity},
    "yardstick": identity of the classifier and the pictures}. `rivals`: {system: model folder} of those that are models of their own.
    `tuned`: {system: what tuning.tune found}. `earlier`: what this returned before; its figures of equal models, settings and yardstick are
    taken as they are, those of a rival whose folder is not given as long as DisCon's model is the same. Times are not: they are of one
    machine. `looks`: a folder for sheets of some pictures of each."""
    data, work = pathlib.Path(run) / "data", pathlib.Path(work)

    @functools.cache
    def yard():
        photo, nets = PhotoSpace(), load(discon)[1]
        real, labels = held_out(data, "test")
        vq, vae = rebuild(nets, real.float() / 127.5 - 1)
        return Yardstick([JudgeSpace(), photo], real, labels, train=held_out(data, "train")[0], rebuilt={"VQ": vq, "VAE": vae}), photo, nets

    found = {"count": count, "dtype": dtype, "yardstick": identity.of_yardstick(data),
             "sets": {}, "systems": {}, "seconds": {}, "options": {}, "sampling": {}, "models": {}}
    if any(found[key] != earlier.get(key) for key in ("count", "dtype", "yardstick")):
        earlier = {}

    def had(name, *keys):
        return all(earlier.get(key, {}).get(name) == found[key][name] for key in keys)

    beside = identity.of_model(discon) == earlier.get("models", {}).get("DisCon")
    for name, what in ({name: what for name, (what, _) in TRIES.items()} | {SHIPPED: ()}).items():
        model = rivals.get(name) if name in RIVALS else discon
        if model is None:
            if beside and name in earlier["systems"]:
                for key in ("models", "options", "sampling", "systems"):
                    found[key][name] = earlier[key][name]
            continue
        found["models"][name] = identity.of_model(model)
        found["options"][name] = [*what, "--dtype", dtype, *(as_options(tuned[name]["best"]) if name in tuned else ())]
        found["sampling"][name] = identity.own_sampling(model, found["options"][name])
        rows = {row["seed"]: row for row in earlier["systems"][name]} if had(name, "models", "options", "sampling") else {}
        for seed in seeds:
            if seed not in rows:
                path = work / f"{name.replace(' ', '-')}-{seed}.npz"
                pictures, labels = sample(model, path, count, seed * SEED_STEP, found["options"][name])
                label, yardstick = f"{name}, seed {seed}", yard()[0]
                rows[seed] = {"seed": seed} | yardstick.distances(pictures, labels, label) | yardstick.memorised(pictures, labels, label, THROUGH[name])
                print(label, " ".join(f"{k} {v:.3f}" for k, v in rows[seed].items() if k != "seed"), flush=True)
        found["systems"][name] = [rows[seed] for seed in seeds]
        if looks and name != SHIPPED:
            look(name.replace(" ", "-"), model, len(Images(data, "test").classes), seeds[0] * SEED_STEP, work, found["options"][name], looks)
        found["seconds"][name] = seconds_a_picture(model, found["options"][name])
    found["sets"] = earlier["sets"] if had("DisCon", "models") else of_sets(*yard(), data, count)
    return found
