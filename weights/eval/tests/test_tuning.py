"""Which settings a system is given: the least distance in both spaces, of the same number of choices for each."""
import json

import pytest
import torch

from discon_eval import cli, identity, tuning


class Engine:
    """Stands for the engine and the yardstick: the distance follows from the options."""

    def __init__(self):
        self.asked = []

    def sample(self, model, path, count, seed, options):
        self.asked.append((path.name, tuple(map(str, options))))
        return options, torch.zeros(count)

    def distances(self, options, labels, label):
        g, t, d = (float(options[options.index(f"--{name}") + 1]) for name in ("guidance", "temperature", "discrete-temperature"))
        return {"judge distance": abs(g - 4.5) + abs(d - 1.0) + 1, "photo distance": 100 * (abs(t - 0.5) + 1)}


@pytest.fixture
def tune(monkeypatch, tmp_path):
    engine = Engine()
    monkeypatch.setattr(tuning, "sample", engine.sample)
    monkeypatch.setattr(tuning, "Yardstick", lambda *_: engine)
    monkeypatch.setattr(identity, "JUDGE", tmp_path / "judge.safetensors")
    for name in ("held_out", "JudgeSpace", "PhotoSpace"):
        monkeypatch.setattr(tuning, name, lambda *_: ())
    (tmp_path / "judge.safetensors").write_text("judge")
    (tmp_path / "data").mkdir()
    (tmp_path / "discon.safetensors").write_text("weights")

    def run(earlier, count=4, **sampling):
        engine.asked.clear()
        (tmp_path / "discon.json").write_text(json.dumps({"sampling": sampling}))
        return tuning.tune(tmp_path, tmp_path, "DisCon", count, tmp_path, "bf16", earlier)

    run.engine, run.folder = engine, tmp_path
    return run


def test_the_best_of_both_spaces_is_chosen(tune):
    found = tune({})
    assert found["best"] == {"guidance": 4.5, "temperature": 0.5, "discrete-guidance": 2.0, "discrete-temperature": 1.0} and len(found["tried"]) == 12
    assert len({name for name, _ in tune.engine.asked}) == 12 and all("bf16" in options for _, options in tune.engine.asked)


def test_what_was_tried_of_the_same_is_not_tried_again(tune):
    found = tune({}, discon={"guidance": 3.0, "clip_x0": 5.0})
    fewer = found | {"tried": found["tried"][:9]}
    assert tune(fewer, discon={"guidance": 2.0, "clip_x0": 5.0}) == found and len(tune.engine.asked) == 3
    for other in (lambda: tune(found, discon={"clip_x0": 4.0}), lambda: tune(found, 5, discon={"clip_x0": 5.0})):
        other()
        assert len(tune.engine.asked) == 12
    (tune.folder / "discon.safetensors").write_text("trained further")
    assert tune(found, discon={"clip_x0": 5.0})["model"] != found["model"] and len(tune.engine.asked) == 12


def test_every_system_has_as_many_choices():
    """And says the same settings in each, so that none is the model's own in one and given in another."""
    for what, tries in tuning.TRIES.values():
        assert len({tuple(settings.items()) for settings in tries}) == len(tries) == 12
        assert len({tuple(settings) for settings in tries}) == 1 and set(tries[0]) <= set(identity.SAMPLING)


def test_systems_tuned_at_the_same_time_are_both_kept(monkeypatch, tmp_path):
    def tune(_run, _model, system, *_):
        if system == "DisCon":
            assert cli.main(["tune", "--system", "discrete only", "--run", "run", "--work", "work"]) == 0
        return {"best": system}

    monkeypatch.setattr(cli, "RESULTS", tmp_path)
    monkeypatch.setattr(tuning, "tune", tune)
    assert cli.main(["tune", "--system", "DisCon", "--run", "run", "--work", "work"]) == 0
    assert cli.kept("tuning") == {name: {"best": name} for name in ("discrete only", "DisCon")}
