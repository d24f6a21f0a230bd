"""Sheets of pictures, a row a class: real, rebuilt, discrete only, generated, and the training pictures nearest to these."""
import pathlib

import torch
import torch.nn.functional as F
from PIL import Image

from .checks import check_model
from .data import Images
from .folder import load, to_u8
from .sample import generate, rebuild


def rows(images, columns):
    """The first `columns` pictures of every class, uint8, white where a class has fewer: [classes * columns, 3, H, W]."""
    out = torch.full((len(images.classes) * columns, 3, images.size, images.size), 255, dtype=torch.uint8)
    for c, (a, b) in enumerate(zip(images.starts, images.starts[1:])):
        few = images.pixels(range(a, min(a + columns, b)))
        out[c * columns : c * columns + len(few)] = few
    return out


def nearest(pictures, images):
    """Of every picture, uint8 [N, 3, H, W], the most similar one of `images`, by the squared error of both drawn at a quarter of the size."""
    small = lambda p: F.avg_pool2d(p.float() / 255, min(4, p.shape[-1])).flatten(1)
    ours, best, found = small(pictures), torch.full((len(pictures),), float("inf")), torch.zeros(len(pictures), dtype=torch.long)
    for i in range(0, len(images), 1024):
        d, place = torch.cdist(ours, small(images.pixels(range(i, min(i + 1024, len(images)))))).min(1)
        found[d < best] = place[d < best] + i
        best = best.minimum(d)
    return images.pixels(found.numpy())


def sheet(pictures, columns, gap=2):
    """uint8 [N, 3, H, W] -> one picture of rows of `columns`."""
    N, _, H, W = pictures.shape
    lines = -(-N // columns)
    out = torch.full((3, lines * (H + gap) + gap, columns * (W + gap) + gap), 255, dtype=torch.uint8)
    for i, p in enumerate(pictures):
        y, x = gap + i // columns * (H + gap), gap + i % columns * (W + gap)
        out[:, y : y + H, x : x + W] = p
    return Image.fromarray(out.permute(1, 2, 0).numpy())


def write_grids(folder, data, out, columns=8, seed=1, sampling=None, only=None):
    """Writes real, rebuilt, discrete, generated and nearest .png to OUT; real pictures of the test split. `rebuilt` shows a real
    picture, then its VQ and its VAE version, and so on; `nearest` a generated one, then the training picture most like it."""
    config, nets = load(folder)
    out, images = pathlib.Path(out), Images(data, "test")
    check_model(folder, config, images)
    out.mkdir(parents=True, exist_ok=True)
    found = {}
    if only in (None, "real"):
        found["real"] = (rows(images, columns), columns)
    if only in (None, "rebuilt"):
        few = rows(images, 4)
        found["rebuilt"] = (torch.stack([few, *rebuild(nets, few.float() / 127.5 - 1)], 1).flatten(0, 1), 12)
    if only in (None, "generated"):
        classes = torch.arange(len(config["classes"])).repeat_interleave(columns)
        _, discrete, generated = generate(config, nets, classes, seed, sampling)
        pairs = torch.stack([generated, nearest(generated, Images(data, "train"))], 1).flatten(0, 1)
        found |= {"discrete": (discrete, columns), "generated": (generated, columns), "nearest": (pairs, 2 * columns)}
    for name, (pictures, wide) in found.items():
        sheet(pictures, wide).save(out / f"{name}.png", optimize=True)
    return [out / f"{n}.png" for n in found]
