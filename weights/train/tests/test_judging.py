"""Muon's step and the figures that pictures are judged by."""
import pytest
import torch

from discon_train import precision
from discon_train.grids import sheet
from discon_train.judge import frechet
from discon_train.muon import Muon, orthogonal


@pytest.mark.parametrize("has_bf16", (True, False))
def test_orthogonal_has_singular_values_near_one(monkeypatch, has_bf16):
    monkeypatch.setattr(precision, "HAS_BF16", has_bf16)
    for shape in ((32, 64), (64, 32), (48, 48), (3, 48, 48), (2, 64, 32)):
        s = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(1))))
        assert 0.3 < s.min() and s.max() < 1.4


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
        assert (together - alone).abs().max() < (0.02 if precision.HAS_BF16 else 1e-4)


def test_frechet_of_equal_and_moved_features():
    f = torch.randn(500, 8, generator=torch.Generator().manual_seed(3))
    assert abs(frechet(f, f)) < 1e-6
    assert abs(frechet(f + 2, f) - 32) < 1e-3


def test_sheet_is_as_large_as_its_pictures():
    assert sheet(torch.zeros(5, 3, 8, 8, dtype=torch.uint8), 2).size == (2 + 2 * 10, 2 + 3 * 10)
