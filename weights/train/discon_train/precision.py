"""What this machine multiplies fast."""
import torch

# Without the instructions a product of bfloat16 takes PyTorch 25 to 50 times as long as one of float32 (256 and 512 square, Zen 3).
HAS_BF16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()


def half_products(wanted=True):
    """A context in which products and convolutions take bfloat16 where `wanted` and the machine is fast at it, else float32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=wanted and HAS_BF16)
