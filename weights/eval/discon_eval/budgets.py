"""What each system was given: parameters, steps, and the arithmetic of their products."""
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from discon_train.data import read_config
from discon_train.export import net_config
from discon_train.loop import generator
from discon_train.nets.rar import Rar
from discon_train.nets.stage2 import Stage2
from discon_train.transformers import mask_count

from .sets import ROOT

CONFIGS = ROOT / "weights/train/configs"
CLASSES = 16
# The transformers of a system, each with its config and the steps that it was trained: weights/avatars-64/MODEL_CARD.md has those of both stages.
STAGE_1, STAGE_2 = ("rar", "avatars-64", 3959 + 1430), ("discon", "avatars-64", 2762 + 1825)
# Of stage 2's, two times 700 are cooldowns, without codes once.
BUDGETS = {
    "discrete only": (STAGE_1,),
    "continuous only": (("discon", "avatars-64-continuous", 5521),),
    "without codes": (("discon", "avatars-64-without-codes", 2916 + 700),),
    "DisCon": (STAGE_1, STAGE_2),
}


def stage_1_row(net, cfg):
    """A loss of a picture."""
    codes = torch.zeros(1, cfg["seq_len"], dtype=torch.long)
    return net(codes[:, :-1], torch.zeros(1, dtype=torch.long)).float().square().mean()


def stage_2_row(net, cfg, repeat, places):
    """The loss of a picture with `places` masked, `repeat` timesteps a token."""
    L, C = cfg["seq_len"], cfg["token_dim"]
    tokens, masked = torch.zeros(1, L, C), torch.arange(L)[None] < places
    codes = torch.zeros(1, L, dtype=torch.long) if cfg["discrete"] else None
    z = net(torch.zeros(1, dtype=torch.long), codes, tokens, masked)[masked].repeat(repeat, 1)
    x0 = tokens[masked].repeat(repeat, 1)
    mse, bound = net.diffloss.loss(x0, z, torch.zeros(len(x0), dtype=torch.long), torch.zeros(x0.shape))
    return mse.mean() + bound.mean()


def operations(loss, *args):
    """Floating-point operations of the products, forward and backward."""
    with FlopCounterMode(display=False) as counted:
        loss(*args).backward()
    return counted.get_total_flops()


def of_part(part, config, draws=10_000):
    """(parameters, floating-point operations of the products of one picture in training; a mean over `draws` of masks)."""
    cfg, task = net_config(config, part, CLASSES), config[part].get("task", {})
    net = {"rar": Rar, "discon": Stage2}[part](cfg)
    parameters = sum(p.numel() for p in net.parameters())
    if part == "rar":
        return parameters, operations(stage_1_row, net, cfg)
    gen, L = generator(1, 0), cfg["seq_len"]
    masked = np.array([mask_count(L, gen, task["low"]) for _ in range(draws)])
    # Attention over the known places makes it a polynomial of the second degree: three points are all of it.
    points = (L // 2, 3 * L // 4, L)
    curve = np.polynomial.Polynomial.fit(points, [operations(stage_2_row, net, cfg, task["repeat"], places) for places in points], 2)
    return parameters, float(curve(masked).mean())


def budgets():
    """{system: [{"part", "parameters", "steps", "batch", "TFLOP"}]}."""
    found, made = {}, {}
    for system, parts in BUDGETS.items():
        found[system] = []
        for part, name, steps in parts:
            config = read_config(CONFIGS / f"{name}.json")
            if (part, name) not in made:
                made[part, name] = of_part(part, config)
            parameters, flops = made[part, name]
            batch = config[part]["train"]["batch"]
            found[system].append({"part": part, "parameters": parameters, "steps": steps, "batch": batch, "TFLOP": round(flops * steps * batch / 1e12, 1)})
    return found
