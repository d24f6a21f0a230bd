"""Packed images by class and split: DATA/SPLIT/CLASS.npy, uint8 [images, size, size, 3]."""
import collections
import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from .errors import TrainError
from .progress import bar

SPLITS = ("train", "val", "test")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
RENDERER = pathlib.Path(__file__).resolve().parent.parent / "avatars"


def colour(text):
    """'ffffff' or '#ffffff' -> (r, g, b)."""
    text = text.lstrip("#")
    try:
        if len(text) != 6:
            raise ValueError
        return tuple(bytes.fromhex(text))
    except ValueError:
        raise TrainError(f"colour '{text}' is not six hexadecimal digits") from None


def read_image(path, size, background, mirror=False, scale=1.0, place=(0.5, 0.5)):
    """A picture file -> uint8 [size, size, 3]: alpha laid over `background`, sides padded with it to a square,
    then resized (Lanczos), never cropped. `scale` below 1 is of a copy (see `change`), which is at `place` of the room that leaves:
    what is transparent somewhere is drawn that much smaller; of what is opaque, so that no frame is seen, that share is cut out."""
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as im:
            im = im.convert("RGBA")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as e:
        raise TrainError(f"{path}: not a readable picture ({e})") from None
    if mirror:
        im = im.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    side = max(im.size)
    opaque = im.getextrema()[3][0] == 255
    whole = side if opaque else round(side / scale)
    left, top = (int((whole - side) * p + (side - length) / 2) for p, length in zip(place, im.size))
    square = Image.new("RGBA", (whole, whole), (*background, 255))
    square.alpha_composite(im, (left, top))
    square = square.convert("RGB")
    if scale < 1 and opaque:
        x, y = ((side - scale * side) * p for p in place)
        return np.asarray(square.resize((size, size), Image.LANCZOS, (x, y, x + scale * side, y + scale * side)), np.uint8)
    return np.asarray(square if whole == size else square.resize((size, size), Image.LANCZOS), np.uint8)


def change(key, copy, mirror=True):
    """How copy number `copy` of the file with hash `key` differs from it: arguments of read_image. Number 0 does not;
    every second one is mirrored; all are up to an eighth smaller."""
    if copy == 0:
        return {}
    x, y, small = np.random.default_rng([int(key[:16], 16), copy]).random(3)
    return dict(mirror=mirror and copy % 2 == 1, scale=1 - small / 8, place=(x, y))


