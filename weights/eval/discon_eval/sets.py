"""The sets of pictures that are compared: made by the engine, held out, or rebuilt."""
import pathlib
import re
import subprocess
import tempfile

import numpy as np
import torch

from discon_train.data import Images
from discon_train.errors import TrainError

ROOT = pathlib.Path(__file__).resolve().parents[3]
ENGINE = ROOT / "target/release/discon"


def run(command, **how):
    """Runs the engine, its progress on the terminal unless `how` says otherwise."""
    try:
        return subprocess.run([str(c) for c in command], check=True, **how)
    except (OSError, subprocess.CalledProcessError) as e:
        raise TrainError(f"{' '.join(map(str, command))}: {e}") from None


def sample(model, path, count, seed, options=()):
    """`count` pictures of `discon sample`, classes in turn: (uint8 [N, 3, H, W], class [N]). Made once: the engine sees whether those at `path`
    are of this model and these options, and refuses others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    run([ENGINE, "sample", "--model", model, "--count", count, "--seed", seed, "--npz", path, *options])
    with np.load(path) as made:
        pictures, labels = made["arr_0"], made["arr_1"]
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)


def held_out(data, split, per_class=None):
    """(uint8 [N, 3, H, W], class [N]) of a split of the trainer's data."""
    images = Images(data, split)
    index = images.spread(per_class or len(images))
    return images.pixels(index), images.labels[index]


def seconds_a_picture(model, options=(), count=48):
    """Seconds a picture of pictures made one after the other, as `discon sample` tells them at its end; the better of two runs."""
    return min(seconds_of_a_run(model, options, count) for _ in range(2))


def seconds_of_a_run(model, options, count):
    with tempfile.TemporaryDirectory() as folder:
        command = [ENGINE, "sample", "--model", model, "--count", count, "--batch", 1, "--npz", pathlib.Path(folder) / "timed.npz", *options]
        done = run(command, capture_output=True, text=True)
    found = re.search(r"(\d+) images in ([0-9.]+) s", done.stdout + done.stderr)
    if not found:
        raise TrainError(f"{' '.join(map(str, command))}: expected 'N images in S s', found {(done.stdout + done.stderr)[-200:]!r}")
    return float(found[2]) / int(found[1])
