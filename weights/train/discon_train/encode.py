"""Latents and codes of the whole data set, computed once the autoencoders are trained.

RUN/latents/SPLIT.npy: float16 [images, L, C], posterior means in raster order; latents/stats.json: mean and deviation
of every channel over the training split. RUN/codes/SPLIT.npy: int16 [images, L]; codes/codebook.npy: float32 [K, C].
Products are of float32, as the engine's are where it encodes.
"""
import json
import pathlib

import numpy as np
import torch

from .data import SPLITS, Images, read_json, write_npy
from .errors import TrainError
from .loop import trained
from .nets.vae import Vae
from .nets.vq import Vq
from .progress import bar

# Few at a time, channels last in memory: half the time of the usual layout in large batches, on a processor.
BATCH = {"cpu": 16, "cuda": 512}


@torch.no_grad()
def sweep(images, net, encode, label, device):
    """encode(pictures) of all images, as an array."""
    net.to(device, memory_format=torch.channels_last)
    size = BATCH[device.type]
    batch = lambda i: images.batch(np.arange(i, min(i + size, len(images)))).to(device, memory_format=torch.channels_last)
    return np.concatenate([encode(batch(i)).cpu().numpy() for i in bar(range(0, len(images), size), label)])


def encode_latents(config, run, device):
    section = config["vae"]
    flag = section.get("task", {}).get("attention", False)
    net, _ = trained(Vae(section["net"], (flag, flag)), run, "vae")
    tokens = lambda x: net.encode(x)[0].flatten(2).transpose(1, 2).half()
    for split in SPLITS:
        found = sweep(Images(run / "data", split), net, tokens, f"latents {split}", device)
        write_npy(run / "latents" / f"{split}.npy", found)
        if split == "train":
            wide = found.reshape(-1, found.shape[-1]).astype(np.float32)
            stats = dict(mean=[round(float(v), 6) for v in wide.mean(0)], std=[round(float(v), 6) for v in wide.std(0)])
    (run / "latents" / "stats.json").write_text(json.dumps(stats))


def encode_codes(config, run, device):
    net, _ = trained(Vq(config["vq"]["net"]), run, "vq")
    codes = lambda x: net.encode((x + 1) / 2).short()
    for split in SPLITS:
        write_npy(run / "codes" / f"{split}.npy", sweep(Images(run / "data", split), net, codes, f"codes {split}", device))
    write_npy(run / "codes" / "codebook.npy", net.quantize.embedding.weight.cpu().numpy())


class Tokens:
    """Labels [N] of a split and, on demand, codes [N, L] with their codebook and normalised latents [N, L, C]."""

    def __init__(self, run, split, codes=False, latents=False):
        run = pathlib.Path(run)
        images = Images(run / "data", split)
        self.labels, self.classes, self.starts = images.labels, images.classes, images.starts
        self.found = {}
        if codes:
            self.codes = torch.from_numpy(self.read(run / "codes" / f"{split}.npy")).long()
            self.codebook = torch.from_numpy(self.read(run / "codes" / "codebook.npy", rows=None))
            self.found |= dict(seq_len=self.codes.shape[1], codebook_size=len(self.codebook))
        if latents:
            raw = torch.from_numpy(self.read(run / "latents" / f"{split}.npy"))
            stats = read_json(run / "latents" / "stats.json")
            mean, std = (torch.tensor(stats[k]) for k in ("mean", "std"))
            self.tokens = ((raw.float() - mean) / std).half()
            self.found |= dict(seq_len=raw.shape[1], token_dim=raw.shape[2])

    def read(self, path, rows=True):
        """The array of a file, with a row for each image."""
        try:
            array = np.load(path)
        except FileNotFoundError:
            raise TrainError(f"{path}: not there yet; run the encode command first") from None
        if rows and len(array) != len(self):
            raise TrainError(f"{path}: {len(array)} rows for {len(self)} images; run the encode command again")
        self.path = path
        return array

    def to(self, device):
        for name in ("labels", "codes", "tokens"):
            if hasattr(self, name):
                setattr(self, name, getattr(self, name).to(device))

    def fits(self, cfg):
        """An error unless the codes and latents are those of a transformer's section `cfg`."""
        wanted = {k: cfg[k] for k in self.found}
        if self.found != wanted:
            raise TrainError(f"{self.path} and what is beside it: expected {wanted}, found {self.found}; run the encode command again")
        return self

    def __len__(self):
        return len(self.labels)

    def spread(self, per_class):
        return np.concatenate([np.arange(a, min(a + per_class, b)) for a, b in zip(self.starts, self.starts[1:])])
