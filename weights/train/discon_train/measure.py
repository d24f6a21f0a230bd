"""Figures for the model card: sizes, training steps and time, last held-out figures, PSNR on the test split."""
import pathlib

import torch

from .autoencoders import split_psnr
from .checks import check_model
from .data import Images
from .folder import PARTS, load


def seen(run):
    """{class: share of the test pictures that are, pixel for pixel, also in the training split}, where not zero."""
    train, test = Images(run / "data", "train"), Images(run / "data", "test")
    found = {}
    for name, a, b in zip(train.classes, train.arrays, test.arrays):
        known = {image.tobytes() for image in a}
        found[name] = sum(image.tobytes() in known for image in b) / len(b)
    return {k: v for k, v in found.items() if v}


@torch.no_grad()
def measure(folder, run, per_class=None):
    folder, run = pathlib.Path(folder), pathlib.Path(run)
    config, nets = load(folder)
    print("| part | parameters | bytes | steps x batch | minutes | held out |\n|---|---|---|---|---|---|")
    rows = [(part, name) for part in PARTS for name in (part, f"{part}-sharp") if name == part or (run / f"{name}.pt").exists()]
    for part, name in rows:
        state = torch.load(run / f"{name}.pt", map_location="cpu", weights_only=False)
        count = sum(p.numel() for p in nets[part].parameters())
        held = " ".join(f"{k} {v:.4g}" for k, v in (state["history"] or [{}])[-1].items() if k not in ("step", "seconds"))
        size = (folder / f"{part}.safetensors").stat().st_size
        print(f"| {name} | {count} | {size} | {state['step']} x {state['settings']['batch']} | {state['seconds'] / 60:.1f} | {held} |", flush=True)
    images = Images(run / "data", "test")
    check_model(folder, config, images)
    index = images.spread(per_class or len(images))
    vae = split_psnr(images, index, lambda x: nets["vae"].decode(nets["vae"].encode(x)[0]))
    vq = split_psnr(images, index, lambda x: 2 * nets["vq"].decode(nets["vq"].encode((x + 1) / 2)) - 1)
    print(f"test split, {len(index)} pictures, exported weights: PSNR of the VAE {vae:.2f} dB, of the VQ {vq:.2f} dB")
    same = seen(run)
    print("test pictures also in the training split:", " ".join(f"{k} {v:.0%}" for k, v in same.items()) or "none")
    return {"vae": vae, "vq": vq}
