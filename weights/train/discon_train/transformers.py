"""Training of stage 1 (codes from a class) and stage 2 (continuous tokens from class and codes)."""
import torch
import torch.nn.functional as F

from .encode import Tokens
from .loop import Task, generator
from .nets.rar import Rar
from .nets.stage2 import Stage2


class OverTokens(Task):
    """A task whose splits are `train_set` and `val_set`, and small enough to lie on the device as a whole."""

    def to(self, device):
        self.train_set.to(device), self.val_set.to(device)
        return super().to(device)


class RarTask(OverTokens):
    """`drop`: share of rows trained without a class, for guidance."""

    def __init__(self, cfg, run, drop=0.1, seed=1, eval_images=32):
        torch.manual_seed(seed)
        self.cfg, self.drop = cfg, drop
        self.train_set, self.val_set = (Tokens(run, split, codes=True).fits(cfg) for split in ("train", "val"))
        self.net, self.count = Rar(cfg), len(self.train_set)
        self.net.start_codes(self.train_set.codebook)
        self.val_index = self.val_set.spread(eval_images)

    def cross_entropy(self, codes, classes):
        logits = self.net(codes[:, :-1], classes)
        return F.cross_entropy(logits.float().flatten(0, 1), codes.flatten())

    def loss(self, index, gen, step):
        codes, classes = self.train_set.codes[index], self.train_set.labels[index]
        classes[self.here(torch.rand(len(index), generator=gen) < self.drop)] = self.cfg["num_classes"]
        loss = self.cross_entropy(codes, classes)
        return loss, dict(loss=loss.item())

    def evaluate(self):
        i = self.val_index
        parts = [i[j : j + 64] for j in range(0, len(i), 64)]
        return {"cross_entropy": sum(self.cross_entropy(self.val_set.codes[p], self.val_set.labels[p]).item() * len(p) for p in parts) / len(i)}


def mask_count(places, gen, low=0.7, spread=0.25):
    """How many of `places` are masked: a normal around 1 cut to [low, 1], as MAR trains."""
    while True:
        share = 1 + spread * torch.randn((), generator=gen).item()
        if low <= share <= 1:
            return max(1, -int(-places * share // 1))


class Stage2Task(OverTokens):
    """`drop`: share of rows without class and codes; `replace`: share of codes made random, so that stage 2 forgives
    stage 1; `repeat`: timesteps trained for every token; `low`: least share of places masked."""

    def __init__(self, cfg, run, drop=0.1, replace=0.05, repeat=4, low=0.7, seed=1, eval_images=16):
        torch.manual_seed(seed)
        self.cfg, self.drop, self.replace, self.repeat, self.low = cfg, drop, replace, repeat, low
        self.train_set, self.val_set = (Tokens(run, split, codes=cfg["discrete"], latents=True).fits(cfg) for split in ("train", "val"))
        self.net, self.count = Stage2(cfg), len(self.train_set)
        if cfg["discrete"]:
            self.net.start_codes(self.train_set.codebook)
        self.val_index = self.val_set.spread(eval_images)

    def codes(self, data, index):
        """The codes of these images, or none where the model has no use for them."""
        return data.codes[index] if self.cfg["discrete"] else None

    def error(self, data, index, classes, codes, masked_places, gen, repeat):
        """Squared noise error and variational bound, means over masked tokens."""
        tokens, L, T = data.tokens[index].float(), self.cfg["seq_len"], self.cfg["head"]["train_steps"]
        places = torch.rand(len(index), L, generator=gen).argsort(1)[:, :masked_places].sort(1).values
        masked = self.here(torch.zeros(len(index), L, dtype=torch.bool).scatter(1, places, True))
        places = self.here(places)[..., None]
        chosen = lambda x: x.gather(1, places.expand(-1, -1, x.shape[-1])).flatten(0, 1).repeat(repeat, 1)
        z, x0 = chosen(self.net(classes, codes, tokens, masked)), chosen(tokens)
        N = len(x0)
        t = ((torch.randperm(N, generator=gen) + torch.rand(N, generator=gen)) / N * T).long().clamp(max=T - 1)
        mse, bound = self.net.diffloss.loss(x0, z, self.here(t), self.here(torch.randn(x0.shape, generator=gen)))
        return mse.mean(), bound.mean()

    def loss(self, index, gen, step):
        cfg, B = self.cfg, len(index)
        codes, classes = self.codes(self.train_set, index), self.train_set.labels[index]
        none = self.here(torch.rand(B, generator=gen) < self.drop)
        classes[none] = cfg["num_classes"]
        if codes is not None:
            swap = self.here(torch.rand(codes.shape, generator=gen) < self.replace)
            codes = torch.where(swap, self.here(torch.randint(cfg["codebook_size"], codes.shape, generator=gen)), codes)
            codes[none] = cfg["codebook_size"]
        mse, bound = self.error(self.train_set, index, classes, codes, mask_count(cfg["seq_len"], gen, self.low), gen, self.repeat)
        return mse + bound, dict(mse=mse.item(), bound=bound.item())

    def evaluate(self):
        found, L = {}, self.cfg["seq_len"]
        for share in (1.0, 0.7, 0.3):
            gen, total = generator(99, 0), 0.0
            for j in range(0, len(self.val_index), 64):
                i = self.val_index[j : j + 64]
                mse, _ = self.error(self.val_set, i, self.val_set.labels[i], self.codes(self.val_set, i), round(L * share), gen, 1)
                total += mse.item() * len(i)
            found[f"mse_{round(L * share)}"] = total / len(self.val_index)
        return found