def write_npy(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with open(part, "wb") as f:
        np.save(f, array)
    os.replace(part, path)


def pack_folder(source, out, size, background=(255, 255, 255), held_out=0.02, copies=1, mirror=True):
    """SOURCE/CLASS/*.png -> packed arrays in OUT. A picture's split follows from the hash of its file, equal
    files of a class count once, and one that several classes have is only trained on, so no picture is in two splits.
    `held_out` of a class, one at least, goes to val and to test. Pictures of the training split are kept `copies` times, each a little changed but the first."""
    source, out = pathlib.Path(source), pathlib.Path(out)
    if not source.is_dir():
        raise TrainError(f"{source}: no such folder")
    folders = sorted(p for p in source.iterdir() if p.is_dir())
    if not folders:
        raise TrainError(f"{source}: no class folders in it; expected {source}/CLASS/*.png")
    if copies < 1:
        raise TrainError(f"{copies} copies: expected 1 or more")
    if not 0 < held_out < 0.5:
        raise TrainError(f"held out {held_out}: expected a share above 0 and below 0.5, which goes to val and to test each")
    if out.exists() and any(out.iterdir()):
        raise TrainError(f"{out}: not empty; give a new folder or remove it")
    counts, by_folder = {}, {}
    for folder in folders:
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        by_folder[folder] = {hashlib.sha256(p.read_bytes()).hexdigest(): p for p in files}
    classes_with = collections.Counter(key for by_hash in by_folder.values() for key in by_hash)
    for folder, by_hash in by_folder.items():
        if len(by_hash) < 3:
            raise TrainError(f"{folder}: {len(by_hash)} different pictures; a class needs 3 or more ({', '.join(SUFFIXES)})")
        own = sorted(key for key in by_hash if classes_with[key] == 1)
        if len(own) < 2:
            raise TrainError(f"{folder}: {len(own)} pictures that no other class has; a class needs 2 or more to hold out")
        n = min(max(1, round(held_out * len(by_hash))), (len(by_hash) - 1) // 2, len(own) // 2)
        train = sorted(by_hash.keys() - set(own[: 2 * n]))
        for split, part in (("test", own[:n]), ("val", own[n : 2 * n]), ("train", train)):
            images = [read_image(by_hash[k], size, background, **change(k, copy, mirror))
                      for k in bar(part, f"{folder.name} {split}") for copy in range(copies if split == "train" else 1)]
            write_npy(out / split / f"{folder.name}.npy", np.stack(images))
            counts[f"{folder.name}/{split}"] = len(part)
    return counts


def render_avatars(out, train, val, test, size=64, processes=2, classes=None):
    """Draws the avatars with the Node script beside this package."""
    if shutil.which("node") is None:
        raise TrainError("node is not installed; the avatars are drawn by weights/train/avatars/render.mjs")
    if not (RENDERER / "node_modules").is_dir():
        raise TrainError(f"{RENDERER}: packages missing; run 'npm ci' there first")
    base = ["node", str(RENDERER / "render.mjs"), "--out", str(out), "--size", str(size)]
    base += ["--train", str(train), "--val", str(val), "--test", str(test)]
    if classes:
        base += ["--classes", ",".join(classes)]
    jobs = [subprocess.Popen(base + ["--part", f"{i}/{processes}"]) for i in range(processes)]
    if any([j.wait() for j in jobs]):
        raise TrainError("the renderer failed; see its message above")


class Images:
    """The images of one split: `classes` names, `labels` [N], and pixels by index."""

    def __init__(self, folder, split, limit=None):
        folder = pathlib.Path(folder) / split
        files = sorted(folder.glob("*.npy"))
        if not files:
            raise TrainError(f"{folder}: no packed classes (*.npy) there; run the data command first")
        self.classes, self.arrays, starts = [f.stem for f in files], [], [0]
        for f in files:
            a = np.load(f, mmap_mode="r")
            if a.ndim != 4 or a.dtype != np.uint8 or a.shape[1] != a.shape[2] or a.shape[3] != 3:
                raise TrainError(f"{f}: expected uint8 [images, size, size, 3], found {a.dtype} {list(a.shape)}")
            if len(a) == 0:
                raise TrainError(f"{f}: empty class")
            if a.shape[1:] != (self.arrays or [a])[0].shape[1:]:
                raise TrainError(f"{f}: {a.shape[1]} pixels wide, {files[0].name} has {self.arrays[0].shape[1]}")
            self.arrays.append(a[:limit])
            starts.append(starts[-1] + len(self.arrays[-1]))
        self.starts = np.array(starts)
        self.size = self.arrays[0].shape[1]
        self.labels = torch.from_numpy(np.repeat(np.arange(len(files)), np.diff(self.starts)))

    def __len__(self):
        return int(self.starts[-1])

    def pixels(self, index):
        """[N] indices -> uint8 [N, 3, size, size]."""
        index = np.asarray(index)
        which = np.searchsorted(self.starts, index, "right") - 1
        out = np.stack([self.arrays[c][i - self.starts[c]] for c, i in zip(which, index)])
        return torch.from_numpy(out).permute(0, 3, 1, 2).contiguous()

    def batch(self, index):
        """[N] indices -> float [N, 3, size, size] in [-1, 1]."""
        return self.pixels(index).float() / 127.5 - 1

    def spread(self, per_class):
        """Indices of the first `per_class` images of every class, class by class."""
        return np.concatenate([np.arange(a, min(a + per_class, b)) for a, b in zip(self.starts, self.starts[1:])])


class Order:
    """Which images step s sees: a fresh permutation every pass, a function of seed and step alone."""

    def __init__(self, count, batch, seed):
        self.count, self.batch, self.seed, self.epoch = count, batch, seed, None

    def permutation(self, epoch):
        if epoch != self.epoch:
            self.epoch, self.perm = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.count)
        return self.perm

    def __call__(self, step):
        places = step * self.batch + np.arange(self.batch)
        return np.array([self.permutation(p // self.count)[p % self.count] for p in places])


def read_json(path):
    try:
        return json.loads(pathlib.Path(path).read_text())
    except (OSError, ValueError) as e:
        raise TrainError(f"{path}: {e}") from None


def merged(base, changes):
    """`base` with the values of `changes`, section by section."""
    both = {**base, **changes}
    return {k: merged(base[k], v) if isinstance(v, dict) and isinstance(base.get(k), dict) else v for k, v in both.items()}


def read_config(path):
    """Settings of a model. A file may name another beside it under `extends` and say only what is different."""
    config, seen = read_json(path), {pathlib.Path(path).resolve()}
    while "extends" in config:
        path = pathlib.Path(path).parent / config.pop("extends")
        if path.resolve() in seen:
            raise TrainError(f"{path}: extends itself")
        seen.add(path.resolve())
        config = merged(read_json(path), config)
    return config
