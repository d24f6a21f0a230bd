"""Muon's step and the figures that pictures are judged by."""
import numpy as np
import pytest
import torch

from discon_train import judge, loop, precision
from discon_train.errors import TrainError
from discon_train.grids import sheet
from discon_train.judge import frechet
from discon_train.muon import Muon, orthogonal, squarely, widely


@pytest.mark.parametrize("has_bf16", (True, False))
def test_orthogonal_has_singular_values_near_one(monkeypatch, has_bf16):
    monkeypatch.setattr(precision, "processor_multiplies_halves", lambda: has_bf16)
    for shape in ((32, 64), (64, 32), (48, 48), (3, 48, 48), (2, 64, 32)):
        s = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(1))))
        assert 0.3 < s.min() and s.max() < 1.4


def test_square_products_give_what_wide_ones_do():
    """To .001 also where singular values are far apart, as those of momenta are; the rounds leave them from .7 to 1.2 anyway."""
    gen = torch.Generator().manual_seed(5)
    for shape in ((24, 40), (16, 16), (2, 8, 200)):
        x = torch.randn(shape, generator=gen) @ torch.diag(torch.logspace(0, -4, shape[-1]))
        x /= x.norm(dim=(-2, -1), keepdim=True)
        assert (squarely(x, 5) - widely(x, 5)).abs().max() < 1e-3


def test_muon_fits_a_matrix_and_a_kernel():
    for shape in ((16, 16), (16, 4, 3, 3)):
        goal = torch.randn(shape, generator=torch.Generator().manual_seed(2))
        p = torch.nn.Parameter(torch.zeros(shape))
        opt = Muon([p], lr=0.05)
        for _ in range(200):
            opt.zero_grad()
            (p - goal).pow(2).mean().backward()
            opt.step()
        assert (p - goal).pow(2).mean() < 0.1 * goal.pow(2).mean()


def test_matrices_are_made_orthogonal_together_as_each_would_be_alone():
    m = torch.randn(3, 32, 20, generator=torch.Generator().manual_seed(4))
    for together, alone in zip(orthogonal(m), map(orthogonal, m)):
        assert (together - alone).abs().max() < (0.02 if precision.processor_multiplies_halves() else 1e-4)


@pytest.mark.parametrize("has_bf16", (True, False))
def test_muon_steps_as_far_whatever_is_multiplied_together(monkeypatch, has_bf16):
    monkeypatch.setattr(precision, "processor_multiplies_halves", lambda: has_bf16)
    found = []
    for threads in (1, 2):
        gen = torch.Generator().manual_seed(6)
        params = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((12, 20), (8, 8), (12, 20), (12, 20))]
        for p in params:
            p.grad = torch.randn(p.shape, generator=gen)
        torch.set_num_threads(threads)
        try:
            Muon(params, lr=1.0).step()
        finally:
            torch.set_num_threads(1)
        found.append(params)
    for alone, together in zip(*found):
        assert 0.1 < alone.abs().max() and (alone - together).abs().max() < (0.02 if has_bf16 else 1e-4)


def test_frechet_of_equal_and_moved_features():
    f = torch.randn(500, 8, generator=torch.Generator().manual_seed(3))
    assert abs(frechet(f, f)) < 1e-6
    assert abs(frechet(f + 2, f) - 32) < 1e-3


def test_a_classifier_that_was_stopped_is_trained_on(tmp_path, monkeypatch):
    for split in ("train", "val"):
        (tmp_path / "data" / split).mkdir(parents=True)
        for c in range(2):
            np.save(tmp_path / "data" / split / f"class-{c}.npy", np.random.default_rng(c).integers(0, 255, (8, 16, 16, 3), dtype=np.uint8))
    settings = {**judge.TRAIN, "steps": 6, "cooldown": 2, "batch": 4}
    monkeypatch.setattr(judge, "TRAIN", settings)
    monkeypatch.setattr(judge, "train", lambda *given: loop.train(*given, stop_at=3))
    with pytest.raises(TrainError, match="judge.pt: stopped at step 3"):
        judge.make_judge(tmp_path)
    monkeypatch.setattr(judge, "train", loop.train)
    judge.make_judge(tmp_path)
    assert torch.load(tmp_path / "judge.pt", weights_only=False)["step"] == 6


def test_sheet_is_as_large_as_its_pictures():
    assert sheet(torch.zeros(5, 3, 8, 8, dtype=torch.uint8), 2).size == (2 + 2 * 10, 2 + 3 * 10)
