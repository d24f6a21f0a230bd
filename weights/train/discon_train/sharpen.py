"""Trains the decoder of an autoencoder further, with its encoder as it is, against a critic of patches.

A decoder that only minimises an error of pixels draws the mean of all pictures that its input allows, which is blurred. Here it must also
draw what a critic does not tell from real pictures (Isola et al. 2017, 1611.07004), and be near the real one in the critic's own
features (Wang et al. 2018, 1711.11585). The adversarial loss is weighed by the gradients at the last layer, as in VQGAN (Esser et al.
2021, 2012.09841). Latents and codes stay what they were, so the transformers need not be trained again.
"""
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from .autoencoders import picture_loss, split_psnr
from .data import Images
from .encode import Tokens
from .errors import TrainError
from .loop import Task, trained
from .nets.vae import Vae
from .nets.vq import Vq

# What a config's section `sharpen.train` does not say.
TRAIN = dict(steps=3000, cooldown=800, warmup=100, batch=8, lr=4e-4, bf16=True, optimizer="muon", muon_scale=2.0, ema=0.998, eval_every=500)


class Critic(nn.Module):
    """[B, 3, H, W] in [-1, 1] -> feature maps, and a map [B, 1, H / 4, W / 4] that is high where a patch looks real."""

    def __init__(self, width=32):
        super().__init__()
        shapes = ((3, width, 3, 1), (width, 2 * width, 4, 2), (2 * width, 4 * width, 4, 2), (4 * width, 4 * width, 3, 1))
        self.convs = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, k, stride=s, padding=1)) for a, b, k, s in shapes)
        self.out = spectral_norm(nn.Conv2d(4 * width, 1, 3, padding=1))

    def forward(self, x):
        features = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.2)
            features.append(x)
        return features, self.out(x).float()


class SharpenTask(Task):
    """`part` is vae or vq. `adversarial`, `matching`: weights of the two losses beside that of pixels; `alone`: steps in which only the critic
    learns; `rate`: its rate; `noise`: as in the autoencoder's own training."""

    def __init__(self, config, run, part, adversarial=0.3, matching=0.5, alone=200, rate=3e-4, width=32, noise=0.2, seed=1, eval_images=8):
        torch.manual_seed(seed)
        run = pathlib.Path(run)
        section = config[part]
        flag = section.get("task", {}).get("attention", False)
        self.part, self.adversarial, self.matching, self.alone, self.noise = part, adversarial, matching, alone, noise
        self.net = trained(Vae(section["net"], (flag, flag)) if part == "vae" else Vq(section["net"]), run, part, sharp=False)[0]
        for name, p in self.net.named_parameters():
            p.requires_grad_(name.startswith(("decoder.", "post_quant_conv.")))
        self.images, self.val_set = Images(run / "data", "train"), Images(run / "data", "val")
        self.count, self.val_index = len(self.images), self.val_set.spread(eval_images)
        path = run / ("latents" if part == "vae" else "codes") / "train.npy"
        if not path.exists():
            raise TrainError(f"{path}: not there; run the encode command first")
        self.inputs = np.load(path, mmap_mode="r") if part == "vae" else Tokens(run, "train", False).codes
        if len(self.inputs) != self.count:
            raise TrainError(f"{path}: {len(self.inputs)} rows for {self.count} images; run the encode command again")
        self.critic = Critic(width)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=rate, betas=(0.5, 0.9))

    def state(self):
        return dict(critic=self.critic.state_dict(), optimizer=self.critic_optimizer.state_dict())

    def load_state(self, state):
        self.critic.load_state_dict(state["critic"])
        self.critic_optimizer.load_state_dict(state["optimizer"])

    def draw(self, index, gen):
        """What the decoder makes of pictures: [B, 3, H, W] in [-1, 1]."""
        if self.part == "vq":
            return 2 * self.net.decode(self.inputs[index]) - 1
        z = torch.from_numpy(self.inputs[index]).float().transpose(1, 2).unflatten(2, (int(self.inputs.shape[1] ** 0.5), -1))
        level = self.noise * torch.rand(len(z), 1, 1, 1, generator=gen)
        return self.net.decode(z + z.std((0, 2, 3), keepdim=True) * level * torch.randn(z.shape, generator=gen))

    def loss(self, index, gen, step):
        ref = self.images.batch(index)
        out = self.draw(index, gen).float()
        self.pair = ref, out.detach()
        picture = picture_loss(out, ref)
        if step < self.alone:
            return picture, dict(loss=picture.item(), critic=self.seen)
        self.critic.requires_grad_(False)
        with torch.no_grad():
            real, _ = self.critic(ref)
        made, score = self.critic(out)
        self.critic.requires_grad_(True)
        matching = sum((a.float() - b.float()).abs().mean() / b.float().abs().mean() for a, b in zip(made, real)) / len(made)
        picture, adversarial = picture + self.matching * matching, -score.mean()
        last = self.net.decoder.conv_out.weight
        slope = lambda value: torch.autograd.grad(value, last, retain_graph=True)[0].norm()
        weight = self.adversarial * (slope(picture) / (slope(adversarial) + 1e-6)).clamp(max=1e3)
        return picture + weight * adversarial, dict(loss=picture.item(), matching=matching.item(), critic=self.seen)

    seen = 1.0

    def after_step(self, step, gen):
        """The critic's own step, with the hinge loss."""
        real, made = self.pair
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.relu(1 - self.critic(real)[1]).mean() + F.relu(1 + self.critic(made)[1]).mean()
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.critic_optimizer.step()
        self.seen = loss.item() / 2

    def evaluate(self):
        if self.part == "vq":
            return {"psnr": split_psnr(self.val_set, self.val_index, lambda x: 2 * self.net.decode(self.net.encode((x + 1) / 2)) - 1)}
        return {"psnr": split_psnr(self.val_set, self.val_index, lambda x: self.net.decode(self.net.encode(x)[0]))}
