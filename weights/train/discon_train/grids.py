"""Sheets of pictures, a row a class: real, rebuilt, discrete only and generated."""
import pathlib

import torch
from PIL import Image

from .data import Images
from .folder import load, to_u8
from .sample import generate, rebuild


def sheet(pictures, columns, gap=2):
    """uint8 [N, 3, H, W] -> one picture of rows of `columns`."""
    N, _, H, W = pictures.shape
    rows = -(-N // columns)
    out = torch.full((3, rows * (H + gap) + gap, columns * (W + gap) + gap), 255, dtype=torch.uint8)
    for i, p in enumerate(pictures):
        y, x = gap + i // columns * (H + gap), gap + i % columns * (W + gap)
        out[:, y : y + H, x : x + W] = p
    return Image.fromarray(out.permute(1, 2, 0).numpy())


def write_grids(folder, data, out, columns=8, seed=1, sampling=None, only=None):
    """Writes real, rebuilt, discrete and generated .png to OUT; pictures of the test split. `rebuilt` shows a real
    picture, then its VQ and its VAE version, and so on."""
    config, nets = load(folder)
    out, images = pathlib.Path(out), Images(data, "test")
    out.mkdir(parents=True, exist_ok=True)
    real = images.batch(images.spread(columns))
    found = {}
    if only in (None, "real"):
        found["real"] = (to_u8(real), columns)
    if only in (None, "rebuilt"):
        few = images.batch(images.spread(4))
        found["rebuilt"] = (torch.stack([to_u8(few), *rebuild(nets, few)], 1).flatten(0, 1), 12)
    if only in (None, "generated"):
        classes = torch.arange(len(config["classes"])).repeat_interleave(columns)
        _, discrete, generated = generate(config, nets, classes, seed, sampling)
        found |= {"discrete": (discrete, columns), "generated": (generated, columns)}
    for name, (pictures, wide) in found.items():
        sheet(pictures, wide).save(out / f"{name}.png", optimize=True)
    return [out / f"{n}.png" for n in found]
