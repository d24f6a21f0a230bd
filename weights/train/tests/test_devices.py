"""Training on a GPU: what is asked for and is not there, and that a step mixes no devices, as far as that shows without a GPU."""
import json

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from discon_train import cli, loop, precision, transformers
from discon_train.nets import stage2
from test_training import CONFIG, task


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Pictures, codes and latents of noise: 3 classes, 8 x 8 places."""
    root, rng = tmp_path_factory.mktemp("run"), np.random.default_rng(1)
    for split in ("train", "val"):
        for folder in ("data", "codes", "latents"):
            (root / folder / (split if folder == "data" else "")).mkdir(parents=True, exist_ok=True)
        for c in range(3):
            np.save(root / "data" / split / f"class-{c}.npy", rng.integers(0, 256, (4, 16, 16, 3), np.uint8))
        np.save(root / "codes" / f"{split}.npy", rng.integers(0, 16, (12, 64), np.int16))
        np.save(root / "latents" / f"{split}.npy", rng.standard_normal((12, 64, 4)).astype(np.float16))
    np.save(root / "codes" / "codebook.npy", rng.standard_normal((16, 8)).astype(np.float32))
    (root / "latents" / "stats.json").write_text(json.dumps(dict(mean=[0.0] * 4, std=[1.0] * 4)))
    (root / "config.json").write_text(json.dumps(CONFIG))
    return root


@pytest.mark.parametrize("device, said", [("cuda:99", "PyTorch finds"), ("tpu", "expected cpu, cuda or cuda:NUMBER"), ("mps", "expected cpu, cuda or cuda:NUMBER")])
@pytest.mark.parametrize("name", ["rar", "encode", "sharpen"])
def test_a_device_that_is_not_there_is_said(device, said, name, run, capsys):
    more = ["--part", "vae"] if name == "sharpen" else []
    assert cli.main([name, "--config", str(run / "config.json"), "--run", str(run), "--device", device, *more]) == 2
    printed = capsys.readouterr().err
    assert f"device {device}: " in printed and said in printed


def move(net, device):
    """What `net.to` does, which cannot be had of tensors that are not there."""
    for module in net.modules():
        for name, p in module._parameters.items():
            if p is not None:
                module._parameters[name] = torch.nn.Parameter(p.detach().to(device), p.requires_grad)
        module._buffers.update({name: b.to(device) for name, b in module._buffers.items() if b is not None})


@pytest.mark.parametrize("part", ["vae", "vq", "rar", "discon"])
def test_a_step_on_a_gpu_mixes_no_devices(part, run, monkeypatch):
    """Of tensors that have a shape and a device and no numbers. What depends on numbers is given; what autograd does backwards follows from the way forwards."""
    monkeypatch.setattr(torch.nn.Module, "to", move)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(transformers, "mask_count", lambda *_: 50)
    monkeypatch.setattr(stage2, "int", lambda _: 50, raising=False)
    device = torch.device("cuda:0")
    with FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True):
        made = task(part, run).to(device)
        params = [p for p in made.net.parameters() if p.requires_grad]
        opts = loop.optimizers(made.net, {**loop.DEFAULTS, "optimizer": "muon"})
        for step in range(2):
            with precision.half_products(True, device):
                loss, _ = made.loss(np.arange(4), None, step)
            assert loss.device == device
            for p in params:
                p.grad = torch.zeros_like(p)
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            for opt in opts:
                opt.step()
            made.after_step(step, None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("part", ["vae", "vq", "rar", "discon"])
def test_what_a_gpu_began_a_processor_ends(part, run, tmp_path):
    settings = {**CONFIG[part]["train"], "bf16": True}
    for device, steps in (("cuda", 3), ("cpu", 5), ("cuda", None)):
        state = loop.train(task(part, run).to(precision.device_named(device)), tmp_path, part, settings, stop_at=steps)
    assert state["step"] == settings["steps"]
    assert all(v.isfinite().all() for v in loop.trained(task(part, run).net, tmp_path, part)[0].state_dict().values() if v.is_floating_point())
