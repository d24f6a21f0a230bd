"""A small classifier of the training pictures, used to judge generated ones: class accuracy, and the Fréchet distance
of its features to those of real test pictures. Figures of different runs of the classifier do not compare."""
import pathlib

import torch
import torch.nn.functional as F
from torch import nn

from .checks import check_model
from .data import Images
from .errors import TrainError
from .folder import load
from .loop import Task, train, trained
from .sample import generate, rebuild

TRAIN = dict(steps=700, cooldown=300, warmup=50, batch=32, lr=2e-3, eval_every=700, weight_decay=0.01)


class Judge(nn.Module):
    """[B, 3, H, W] in [-1, 1] -> (class logits [B, classes], features [B, 64])."""

    def __init__(self, classes):
        super().__init__()
        widths = [3, 32, 48, 64, 64]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip(widths, widths[1:]))
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in widths[1:])
        self.out = nn.Linear(64, classes)

    def forward(self, x):
        for c, n in zip(self.convs, self.norms):
            x = F.silu(n(c(x)))
        features = x.mean((2, 3))
        return self.out(features), features


class JudgeTask(Task):
    def __init__(self, data, seed=1):
        torch.manual_seed(seed)
        self.train_set, self.val_set = Images(data, "train"), Images(data, "val")
        self.net, self.count = Judge(len(self.train_set.classes)), len(self.train_set)

    def loss(self, index, gen, step):
        loss = F.cross_entropy(self.net(self.train_set.batch(index))[0], self.train_set.labels[index])
        return loss, dict(loss=loss.item())

    def evaluate(self):
        logits, _ = features(self.net, self.val_set.pixels(self.val_set.spread(32)))
        return {"accuracy": (logits.argmax(1) == self.val_set.labels[self.val_set.spread(32)]).float().mean().item()}


@torch.no_grad()
def features(net, pictures, batch=64):
    """uint8 [N, 3, H, W] -> (logits, features)."""
    parts = [net(pictures[i : i + batch].float() / 127.5 - 1) for i in range(0, len(pictures), batch)]
    return tuple(torch.cat(x) for x in zip(*parts))


def frechet(a, b):
    """Distance of the normal distributions fitted to features a [N, D] and b [M, D] (Heusel et al. 2017, 1706.08500)."""
    a, b = a.double(), b.double()
    ca, cb = torch.cov(a.T), torch.cov(b.T)
    # ca cb has the eigenvalues of the symmetric root(ca) cb root(ca), of which none can be below 0.
    values, vectors = torch.linalg.eigh(ca)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    trace = torch.linalg.eigvalsh(root @ cb @ root).clamp(min=0).sqrt().sum()
    return ((a.mean(0) - b.mean(0)).pow(2).sum() + ca.trace() + cb.trace() - 2 * trace).item()


def make_judge(run):
    """The classifier of a run, trained to its end if it is not yet."""
    run = pathlib.Path(run)
    state = train(JudgeTask(run / "data"), run, "judge", TRAIN)
    if state["step"] < state["cooldown_from"] + TRAIN["cooldown"]:
        raise TrainError(f"{run / 'judge.pt'}: stopped at step {state['step']}; the next call goes on with it")
    return trained(Judge(len(Images(run / "data", "train").classes)), run, "judge")[0]


def judge(folder, run, per_class=32, seed=5, sampling=None, parts=("real", "rebuilt", "generated")):
    """Prints and returns {name: (accuracy, distance)} for pictures of every class."""
    config, nets = load(folder)
    images = Images(pathlib.Path(run) / "data", "test")
    check_model(folder, config, images)
    least, name = min(zip(map(len, images.arrays), images.classes))
    if least < 2 * per_class:
        raise TrainError(f"class {name}: {least} test pictures, --per-class {per_class} wants {2 * per_class}: half to judge, half to judge by")
    net, found = make_judge(run), {}
    labels = torch.arange(len(config["classes"])).repeat_interleave(per_class)
    index = images.spread(2 * per_class).reshape(len(config["classes"]), 2, -1)
    reference = features(net, images.pixels(index[:, 0].flatten()))[1]

    def add(name, pictures):
        logits, f = features(net, pictures)
        found[name] = ((logits.argmax(1) == labels[: len(f)]).float().mean().item(), frechet(f, reference))
        print(f"{name}: class accuracy {found[name][0]:.3f}, Frechet distance {found[name][1]:.3f}", flush=True)

    if "real" in parts:
        add("real", images.pixels(index[:, 1].flatten()))
    if "rebuilt" in parts:
        vq, vae = rebuild(nets, images.batch(index[:, 1].flatten()))
        add("rebuilt by the VQ", vq)
        add("rebuilt by the VAE", vae)
    if "generated" in parts:
        _, discrete, generated = generate(config, nets, labels, seed, sampling)
        add("discrete only", discrete)
        add("generated", generated)
    return found
