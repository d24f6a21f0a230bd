"""Packing a folder of pictures: splits that never meet, the resizing rule, and clear errors; and the avatar renderer."""
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from discon_train.data import Images, change, colour, pack_folder, read_image
from discon_train.errors import TrainError

HERE = pathlib.Path(__file__).resolve().parent.parent


def paint(path, colour, size=(16, 16), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


def folder_of(tmp_path, classes=("cat", "dog"), n=20):
    for c, name in enumerate(classes):
        for i in range(n):
            paint(tmp_path / "art" / name / f"{i}.png", (10 * i, 100 * c, 3))
    return tmp_path / "art"


def test_splits_never_meet(tmp_path):
    source = folder_of(tmp_path)
    paint(source / "cat" / "copy-of-3.png", (30, 0, 3))
    pack_folder(source, tmp_path / "data", 8, held_out=0.2)
    rows = {s: {im.tobytes() for a in Images(tmp_path / "data", s).arrays for im in a} for s in ("train", "val", "test")}
    assert len(rows["train"]) == 24 and len(rows["val"]) == len(rows["test"]) == 8
    assert not (rows["train"] & rows["val"] | rows["train"] & rows["test"] | rows["val"] & rows["test"])


def test_a_picture_of_two_classes_is_trained_on_only(tmp_path):
    source = folder_of(tmp_path)
    cats, dogs = (sorted((source / name).iterdir()) for name in ("cat", "dog"))
    for i, file in enumerate(cats[:6]):
        shutil.copy(file, source / "dog" / f"cat-{i}.png")
    pack_folder(source, tmp_path / "data", 8, held_out=0.2)
    rows = {s: {im.tobytes() for a in Images(tmp_path / "data", s).arrays for im in a} for s in ("train", "val", "test")}
    assert not (rows["train"] & rows["val"] | rows["train"] & rows["test"] | rows["val"] & rows["test"])
    for file in dogs:
        shutil.copy(file, source / "cat" / f"dog-{file.name}")
    with pytest.raises(TrainError, match="dog: 0 pictures that no other class has"):
        pack_folder(source, tmp_path / "again", 8)


def test_alpha_is_laid_over_the_background_and_sides_are_padded(tmp_path):
    paint(tmp_path / "a.png", (0, 0, 0, 0), (8, 8), "RGBA")
    assert (read_image(tmp_path / "a.png", 8, colour("#102030")) == [16, 32, 48]).all()
    paint(tmp_path / "b.png", (0, 0, 0), (8, 4))
    out = read_image(tmp_path / "b.png", 8, (255, 255, 255))
    assert (out[:2] == 255).all() and (out[2:6] == 0).all() and (out[6:] == 255).all()
    paint(tmp_path / "c.png", (9, 9, 9), (100, 100))
    assert read_image(tmp_path / "c.png", 8, (0, 0, 0)).shape == (8, 8, 3)


def figure(path, i, opaque):
    """A red picture with its left edge blue, or the same shape alone, at the left of what is transparent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    im = Image.new("RGBA", (32, 32), (200, 0, i, 255 if opaque else 0))
    im.paste((0, 0, 200, 255), (0, 0, 4, 32))
    im.paste((200, 0, i, 255), (4, 8, 16, 24))
    im.save(path)


@pytest.fixture
def figures(tmp_path):
    for i in range(20):
        figure(tmp_path / "art" / "flag" / f"{i}.png", i, True)
        figure(tmp_path / "art" / "key" / f"{i}.png", i, False)
    return tmp_path / "art"


def test_copies_are_of_training_pictures_alone_and_the_first_is_as_it_was(figures, tmp_path):
    for name, more in (("plain", {}), ("four", dict(copies=4)), ("again", dict(copies=4))):
        pack_folder(figures, tmp_path / name, 32, held_out=0.1, **more)
    plain, four, again = ({s: Images(tmp_path / n, s).arrays for s in ("train", "val", "test")} for n in ("plain", "four", "again"))
    for c, name in enumerate(("flag", "key")):
        as_they_are = {read_image(p, 32, (255, 255, 255)).tobytes() for p in (figures / name).iterdir()}
        assert {im.tobytes() for split in plain.values() for im in split[c]} == as_they_are
        for split in ("val", "test"):
            assert (plain[split][c] == four[split][c]).all()
        assert len(plain["train"][c]) == 16 and len(four["train"][c]) == 64
        assert (four["train"][c][::4] == plain["train"][c]).all() and (four["train"][c] == again["train"][c]).all()
        assert len({im.tobytes() for im in four["train"][c]}) > 56


def test_every_second_copy_is_mirrored_unless_that_is_refused(figures, tmp_path):
    for name, more in (("both", {}), ("ours", dict(mirror=False))):
        pack_folder(figures, tmp_path / name, 32, held_out=0.1, copies=4, **more)
    # The blue edge is at the left of the whole picture, or of what is drawn in it.
    blue = lambda im: ((im[..., 2] > 150) & (im[..., 0] < 100)).any(0).nonzero()[0].mean()
    red = lambda im: ((im[..., 0] > 150) & (im[..., 2] < 100)).any(0).nonzero()[0].mean()
    for name, mirrored in (("both", (False, True, False, True)), ("ours", (False,) * 4)):
        keys = Images(tmp_path / name, "train").arrays[1]
        for i, im in enumerate(keys):
            assert (blue(im) > red(im)) == mirrored[i % 4], (name, i)


def test_copies_lose_nothing_of_what_is_transparent_and_get_no_frame_where_nothing_is(figures, tmp_path):
    flag, key = figures / "flag" / "0.png", figures / "key" / "0.png"
    for copy in range(1, 20):
        how = change("0123456789abcdef" * 4, copy)
        assert 0.875 <= how["scale"] <= 1 and not change("0123456789abcdef" * 4, copy, mirror=False)["mirror"]
        im = read_image(key, 32, (255, 255, 255), **how).astype(int)
        drawn = (im.min(2) < 128).sum()
        # 320 places of the original are drawn on; each may only shrink with the scale.
        assert drawn == pytest.approx(320 * how["scale"] ** 2, rel=0.12)
        im = read_image(flag, 32, (255, 255, 255), **how)
        assert (im.min(2) < 128).all()


@pytest.mark.parametrize("more, message", [(dict(copies=0), "0 copies: expected 1 or more"), (dict(held_out=0.5), "held out 0.5")])
def test_counts_that_cannot_be(tmp_path, more, message):
    with pytest.raises(TrainError, match=message):
        pack_folder(folder_of(tmp_path), tmp_path / "data", 8, **more)


def test_a_small_class_keeps_a_picture_to_train_on(tmp_path):
    pack_folder(folder_of(tmp_path, n=4), tmp_path / "data", 8, held_out=0.4)
    assert len(Images(tmp_path / "data", "train")) == 4


@pytest.mark.parametrize("make, message", [
    (lambda p: None, "no such folder"),
    (lambda p: p.mkdir(), "no class folders"),
    (lambda p: (p / "cat").mkdir(parents=True), "cat: 0 different pictures"),
    (lambda p: (folder_of(p.parent), (p / "cat" / "0.png").write_bytes(b"no picture")), "0.png: not a readable picture"),
])
def test_errors_are_clear(tmp_path, make, message):
    make(tmp_path / "art")
    with pytest.raises(TrainError, match=message):
        pack_folder(tmp_path / "art", tmp_path / "data", 8)


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").touch()
    with pytest.raises(TrainError, match="not empty"):
        pack_folder(folder_of(tmp_path), tmp_path / "data", 8)


def test_bad_arrays_and_colours(tmp_path):
    (tmp_path / "train").mkdir()
    np.save(tmp_path / "train" / "a.npy", np.zeros((2, 8, 8)))
    with pytest.raises(TrainError, match="expected uint8"):
        Images(tmp_path, "train")
    np.save(tmp_path / "train" / "a.npy", np.zeros((0, 8, 8, 3), np.uint8))
    with pytest.raises(TrainError, match="empty class"):
        Images(tmp_path, "train")
    with pytest.raises(TrainError, match="colour"):
        colour("red")


def render(*args, what="avatars"):
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not (HERE / what / "node_modules").is_dir():
        pytest.skip(f"the renderer's packages are not installed: npm ci in weights/train/{what}")
    return subprocess.run(["node", str(HERE / what / "render.mjs"), *map(str, args)], capture_output=True, text=True)


def test_renderer_draws_every_class_and_splits_differ(tmp_path):
    done = render("--out", tmp_path, "--train", 3, "--val", 3, "--test", 3)
    assert done.returncode == 0, done.stderr
    sets = {s: Images(tmp_path, s) for s in ("train", "val", "test")}
    assert len(sets["train"].classes) == 16 and sets["train"].size == 64
    rows = [{im.tobytes() for a in s.arrays for im in a} for s in sets.values()]
    assert len(rows[0]) > 40 and not (rows[0] & rows[1]) and not (rows[0] & rows[2])
    again = render("--out", tmp_path / "again", "--train", 3, "--val", 0, "--test", 0, "--classes", "thumbs")
    assert again.returncode == 0
    assert (tmp_path / "again/train/thumbs.npy").read_bytes() == (tmp_path / "train/thumbs.npy").read_bytes()


def test_renderer_writes_png_and_says_what_is_wrong(tmp_path):
    assert render("--out", tmp_path, "--train", 2, "--val", 0, "--test", 0, "--classes", "micah", "--png").returncode == 0
    assert Image.open(tmp_path / "train/micah/000001.png").size == (64, 64)
    for args, message in ((["--out", tmp_path, "--classes", "cats"], "unknown class cats"), (["--train", 3], "--out DIR"), (["--out", tmp_path, "--train", "x"], "not a count")):
        done = render(*args)
        assert done.returncode == 2 and message in done.stderr


def test_emoji_are_transparent_and_without_skin_tones(tmp_path):
    done = render("--out", tmp_path, "--size", 24, "--classes", "noto-people,fluent-nature", what="emoji")
    assert done.returncode == 0, done.stderr
    names = {c: {p.stem for p in (tmp_path / c).iterdir()} for c in ("noto-people", "fluent-nature")}
    assert len(names["noto-people"]) == 390 and len(names["fluent-nature"]) == 152
    assert "waving-hand" in names["noto-people"] and not any("skin-tone" in n for n in names["noto-people"])
    ant = Image.open(tmp_path / "fluent-nature" / "ant.png")
    assert ant.size == (24, 24) and ant.mode == "RGBA" and ant.getextrema()[3] == (0, 255)
    for args, message in ((["--out", tmp_path, "--classes", "cats"], "unknown class cats"), ([], "--out DIR"),
                          (["--out", tmp_path, "--size", "x"], "not a count"), (["--cats"], "--cats")):
        done = render(*args, what="emoji")
        assert done.returncode == 2 and message in done.stderr
