"""Where networks are trained, and what is multiplied fast there."""
import torch

from .errors import TrainError

# Without the instructions a product of bfloat16 takes PyTorch 25 to 50 times as long as one of float32 (256 and 512 square, Zen 3).
HAS_BF16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()


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
    return HAS_BF16 if device.type == "cpu" else torch.cuda.is_bf16_supported()


def half_products(wanted=True, device=torch.device("cpu")):
    """A context in which products and convolutions take bfloat16 where `wanted` and the device is fast at it, else float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and multiplies_halves(device))
