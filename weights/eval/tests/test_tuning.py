"""Which settings a system is given: the least distance in both spaces, of the same number of choices for each."""
import torch

from discon_eval import cli, tuning


class Counted:
    """Stands for the engine and the yardstick: the distance follows from the options."""

    def __init__(self, *_):
        self.asked = []

    def sample(self, model, path, count, seed, options):
        self.asked.append((path.name, tuple(map(str, options))))
        values = dict(zip(options[::1], options[1::1]))
        return values, torch.zeros(count)

    def distances(self, options, labels, label):
        g, t = (float(options[f"--{name}"]) for name in ("guidance", "temperature"))
        return {"judge distance": abs(g - 2.0) + 1, "photo distance": 100 * (abs(t - 0.85) + 1)}


def test_the_best_of_both_spaces_is_chosen(monkeypatch, tmp_path):
    fake = Counted()
    monkeypatch.setattr(tuning, "sample", fake.sample)
    monkeypatch.setattr(tuning, "Yardstick", lambda *_: fake)
    for name in ("held_out", "JudgeSpace", "PhotoSpace"):
        monkeypatch.setattr(tuning, name, lambda *_: ())
    found = tuning.tune(tmp_path, "model", "DisCon", 4, tmp_path, "bf16")
    assert found["best"] == {"guidance": 2.0, "temperature": 0.85} and len(found["tried"]) == 9
    assert len({name for name, _ in fake.asked}) == 9 and all("bf16" in options for _, options in fake.asked)


def test_every_system_has_as_many_choices():
    sizes = {name: [len(values) for values in grid.values()] for name, (_, grid) in tuning.GRIDS.items()}
    assert set(map(tuple, sizes.values())) == {(3, 3)}


def test_systems_tuned_at_the_same_time_are_both_kept(monkeypatch, tmp_path):
    def tune(_run, _model, system, *_):
        if system == "DisCon":
            assert cli.main(["tune", "--system", "discrete only", "--run", "run", "--work", "work"]) == 0
        return {"best": system}

    monkeypatch.setattr(cli, "RESULTS", tmp_path)
    monkeypatch.setattr(tuning, "tune", tune)
    assert cli.main(["tune", "--system", "DisCon", "--run", "run", "--work", "work"]) == 0
    assert cli.kept("tuning") == {name: {"best": name} for name in ("discrete only", "DisCon")}
