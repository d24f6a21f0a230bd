"""Trains the decoder of an autoencoder further, with its encoder as it is, on how pictures look and not on their pixels alone.

A decoder that only minimises an error of pixels draws the mean of all pictures that its input allows, which is blurred. Here the
features that a network of photographs has of them must be near as well, as in LPIPS (Zhang et al. 2018, 1801.03924), without its learnt weights. Latents
and codes stay what they were, so the transformers need not be trained again.
"""
import pathlib

import numpy as np
import torch

from .autoencoders import looks, noisy, split_psnr
from .data import Images
from .encode import Tokens
from .errors import TrainError
from .eyes import Eyes
from .loop import Task, fingerprint, trained
from .nets.vae import Vae
from .nets.vq import Vq

# What a config's section `sharpen.train` does not say.
TRAIN = dict(steps=1500, cooldown=500, warmup=50, batch=8, lr=6e-4, bf16=True, optimizer="muon", muon_scale=2.0, ema=0.995, eval_every=500)


class SharpenTask(Task):
    """`part` is vae or vq. `perceptual`: weight of the distance of features beside that of pixels; `noise`: as in the autoencoder's own training."""

    def __init__(self, config, run, part, perceptual=0.3, noise=0.2, size=96, seed=1, eval_images=8):
        torch.manual_seed(seed)
        run = pathlib.Path(run)
        section = config[part]
        flag = section.get("task", {}).get("attention", False)
        self.part, self.perceptual, self.noise = part, perceptual, noise
        net = Vae(section["net"], (flag, flag)) if part == "vae" else Vq(section["net"])
        self.net, plain = trained(net, run, part, sharp=False)
        self.of = fingerprint(plain)
        for name, p in self.net.named_parameters():
            p.requires_grad_(name.startswith(("decoder.", "post_quant_conv.")))
        self.images, self.val_set = Images(run / "data", "train"), Images(run / "data", "val")
        self.count, self.val_index = len(self.images), self.val_set.spread(eval_images)
        path = run / ("latents" if part == "vae" else "codes") / "train.npy"
        if not path.exists():
            raise TrainError(f"{path}: not there; run the encode command first")
        self.inputs = np.load(path, mmap_mode="r") if part == "vae" else Tokens(run, "train", codes=True).codes
        if len(self.inputs) != self.count:
            raise TrainError(f"{path}: {len(self.inputs)} rows for {self.count} images; run the encode command again")
        self.eyes = Eyes(size)

    def to(self, device):
        self.eyes.to(device)
        return super().to(device)

    def draw(self, index, gen):
        """What the decoder makes of pictures: [B, 3, H, W] in [-1, 1]."""
        if self.part == "vq":
            return 2 * self.net.decode(self.here(self.inputs[index])) - 1
        z = self.here(torch.from_numpy(self.inputs[index])).float().transpose(1, 2).unflatten(2, (int(self.inputs.shape[1] ** 0.5), -1))
        return self.net.decode(noisy(z, self.noise, gen))

    def loss(self, index, gen, step):
        return looks(self.draw(index, gen), self.here(self.images.batch(index)), self.eyes, self.perceptual)

    def state(self):
        return {"of": self.of}

    def load_state(self, state):
        if state["of"] != self.of:
            raise TrainError(f"{self.part}-sharp.pt: made of another {self.part}.pt than the one beside it; remove it")

    def evaluate(self):
        if self.part == "vq":
            rebuild = lambda x: 2 * self.net.decode(self.net.encode((x + 1) / 2)) - 1
        else:
            rebuild = lambda x: self.net.decode(self.net.encode(x)[0])
        parts = [self.here(self.val_set.batch(self.val_index[i : i + 32])) for i in range(0, len(self.val_index), 32)]
        seen = sum(self.eyes.distance(rebuild(x), x).item() * len(x) for x in parts)
        return {"psnr": split_psnr(self.val_set, self.val_index, rebuild, self.device), "perceptual": seen / len(self.val_index)}
