"""Every part trains a few steps on a handful of pictures, continues bit for bit, and exports a folder that loads."""
import json
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from discon_train import cases, cli, loop
from discon_train.autoencoders import VaeTask, VqTask
from discon_train.data import Images, Order, read_config
from discon_train.errors import TrainError
from discon_train.export import export, net_config
from discon_train.folder import load
from discon_train.sharpen import SharpenTask
from discon_train.transformers import RarTask, Stage2Task

TRAIN = {"steps": 6, "cooldown": 2, "warmup": 2, "batch": 4, "lr": 1e-3, "eval_every": 3}
CONFIG = {
    "name": "mini", "image_size": 16, "licence": "none", "attribution": "nobody",
    "vae": {"net": {"z_channels": 4, "ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1}, "task": {"perceptual": 0.1, "eval_images": 2}, "train": TRAIN},
    "vq": {"net": {"hidden_channels": 32, "channel_mult": [1, 1], "num_res_blocks": 1, "z_channels": 8, "codebook_size": 16},
           "task": {"free_steps": 2, "restart_every": 2, "eval_images": 2}, "train": TRAIN},
    "rar": {"net": {"hidden_size": 32, "depth": 1, "heads": 2, "mlp_size": 48}, "task": {"eval_images": 2},
            "train": {**TRAIN, "optimizer": "muon", "ema": 0.9}},
    "discon": {"net": {"encoder_dim": 32, "encoder_depth": 1, "encoder_heads": 2, "encoder_mlp": 48, "decoder_dim": 48, "decoder_depth": 1,
                       "decoder_heads": 2, "decoder_mlp": 48, "buffer_size": 2, "discrete": True, "head": {"width": 32, "depth": 1, "train_steps": 1000}},
               "task": {"repeat": 2, "eval_images": 2}, "train": {**TRAIN, "optimizer": "muon", "ema": 0.9, "bf16": True}},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with three classes of blobs, every part trained through the command line."""
    root = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    for split, n in (("train", 12), ("val", 3), ("test", 3)):
        (root / "data" / split).mkdir(parents=True)
        for c in range(3):
            images = np.full((n, 16, 16, 3), 60 * c, np.uint8)
            for image in images:
                y, x = rng.integers(0, 10, 2)
                image[y : y + 6, x : x + 6] = rng.integers(0, 255, 3)
            np.save(root / "data" / split / f"class-{c}.npy", images)
    (root / "config.json").write_text(json.dumps(CONFIG))
    assert command(root, "all") == 0
    return root


def command(root, name, *more):
    return cli.main([name, "--config", str(root / "config.json"), "--run", str(root), *more])


def task(part, root):
    if part in ("vae", "vq"):
        return {"vae": VaeTask, "vq": VqTask}[part](CONFIG[part]["net"], root / "data", **CONFIG[part]["task"])
    return {"rar": RarTask, "discon": Stage2Task}[part](net_config(CONFIG, part, 3), root, **CONFIG[part]["task"])


@pytest.mark.parametrize("part", ["vae", "vq", "rar", "discon"])
def test_resume_continues_bit_for_bit(part, run, tmp_path):
    loop.train(task(part, run), tmp_path, part, CONFIG[part]["train"], stop_at=3)
    assert torch.load(tmp_path / f"{part}.pt", weights_only=False)["step"] == 3
    again = loop.train(task(part, run), tmp_path, part, CONFIG[part]["train"])
    whole = torch.load(run / f"{part}.pt", weights_only=False)
    assert again["step"] == whole["step"] == 6
    for name, tensor in whole["net"].items():
        assert torch.equal(tensor, again["net"][name]), name
    for name, tensor in whole["ema"].items():
        assert torch.equal(tensor, again["ema"][name]), name


@pytest.mark.parametrize("part", ["vae", "vq"])
def test_sharpening_moves_the_decoder_alone_and_continues_bit_for_bit(part, run, tmp_path):
    for name in ("data", "latents", "codes", f"{part}.pt"):
        (tmp_path / name).symlink_to(run / name)
    sharp = lambda: SharpenTask(CONFIG, tmp_path, part, size=32, eval_images=2)
    name, settings = f"{part}-sharp", {**TRAIN, "bf16": True, "ema": 0.9}
    whole = loop.train(sharp(), tmp_path, name, settings)
    (tmp_path / f"{name}.pt").rename(tmp_path / "whole.pt")
    loop.train(sharp(), tmp_path, name, settings, stop_at=3)
    again = loop.train(sharp(), tmp_path, name, settings)
    for key in whole["net"]:
        assert torch.equal(whole["net"][key], again["net"][key]), key
    before = torch.load(run / f"{part}.pt", weights_only=False)["net"]
    moved = {k.split(".")[0] for k, v in whole["net"].items() if not torch.equal(v, before[k])}
    assert moved == ({"decoder", "post_quant_conv"} if part == "vae" else {"decoder"})
    # What is exported from then on has the sharpened decoder, and what trains it further begins at the plain one.
    fresh = lambda: sharp().net
    assert torch.equal(loop.trained(fresh(), tmp_path, part)[0].decoder.conv_in.weight, again["ema"]["decoder.conv_in.weight"])
    assert torch.equal(fresh().decoder.conv_in.weight, before["decoder.conv_in.weight"])
    # It is not taken for the decoder of an autoencoder that was trained on since.
    (tmp_path / f"{part}.pt").unlink()
    other = torch.load(run / f"{part}.pt", weights_only=False)
    next(iter(other["net"].values())).mul_(1.01)
    loop.save(tmp_path / f"{part}.pt", other)
    for stale in (lambda: loop.trained(fresh(), tmp_path, part), lambda: loop.train(sharp(), tmp_path, name, settings)):
        with pytest.raises(TrainError, match=f"{part}-sharp.pt: made of "):
            stale()


def test_sharpening_wants_what_the_encoder_made(run, tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert command(tmp_path, "sharpen", "--part", "vae") == 2
    assert "train 'vae' first" in capsys.readouterr().err
    for name in ("data", "vae.pt"):
        (tmp_path / name).symlink_to(run / name)
    assert command(tmp_path, "sharpen", "--part", "vae") == 2
    assert "run the encode command first" in capsys.readouterr().err


def test_averages_of_an_adopted_part_begin_as_its_weights(run, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    for folder in ("data", "latents", "codes"):
        (tmp_path / folder).symlink_to(run / folder)
    assert command(tmp_path, "adopt", "--model", str(run / "model"), "--parts", "rar") == 0
    loop.train(task("rar", tmp_path), tmp_path, "rar", {**CONFIG["rar"]["train"], "ema": 0.999999}, stop_at=2)
    state = torch.load(tmp_path / "rar.pt", weights_only=False)
    assert set(state["ema"]) == {n for n, p in task("rar", tmp_path).net.named_parameters() if p.requires_grad}
    assert any(not torch.equal(v, state["net"][k]) for k, v in state["ema"].items())


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_a_taken_port_is_named(run, tmp_path, capsys):
    (tmp_path / "data").symlink_to(run / "data")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        assert command(tmp_path, "vae", "--world", "2", "--port", str(port)) == 2
    assert f"error: port {port}: " in capsys.readouterr().err


def test_a_batch_that_processes_cannot_share_alike_is_named(run, tmp_path, capsys):
    (tmp_path / "data").symlink_to(run / "data")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert command(tmp_path, "vae", "--world", "2", "--rank", "2") == 2
    assert "error: --rank 2 of --world 2: expected 0 to 1" in capsys.readouterr().err
    team = loop.Team()
    team.world = 3
    with pytest.raises(TrainError, match="batch 4 for --world 3"):
        loop.train(task("vae", run), tmp_path, "vae", {**TRAIN, "batch": 4}, team=team)


def test_two_processes_train_as_one(run, tmp_path):
    (tmp_path / "data").symlink_to(run / "data")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    base = [sys.executable, "-m", "discon_train", "vae", "--config", str(tmp_path / "config.json"), "--run", str(tmp_path), "--world", "2", "--port", str(free_port())]
    jobs = [subprocess.Popen(base + ["--rank", str(r)], cwd=pathlib.Path(__file__).parents[1], stdout=subprocess.DEVNULL) for r in range(2)]
    assert [j.wait(timeout=60) for j in jobs] == [0, 0]
    together, alone = (torch.load(r / "vae.pt", weights_only=False) for r in (tmp_path, run))
    assert together["step"] == alone["step"]
    # the same batches with other noise: close, not equal
    for name, tensor in alone["net"].items():
        assert (tensor - together["net"][name]).abs().max() < 0.02, name


def test_training_lowers_the_loss(run, tmp_path):
    t = task("vae", run)
    index = np.arange(4)
    before = t.loss(index, loop.generator(1, 0), 0)[0].item()
    loop.train(t, tmp_path, "vae", {**TRAIN, "steps": 40})
    assert t.loss(index, loop.generator(1, 0), 0)[0].item() < 0.8 * before


def test_finish_file_starts_the_cooldown(run, tmp_path):
    (tmp_path / "vae.finish").touch()
    state = loop.train(task("vae", run), tmp_path, "vae", {**TRAIN, "steps": 1000, "cooldown": 3})
    assert state["step"] == 3
    assert loop.train(task("vae", run), tmp_path, "vae", {**TRAIN, "steps": 1000, "cooldown": 3})["step"] == 3
    assert loop.train(task("vae", run), tmp_path, "vae", {**TRAIN, "steps": 8, "cooldown": 3}, extend=True)["step"] == 6
    (tmp_path / "vae.finish").unlink()
    with pytest.raises(TrainError, match="vae: at step 6; to extend it, expected `steps` above 9 .* found 9"):
        loop.train(task("vae", run), tmp_path, "vae", {**TRAIN, "steps": 9, "cooldown": 3}, extend=True)
    assert loop.train(task("vae", run), tmp_path, "vae", {**TRAIN, "steps": 12, "cooldown": 3}, extend=True)["step"] == 12


def test_exported_weights_are_the_trained_ones_rounded(run):
    config, nets = load(run / "model")
    state = torch.load(run / "rar.pt", weights_only=False)
    for name, p in nets["rar"].named_parameters():
        assert torch.equal(p, state["ema"][name].bfloat16().float()), name
    assert config["classes"] == ["class-0", "class-1", "class-2"]
    assert config["licence"] == "none" and config["attribution"] == "nobody"


def test_config_keys_are_the_engine_s(run):
    fixture = json.loads((pathlib.Path(__file__).resolve().parents[3] / "tests/fixtures/tiny/discon.json").read_text())
    ours = json.loads((run / "model/discon.json").read_text())
    assert set(ours) - {"licence", "attribution"} == set(fixture)
    for part in ("rar", "discon", "vae", "vq"):
        assert set(ours[part]) == set(fixture[part]), part
    assert set(ours["discon"]["head"]) == set(fixture["discon"]["head"])
    for part in ("rar", "discon"):
        assert set(ours["sampling"][part]) == set(fixture["sampling"][part])


def test_tensors_start_aligned(run):
    for path in (run / "model").glob("*.safetensors"):
        raw = path.read_bytes()
        size = int.from_bytes(raw[:8], "little")
        assert (8 + size) % 8 == 0
        for name, t in json.loads(raw[8 : 8 + size]).items():
            if name != "__metadata__":
                assert t["dtype"] == "BF16" and t["data_offsets"][0] % 2 == 0


def test_cases_hold(run):
    config, nets = load(run / "model", torch.float64)
    paths = sorted((run / "model" / "cases").glob("*.safetensors"))
    assert {cases.read_case(p)[0] for p in paths} == set(cases.RTOL)
    for path in paths:
        kind, params, rtol, ins, outs = cases.read_case(path)
        got = cases.answer(kind, config, nets, ins, params)
        for name, ref in outs.items():
            assert cases.error(got[name], ref) <= rtol + 1e-7, (path.name, name)


def test_grids_are_written(run):
    sizes = {p.stem: Image.open(p).size for p in (run / "model" / "card").glob("*.png")}
    assert set(sizes) == {"real", "rebuilt", "discrete", "generated", "nearest"}
    assert sizes["discrete"] == sizes["generated"] == (2 + 8 * 18, 2 + 3 * 18)


def test_missing_parts_are_said(run, tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert command(tmp_path, "vae") == 2
    assert "run the data command first" in capsys.readouterr().err
    (tmp_path / "data").symlink_to(run / "data")
    assert command(tmp_path, "rar") == 2
    assert "run the encode command first" in capsys.readouterr().err
    assert command(tmp_path, "export") == 2
    assert "train 'rar' first" in capsys.readouterr().err


def test_order_sees_every_image_once_a_pass():
    order = Order(10, 4, seed=3)
    seen = np.concatenate([order(s) for s in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))


def test_images_reads_back_what_was_packed(run):
    images = Images(run / "data", "train")
    assert len(images) == 36 and images.pixels([13])[0].permute(1, 2, 0).numpy().tolist() == images.arrays[1][1].tolist()


@pytest.mark.parametrize("part", ["vae", "vq", "rar", "discon"])
def test_a_run_goes_on_from_a_published_part(part, run, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    for folder in ("data", "latents", "codes"):
        (tmp_path / folder).symlink_to(run / folder)
    assert command(tmp_path, "adopt", "--model", str(run / "model"), "--parts", part) == 0
    state = torch.load(tmp_path / f"{part}.pt", weights_only=False)
    published = load(run / "model")[1][part].state_dict()
    assert state["step"] == 0 and all(torch.equal(v, state["net"][k]) for k, v in published.items())
    assert command(tmp_path, part) == 0
    after = torch.load(tmp_path / f"{part}.pt", weights_only=False)
    assert after["step"] == 6
    # Medians: codes that are not used move far.
    moved = [(after["net"][k] - v).abs().median() for k, v in published.items()]
    assert 0 < max(moved) < 0.05


def test_what_cannot_be_adopted_is_said(run, tmp_path, capsys):
    other = {**CONFIG, "vae": {**CONFIG["vae"], "net": {**CONFIG["vae"]["net"], "z_channels": 8}}}
    (tmp_path / "config.json").write_text(json.dumps(other))
    assert command(tmp_path, "adopt", "--model", str(run / "model"), "--parts", "vae") == 2
    assert "expected {'z_channels': 8" in capsys.readouterr().err
    assert command(tmp_path, "adopt", "--model", str(run / "model"), "--parts", "vq") == 0
    assert command(tmp_path, "adopt", "--model", str(run / "model"), "--parts", "vq") == 2
    assert "already there" in capsys.readouterr().err
    assert command(tmp_path, "adopt", "--model", str(tmp_path), "--parts", "vq") == 2
    assert "discon.json" in capsys.readouterr().err


def test_continuous_tokens_alone_want_no_codes(run, tmp_path, capsys):
    for name in ("data", "latents"):
        (tmp_path / name).symlink_to(run / name)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert command(tmp_path, "discon") == 2
    assert "codes/train.npy: not there yet; run the encode command first" in capsys.readouterr().err
    alone = {**CONFIG, "discon": {**CONFIG["discon"], "net": {**CONFIG["discon"]["net"], "discrete": False}}}
    (tmp_path / "config.json").write_text(json.dumps(alone))
    assert command(tmp_path, "discon") == 0
    assert torch.load(tmp_path / "discon.pt", weights_only=False)["step"] == CONFIG["discon"]["train"]["steps"]


def test_a_config_says_only_what_is_different(tmp_path):
    (tmp_path / "base.json").write_text(json.dumps(CONFIG))
    (tmp_path / "other.json").write_text(json.dumps({"extends": "base.json", "name": "other", "discon": {"net": {"discrete": False}}}))
    config = read_config(tmp_path / "other.json")
    assert config["name"] == "other" and config["discon"]["net"] == {**CONFIG["discon"]["net"], "discrete": False}
    assert {k: v for k, v in config.items() if k not in ("name", "discon")} == {k: v for k, v in CONFIG.items() if k not in ("name", "discon")}
    (tmp_path / "base.json").write_text(json.dumps({"extends": "other.json"}))
    with pytest.raises(TrainError, match="extends itself"):
        read_config(tmp_path / "other.json")


def test_a_picture_may_be_a_single_token(tmp_path):
    parts = {"vae": {"ch_mult": [1, 1, 1, 1]}, "vq": {"channel_mult": [1, 1, 1, 1], "codebook_size": 8}}
    config = CONFIG | {"image_size": 8} | {part: CONFIG[part] | {"net": CONFIG[part]["net"] | net} for part, net in parts.items()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for split in ("train", "val", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        for c in range(2):
            np.save(tmp_path / "data" / split / f"class-{c}.npy", np.random.default_rng(c).integers(0, 255, (8, 8, 8, 3), dtype=np.uint8))
    assert command(tmp_path, "all") == 0
    assert load(tmp_path / "model")[0]["discon"]["seq_len"] == 1
    assert len(list((tmp_path / "model/cases").iterdir())) == 12
