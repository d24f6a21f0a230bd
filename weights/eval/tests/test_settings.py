"""What the settings do: each is changed alone, around the rounds and steps of the comparison and the model's own for the rest."""
import json

import torch

from discon_eval import settings


class Engine:
    """Stands for the engine and the yardstick."""

    def __init__(self, *_):
        self.asked, self.timed = {}, []

    def sample(self, model, path, count, seed, options):
        assert self.asked.setdefault(path.stem, options) == options
        return torch.zeros(count), torch.zeros(count)

    def distances(self, pictures, labels, label):
        return {"judge distance": 1.0, "photo distance": 2.0}

    def seconds_a_picture(self, model, options):
        self.timed.append(options)
        return 0.5


def test_one_setting_is_changed_at_a_time(monkeypatch, tmp_path):
    engine = Engine()
    for name in ("held_out", "JudgeSpace", "PhotoSpace"):
        monkeypatch.setattr(settings, name, lambda *_: ())
    monkeypatch.setattr(settings, "Yardstick", lambda *_: engine)
    monkeypatch.setattr(settings, "sample", engine.sample)
    monkeypatch.setattr(settings, "seconds_a_picture", engine.seconds_a_picture)
    own = {"rar": {"guidance": 2.0, "temperature": 0.9}, "discon": {"ar_steps": 3, "diffusion_steps": 25, "guidance": 3.0, "temperature": 0.65}}
    (tmp_path / "discon.json").write_text(json.dumps({"sampling": own}))
    found = settings.settings(tmp_path, tmp_path, 4, tmp_path, "bf16")
    assert (found["own"]["rounds"], found["base"]["rounds"]) == (3, 8) and found["base"]["guidance"] == 3.0
    usual = ("--dtype", "bf16", "--rounds", "8", "--steps", "25")
    assert engine.asked["base"] == usual and engine.asked["guidance-2.0"] == (*usual, "--guidance", "2.0")
    assert engine.asked["rounds-2"] == ("--dtype", "bf16", "--rounds", "2", "--steps", "25")
    # The model's own value is among those tried, and what is timed are rounds and steps.
    assert [row["value"] for row in found["tried"]["temperature"]] == sorted({*settings.TRIED["temperature"], 0.65})
    timed = {name for name, rows in found["tried"].items() if "seconds" in rows[0]}
    assert timed == set(settings.TIMED) and len(engine.timed) == sum(len(found["tried"][name]) for name in timed)
