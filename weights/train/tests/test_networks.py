"""The trainer's networks against the known answers of the engine's fixture folders, in float64."""
import pathlib

import pytest
import torch

from discon_train.cases import answer, error, read_case
from discon_train.folder import load

FIXTURES = pathlib.Path(__file__).resolve().parents[3] / "tests" / "fixtures"
CASES = sorted(FIXTURES.glob("*/cases/*.safetensors"))


@pytest.fixture(scope="module")
def folders():
    return {p.name: load(p, torch.float64) for p in FIXTURES.iterdir() if (p / "discon.json").exists()}


def test_there_are_cases():
    assert len(CASES) >= 24, f"no fixture cases under {FIXTURES}"


@pytest.mark.parametrize("path", CASES, ids=lambda p: f"{p.parent.parent.name}-{p.stem}")
def test_case(path, folders):
    kind, params, rtol, ins, outs = read_case(path)
    config, nets = folders[path.parent.parent.name]
    got = answer(kind, config, nets, ins, params)
    assert set(got) == set(outs)
    for name, ref in outs.items():
        assert error(got[name], ref) <= rtol * 0.01 + 1e-6, name
