"""What is asked of the engine."""
import numpy as np
import pytest

from discon_eval import sets
from discon_train.errors import TrainError

ENGINE = """#!/bin/sh
echo "$@" >> "$0.asked"
[ ! -e "$0.refuses" ] || exit 1
for last; do [ "$before" = --npz ] && file=$last; before=$last; done
[ -e "$file" ] || cp "$0.npz" "$file"
"""


@pytest.fixture
def engine(tmp_path, monkeypatch):
    path = tmp_path / "engine"
    path.write_text(ENGINE)
    path.chmod(0o755)
    np.savez(f"{path}.npz", arr_0=np.zeros((4, 8, 8, 3), np.uint8), arr_1=np.arange(4))
    monkeypatch.setattr(sets, "ENGINE", path)
    return path


def test_the_engine_sees_whether_pictures_that_are_there_are_those_that_are_wanted(engine, tmp_path):
    draw = lambda *options: sets.sample("model", tmp_path / "made/set.npz", 4, 7, options)
    pictures, labels = draw("--dtype", "f32")
    assert pictures.shape == (4, 3, 8, 8) and labels.tolist() == [0, 1, 2, 3]
    draw("--dtype", "f32")
    asked = engine.with_name("engine.asked").read_text().splitlines()
    assert asked == [f"sample --model model --count 4 --seed 7 --npz {tmp_path}/made/set.npz --dtype f32"] * 2
    engine.with_name("engine.refuses").touch()
    with pytest.raises(TrainError, match="--guidance 2"):
        draw("--dtype", "f32", "--guidance", 2)
