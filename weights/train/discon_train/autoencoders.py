"""Training of the two autoencoders."""
import torch
import torch.nn.functional as F

from .data import Images
from .errors import TrainError
from .eyes import Eyes
from .loop import Task
from .nets.vae import Vae
from .nets.vq import Vq


def picture_loss(out, ref):
    """L1 + 4 MSE + .25 of gradients + .25 of pictures halved three times; both [B, 3, H, W] in [-1, 1]."""
    d = out.float() - ref
    edges = (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()
    small, coarse = d, 0.0
    for _ in range(3):
        small = F.avg_pool2d(small, 2)
        coarse = coarse + small.abs().mean()
    return d.abs().mean() + 4 * d.pow(2).mean() + 0.25 * edges + 0.25 * coarse


def psnr(out, ref):
    """Mean over images of the peak signal-to-noise ratio in dB; both [B, 3, H, W] in [-1, 1]."""
    mse = ((out.float().clamp(-1, 1) - ref) / 2).pow(2).flatten(1).mean(1)
    return (-10 * mse.clamp(min=1e-10).log10()).mean().item()


def split_psnr(images, index, rebuild, device=torch.device("cpu"), batch=32):
    """PSNR of rebuild([B, 3, H, W]) over images of a split."""
    total = 0.0
    for i in range(0, len(index), batch):
        ref = images.batch(index[i : i + batch]).to(device)
        total += psnr(rebuild(ref), ref) * len(ref)
    return total / len(index)


def looks(out, ref, eyes=None, weight=0.0):
    """Loss of pixels and, with `eyes`, `weight` times the distance that they see; and both by name, to show."""
    picture = picture_loss(out, ref)
    if eyes is None:
        return picture, dict(loss=picture.item())
    seen = eyes.distance(out, ref)
    return picture + weight * seen, dict(loss=picture.item(), perceptual=seen.item())


def noisy(z, most, gen):
    """Latents [B, C, h, w] with noise of up to `most` times the deviation of their channel, another share in every row."""
    level = most * torch.rand(len(z), 1, 1, 1, generator=gen)
    return z + z.detach().std((0, 2, 3), keepdim=True) * (level * torch.randn(z.shape, generator=gen)).to(z.device)


class VaeTask(Task):
    """`noise`: the decoder sees latents with up to this share of their own deviation added, so that it forgives what
    stage 2 gets wrong; `kl`: weight of the divergence, mean over latent entries; `perceptual`: weight of the distance of features (eyes.py)."""

    def __init__(self, cfg, data, noise=0.5, kl=1e-3, perceptual=0.0, attention=False, seed=1, eval_images=8):
        torch.manual_seed(seed)
        self.net, self.noise, self.kl = Vae(cfg, (attention, attention)), noise, kl
        self.train_set, self.val_set = Images(data, "train"), Images(data, "val")
        self.count, self.val_index = len(self.train_set), self.val_set.spread(eval_images)
        self.perceptual, self.eyes = perceptual, Eyes() if perceptual else None

    def to(self, device):
        if self.eyes:
            self.eyes.to(device)
        return super().to(device)

    def loss(self, index, gen, step):
        ref = self.here(self.train_set.batch(index))
        mean, logvar = self.net.encode(ref)
        mean, logvar = mean.float(), logvar.float()
        z = mean + (0.5 * logvar).exp() * self.here(torch.randn(mean.shape, generator=gen))
        loss, values = looks(self.net.decode(noisy(z, self.noise, gen)), ref, self.eyes, self.perceptual)
        kl = 0.5 * (mean.pow(2) + logvar.exp() - 1 - logvar).mean()
        return loss + self.kl * kl, dict(values, kl=kl.item())

    def evaluate(self):
        torch.manual_seed(0)

        def rebuild(noise):
            def run(x):
                z = self.net.encode(x)[0]
                return self.net.decode(z + noise * z.std((0, 2, 3), keepdim=True) * torch.randn_like(z))
            return run

        return {name: split_psnr(self.val_set, self.val_index, rebuild(noise), self.device) for name, noise in (("psnr", 0.0), ("psnr_noise_.4", 0.4))}


def kmeans(x, k, gen, rounds=20):
    """[N, C] -> [k, C] centres."""
    centres = x[torch.randperm(len(x), generator=gen)[:k]].clone()
    for _ in range(rounds):
        near = (centres.pow(2).sum(1) - 2 * x @ centres.T).argmin(1)
        count = torch.bincount(near, minlength=k)
        sums = torch.zeros_like(centres).index_add_(0, near, x)
        centres = torch.where(count[:, None] > 0, sums / count.clamp(min=1)[:, None], centres)
        empty = (count == 0).nonzero().flatten()
        centres[empty] = x[torch.randint(len(x), (len(empty),), generator=gen)]
    return centres


class VqTask(Task):
    """Trained without quantising for `free_steps`, then with a codebook started by k-means and kept as exponential
    averages; codes that are hardly used are moved to features of the batch."""

    def __init__(self, cfg, data, free_steps=300, decay=0.99, commitment=0.25, restart_every=50, seed=1, eval_images=8):
        torch.manual_seed(seed)
        self.net, self.decay, self.commitment = Vq(cfg), decay, commitment
        self.free_steps, self.restart_every = free_steps, restart_every
        self.train_set, self.val_set = Images(data, "train"), Images(data, "val")
        self.count, self.val_index = len(self.train_set), self.val_set.spread(eval_images)
        K, C = cfg["codebook_size"], cfg["z_channels"]
        self.sizes, self.sums, self.pool = torch.ones(K), torch.zeros(K, C), []

    def to(self, device):
        self.sizes, self.sums, self.pool = self.sizes.to(device), self.sums.to(device), [x.to(device) for x in self.pool]
        return super().to(device)

    def state(self):
        return dict(sizes=self.sizes, sums=self.sums, pool=self.pool, free_steps=self.free_steps)

    def load_state(self, state):
        if not state:  # of a codebook without its history: every code counts as seen once, where it is
            self.sums, self.free_steps = self.net.quantize.embedding.weight.detach().clone(), -1
            return
        self.sizes, self.sums, self.pool = state["sizes"], state["sums"], state["pool"]
        self.free_steps = state.get("free_steps", self.free_steps)

    def loss(self, index, gen, step):
        ref = self.here(self.train_set.batch(index))
        f = self.net.encoder((ref + 1) / 2).float()
        flat = f.permute(0, 2, 3, 1).reshape(-1, f.shape[1])
        book, values = self.net.quantize.embedding.weight, {}
        if step < self.free_steps:
            self.pool = (self.pool + [flat.detach()])[-40:]
            q, commit = f, 0.01 * f.pow(2).mean()
        else:
            if step == self.free_steps or not len(self.sums.nonzero()):
                self.start(gen)
            codes = self.net.quantize.nearest(flat.detach())
            self.flat, self.codes = flat.detach(), codes
            target = book[codes].view(len(f), *f.shape[2:], -1).permute(0, 3, 1, 2)
            commit = self.commitment * (f - target).pow(2).mean()
            q = f + (target - f).detach()
            p = self.sizes / self.sizes.sum()
            values = dict(perplexity=(-(p * (p + 1e-10).log()).sum()).exp().item())
        picture = picture_loss(2 * self.net.decoder(q) - 1, ref)
        return picture + commit, dict(loss=picture.item(), commit=commit.item(), **values)

    def start(self, gen):
        book, found = self.net.quantize.embedding.weight.data, sum(map(len, self.pool))
        if found < len(book):
            raise TrainError(f"vq: a codebook of {len(book)} codes from {found} features of {len(self.pool)} steps; "
                             "raise free_steps or batch, or lower codebook_size")
        book.copy_(kmeans(torch.cat(self.pool), len(book), gen))
        self.sizes = torch.full((len(book),), len(self.pool[-1]) / len(book), device=book.device)
        self.sums, self.pool = book * self.sizes[:, None], []

    def after_step(self, step, gen):
        if step < self.free_steps:
            return
        with torch.no_grad():
            book = self.net.quantize.embedding.weight
            count = torch.bincount(self.codes, minlength=len(book)).float()
            self.sizes.lerp_(count, 1 - self.decay)
            self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, self.codes, self.flat), 1 - self.decay)
            book.copy_(self.sums / self.sizes.clamp(min=1e-5)[:, None])
            if (step + 1) % self.restart_every == 0:
                dead = (self.sizes < 0.03 * self.sizes.mean()).nonzero().flatten()
                pick = torch.randint(len(self.flat), (len(dead),), generator=gen)
                book[dead] = self.flat[pick]
                self.sizes[dead] = self.sizes.mean() * 0.5
                self.sums[dead] = book[dead] * self.sizes[dead][:, None]

    def evaluate(self):
        used = []

        def rebuild(x):
            codes = self.net.encode((x + 1) / 2)
            used.append(codes.flatten())
            return 2 * self.net.decode(codes) - 1

        found = {"psnr": split_psnr(self.val_set, self.val_index, rebuild, self.device)}
        p = torch.bincount(torch.cat(used)).float()
        p = p[p > 0] / p.sum()
        return {**found, "perplexity": (-(p * p.log()).sum()).exp().item()}
