"""Where networks are trained, and what is multiplied fast there."""
import functools
import time

import torch

from .errors import TrainError


@functools.cache
def processor_multiplies_halves():
    """Whether PyTorch multiplies bfloat16 clearly faster than float32 on this processor, by a trial of some milliseconds. Instructions alone do not
    tell: bfloat16 takes 25 to 50 times as long without any (Zen 3), up to twice as long with AVX-512's on a Xeon without AMX."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported() and trial(torch.bfloat16) < 0.8 * trial(torch.float32)


def trial(dtype, runs=8):
    """Least seconds of a product of 2,048 x 256 by 256 x 1,024."""
    x, w, least = torch.ones(2048, 256, dtype=dtype), torch.ones(1024, 256, dtype=dtype), float("inf")
    for _ in range(runs):
        begin = time.perf_counter()
        torch.nn.functional.linear(x, w)
        least = min(least, time.perf_counter() - begin)
    return least


def device_named(name):
    """The processor (cpu) or a GPU (cuda, cuda:1, ...), if it is there."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise TrainError(f"device {name}: expected cpu, cuda or cuda:NUMBER") from None
    if device.type == "cuda":
        found = torch.cuda.device_count()
        if (device.index or 0) >= found:
            raise TrainError(f"device {name}: PyTorch finds {found} GPUs here")
        # Codes and latents are to be those of the engine, whose products are of float32 as a whole.
        torch.backends.cudnn.allow_tf32 = False
    elif device.type != "cpu":
        raise TrainError(f"device {name}: expected cpu, cuda or cuda:NUMBER")
    return device


def multiplies_halves(device):
    return processor_multiplies_halves() if device.type == "cpu" else torch.cuda.is_bf16_supported()


def half_products(wanted=True, device=torch.device("cpu")):
    """A context in which products and convolutions take bfloat16 where `wanted` and the device is fast at it, else float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and multiplies_halves(device))
