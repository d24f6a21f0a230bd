"""Other sizes than the shipped model's, from a folder of PNGs to known answers; and what does not fit, said clearly."""
import json

import numpy as np
import pytest
import torch
from PIL import Image
from test_training import CONFIG, command

from discon_train import cases
from discon_train.checks import check_config, check_model
from discon_train.data import Images, merged
from discon_train.errors import TrainError
from discon_train.folder import load
from discon_train.grids import nearest, rows

SHORT = {"train": {"steps": 3, "cooldown": 1, "batch": 4}}
BRIEF = merged(CONFIG, {part: SHORT for part in ("vae", "vq", "rar", "discon")})


def draw(folder, classes=("disc", "square"), count=12, side=40):
    rng = np.random.default_rng(3)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            im = np.zeros((side, side, 4), np.uint8)
            y, x = rng.integers(0, side // 2, 2)
            im[y : y + side // 2, x : x + side // 2] = [*rng.integers(0, 255, 3), 255]
            Image.fromarray(im).save(folder / name / f"{i}.png")
    return folder


def of_size(size, halvings):
    mult = [1] * (halvings + 1)
    return merged(BRIEF, {"image_size": size, "vae": {"net": {"ch_mult": mult}}, "vq": {"net": {"channel_mult": mult}}})


@pytest.mark.parametrize("size, halvings, places", [(32, 2, 64), (96, 3, 144)])
def test_other_sizes_from_a_folder_to_known_answers(size, halvings, places, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(of_size(size, halvings)))
    assert command(tmp_path, "all", "--images", str(draw(tmp_path / "art")), "--copies", "2", "--held-out", ".1") == 0
    config, nets = load(tmp_path / "model", torch.float64)
    assert config["image_size"] == size and config["rar"]["seq_len"] == config["discon"]["seq_len"] == places
    paths = sorted((tmp_path / "model" / "cases").glob("*.safetensors"))
    assert {cases.read_case(p)[0] for p in paths} == set(cases.RTOL)
    for path in paths:
        kind, params, rtol, ins, outs = cases.read_case(path)
        for name, value in cases.answer(kind, config, nets, ins, params).items():
            assert cases.error(value, outs[name]) <= rtol + 1e-7, (path.name, name)
            assert kind != "pipeline" or value.shape[1:] == (3, size, size)
    # One picture of each class is held out; the rest of the row is white.
    sheets = {p.stem: np.asarray(Image.open(p)) for p in (tmp_path / "model" / "card").glob("*.png")}
    assert sheets["real"].shape == sheets["generated"].shape == (2 + 2 * (size + 2), 2 + 8 * (size + 2), 3)
    assert sheets["nearest"].shape == (2 + 2 * (size + 2), 2 + 16 * (size + 2), 3)
    assert (sheets["real"][:, 2 + size + 2 :] == 255).all() and (sheets["real"][size + 4 :, : size + 2] < 255).any()


@pytest.mark.parametrize("change, message", [
    ({"image_size": 50, "vae": {"net": {"ch_mult": [1, 1, 1]}}}, r"image_size 50: the vae halves it 2 times \(ch_mult \[1, 1, 1\]\); expected a multiple of 4"),
    ({"image_size": 34, "vq": {"net": {"channel_mult": [1, 1, 1]}}}, "the vq halves it 2 times"),
    ({"image_size": 4}, "image_size 4: expected a whole number of pixels, 8 or more"),
    ({"image_size": 64.0}, "image_size 64.0"),
    ({"vae": {"net": {"ch_mult": [1, 1, 1]}}}, "vae halves a picture 2 times and the vq 1 times"),
    ({"vae": {"net": {"ch": 48}}}, "vae: ch 48 x 1 of ch_mult: expected a multiple of 32"),
    ({"rar": {"net": {"heads": 3}}}, "rar: hidden_size 32 is not a multiple of heads 3"),
    ({"discon": {"net": {"decoder_heads": 5}}}, "discon: decoder_dim 48 is not a multiple of decoder_heads 5"),
])
def test_settings_that_cannot_be(change, message):
    check_config(CONFIG)
    with pytest.raises(TrainError, match=message):
        check_config(merged(CONFIG, change))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    (root / "config.json").write_text(json.dumps(BRIEF))
    assert command(root, "all", "--images", str(draw(root / "art")), "--held-out", ".2") == 0
    return root


def another(run, tmp_path, config=BRIEF, links=("data", "latents", "codes", "vae.pt", "vq.pt", "rar.pt", "discon.pt", "model")):
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in links:
        (tmp_path / name).symlink_to(run / name)
    return tmp_path


def test_a_size_that_is_not_the_datas_is_said(run, tmp_path, capsys):
    root = another(run, tmp_path, {**BRIEF, "image_size": 32})
    for name in ("vae", "rar", "encode", "export", "cases", "grids"):
        assert command(root, name) == 2
        assert "pictures of 16 pixels, image_size is 32" in capsys.readouterr().err


def test_codes_of_other_settings_are_said(run, tmp_path, capsys):
    root = another(run, tmp_path, merged(BRIEF, {"vq": {"net": {"codebook_size": 8}}}), ("data", "latents", "codes"))
    assert command(root, "rar") == 2
    assert "expected {'seq_len': 64, 'codebook_size': 8}, found {'seq_len': 64, 'codebook_size': 16}" in capsys.readouterr().err
    (root / "config.json").write_text(json.dumps(merged(BRIEF, {"vae": {"net": {"z_channels": 6}}})))
    assert command(root, "discon") == 2
    assert "'token_dim': 6}, found" in capsys.readouterr().err


def test_a_codebook_larger_than_what_was_seen_is_said(run, tmp_path, capsys):
    root = another(run, tmp_path, merged(BRIEF, {"vq": {"net": {"codebook_size": 2000}}}), ("data",))
    assert command(root, "vq") == 2
    assert "vq: a codebook of 2000 codes from 512 features of 2 steps" in capsys.readouterr().err


def data_of(run, root, classes):
    for split in ("train", "val", "test"):
        (root / "data" / split).mkdir(parents=True)
        for name, source in classes.items():
            (root / "data" / split / f"{name}.npy").symlink_to(run / "data" / split / f"{source}.npy")


def test_other_classes_than_the_checkpoints_or_the_models_are_said(run, tmp_path, capsys):
    root = another(run, tmp_path, links=("latents", "codes", "vae.pt", "vq.pt", "rar.pt", "discon.pt", "model"))
    data_of(run, root, {"disc": "disc", "ring": "square"})
    for name in ("cases", "grids", "measure"):
        assert command(root, name) == 2
        assert "model: other classes than the run's data: ring, square" in capsys.readouterr().err
    assert command(root, "judge", "--per-class", "1") == 2
    assert "model: other classes" in capsys.readouterr().err
    (root / "data" / "val" / "ring.npy").unlink()
    assert command(root, "vae") == 2
    assert "classes in some splits only: ring" in capsys.readouterr().err
    for split in ("train", "test"):
        (root / "data" / split / "ring.npy").unlink()
    assert command(root, "export") == 2
    assert "rar.pt: made with other settings or another number of classes" in capsys.readouterr().err


def test_too_few_pictures_to_judge_by_are_said(run, capsys):
    assert command(run, "judge", "--per-class", "2") == 2
    assert "class disc: 2 test pictures, --per-class 2 wants 4" in capsys.readouterr().err


def test_a_model_of_another_size_is_not_for_these_data(run):
    model = json.loads((run / "model" / "discon.json").read_text())
    images = Images(run / "data", "test")
    check_model("m", model, images)
    for change, message in (({"image_size": 32}, "m: pictures of 32 pixels, the run's data have 16"), ({"classes": ["square", "disc"]}, "in another order")):
        with pytest.raises(TrainError, match=message):
            check_model("m", {**model, **change}, images)


def test_adopted_transformers_keep_the_classes_they_know(run, tmp_path):
    root = another(run, tmp_path, links=("latents", "codes"))
    data_of(run, root, {"ring": "square", "square": "square", "star": "disc"})
    assert command(root, "adopt", "--model", str(run / "model"), "--parts", "rar", "discon") == 0
    published, nets = load(run / "model")
    assert published["classes"] == ["disc", "square"]
    for part, name, first in (("rar", "embeddings.weight", 17), ("discon", "class_emb.weight", 0)):
        old, new = nets[part].state_dict(), torch.load(root / f"{part}.pt", weights_only=False)["net"]
        before, rows_of, after = old[name][:first], old[name][first : first + 2], old[name][first + 2 :]
        mean = rows_of.mean(0, keepdim=True)
        assert torch.equal(new[name], torch.cat([before, mean, rows_of[1:], mean, after]))
        assert all(torch.equal(v, new[k]) for k, v in old.items() if k != name)


def test_the_nearest_training_picture_is_found(run):
    train, test = Images(run / "data", "train"), Images(run / "data", "test")
    index = np.array([5, 0, 9])
    some = train.pixels(index)
    changed = (some.int() + 3).clamp(max=255).to(torch.uint8)
    assert torch.equal(nearest(changed, train), some)
    filled = rows(test, 3)
    assert torch.equal(filled[[0, 1, 3, 4]], test.pixels([0, 1, 2, 3])) and (filled[[2, 5]] == 255).all()
