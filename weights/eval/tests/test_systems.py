"""The comparison of systems: each drawn with what it was tuned to, and not again when nothing of it has changed."""
import itertools
import json

import pytest
import torch
from PIL import Image

from discon_eval import identity
from discon_eval import systems as module


class Engine:
    """Stands for the engine and the yardstick."""

    def __init__(self, *_, train=None):
        self.real, self.drawn, self.through = torch.zeros(8), [], {}

    def sample(self, model, path, count, seed, options):
        self.drawn.append((path.stem, tuple(options)))
        return torch.zeros(count), torch.zeros(count)

    def distances(self, pictures, labels, label):
        return {"judge distance": float(len(self.drawn))}

    def memorised(self, pictures, labels, label, through):
        self.through[label.split(",")[0]] = through
        return {}


@pytest.fixture
def compare(monkeypatch, tmp_path):
    engine, turns = Engine(), itertools.count()
    stand_ins = {"Yardstick": lambda *_, **__: engine, "sample": engine.sample, "held_out": lambda *_: (torch.zeros(8), torch.zeros(8)),
                 "of_sets": lambda *_: {"held out": {"judge distance": next(turns)}}, "seconds_a_picture": lambda *_: 0.5,
                 "rebuild": lambda *_: (torch.zeros(8), torch.zeros(8)), "load": lambda _: ({}, {})}
    monkeypatch.setattr(identity, "JUDGE", tmp_path / "judge.safetensors")
    (tmp_path / "data").mkdir()
    for path in ("judge.safetensors", "data/one.npy"):
        (tmp_path / path).write_text(path)
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(module, name, stand_in)
    for name in ("JudgeSpace", "PhotoSpace"):
        monkeypatch.setattr(module, name, lambda: None)
    for name in ("ours", "rival", "ablation"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "discon.json").write_text("{}")
        (tmp_path / name / "discon.safetensors").write_text(name)

    def run(earlier, seeds=(1, 2), rival=False, ablation=False, tuned=None, count=4):
        engine.drawn.clear()
        rivals = {"continuous only": tmp_path / "rival" if rival else None, "without codes": tmp_path / "ablation" if ablation else None}
        found = module.systems(tmp_path, tmp_path / "ours", rivals, count, seeds, tmp_path, tuned or {}, "f32", earlier)
        return found, [name for name, _ in engine.drawn]

    run.folder, run.engine = tmp_path, engine
    return run


SHIPPED = ["DisCon-as-shipped-1", "DisCon-as-shipped-2"]
ALL = ["discrete-only-1", "discrete-only-2", "DisCon-1", "DisCon-2", *SHIPPED]


def test_what_has_not_changed_is_not_drawn_again(compare):
    first, drawn = compare({})
    assert drawn == ALL and [row["seed"] for row in first["systems"]["DisCon"]] == [1, 2]
    again, drawn = compare(first)
    assert drawn == [] and again == first
    more, drawn = compare(first, rival=True)
    assert drawn == ["continuous-only-1", "continuous-only-2"] and more["systems"]["DisCon"] == first["systems"]["DisCon"]
    _, drawn = compare(first, seeds=(1, 2, 3))
    assert drawn == ["discrete-only-3", "DisCon-3", "DisCon-as-shipped-3"]


def test_a_rival_that_is_not_at_hand_keeps_its_figures_beside_the_same_model(compare):
    first, _ = compare({}, rival=True)
    again, drawn = compare(first)
    assert drawn == [] and again["seconds"].keys() == {"discrete only", "DisCon", "DisCon as shipped"}
    assert again | {"seconds": None} == first | {"seconds": None}
    assert "continuous only" not in compare(first, count=5)[0]["systems"]
    (compare.folder / "ours" / "discon.safetensors").write_text("trained further")
    assert "continuous only" not in compare(first)[0]["systems"]


def test_what_has_changed_is_drawn_again(compare):
    first, _ = compare({})
    assert compare(first, count=5)[1] == ALL
    tuned = {"DisCon": {"best": {"guidance": 1.5}}}
    assert compare(first, tuned=tuned)[1] == ["DisCon-1", "DisCon-2"]
    assert compare.engine.drawn[0][1] == ("--rounds", "8", "--steps", "25", "--dtype", "f32", "--guidance", "1.5")
    (compare.folder / "ours" / "discon.safetensors").write_text("trained further")
    changed, drawn = compare(first)
    assert drawn == ALL and changed["sets"] != first["sets"]


def test_only_what_a_system_uses_of_the_models_own_sampling_counts(compare):
    def own(**sampling):
        (compare.folder / "ours" / "discon.json").write_text(json.dumps({"sampling": sampling}))

    first, _ = compare({})
    own(discon={"ar_steps": 2, "diffusion_steps": 10})
    assert compare(first)[1] == SHIPPED and compare.engine.drawn[0][1] == ("--dtype", "f32")
    own(discon={"guidance": 2})
    assert compare(first)[1] == ["DisCon-1", "DisCon-2", *SHIPPED]
    assert compare(compare({})[0], tuned={"DisCon": {"best": {"guidance": 1.5}}})[0]["sampling"]["DisCon"] == {"rar": {}, "discon": {}}
    own(rar={"guidance": 2})
    assert compare(first)[1] == ALL
    (compare.folder / "ours" / "discon.json").write_text('{"name": "another"}')
    assert compare(first)[1] == ALL


def test_stage_1_of_a_model_without_codes_draws_nothing(compare):
    config = {"discon": {"discrete": False}, "sampling": {"rar": {"guidance": 2}, "discon": {"clip_x0": 5}}}
    (compare.folder / "ablation" / "discon.json").write_text(json.dumps(config))
    assert compare({}, ablation=True)[0]["sampling"]["without codes"] == {"discon": {"clip_x0": 5}}


@pytest.mark.parametrize("path", ["judge.safetensors", "data/one.npy"])
def test_figures_of_another_yardstick_are_not_taken(compare, path):
    first, _ = compare({})
    (compare.folder / path).write_text("another")
    changed, drawn = compare(first, seeds=(1, 2, 3))
    assert len(drawn) == 9 and changed["yardstick"] != first["yardstick"]


def test_every_system_is_held_against_what_its_own_autoencoder_rebuilds(compare):
    found, _ = compare({}, rival=True, ablation=True)
    assert compare.engine.through == {"discrete only": "VQ", "continuous only": "VAE", "without codes": "VAE", "DisCon": "VAE", "DisCon as shipped": "VAE"}
    assert len(set(found["models"].values())) == 3 and found["models"]["DisCon"] == found["models"]["discrete only"]


def test_a_sheet_has_a_column_a_class(monkeypatch, tmp_path):
    asked = {}

    def sample(model, path, count, seed, options):
        asked.update(count=count, seed=seed, name=path.name)
        return torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4), None

    monkeypatch.setattr(module, "sample", sample)
    module.look("ours", "folder", 6, 10, tmp_path, (), tmp_path / "images")
    assert asked == {"count": 24, "seed": 10, "name": "look-ours.npz"}
    made = Image.open(tmp_path / "images/system-ours.png")
    assert made.size == (6 * 6 + 2, 4 * 6 + 2) and made.getpixel((4 + 6 * 2, 4 + 6 * 3)) == (20, 20, 20)
