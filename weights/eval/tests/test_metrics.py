"""The figures on sets whose answer is known."""
import math

import pytest
import torch

from discon_eval import metrics
from discon_eval.judging import Yardstick, nearer
from discon_train.judge import frechet


def normal(n, d, seed, mean=0.0, scale=1.0):
    return mean + scale * torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_frechet_is_that_of_normal_distributions():
    a = normal(20000, 4, 1)
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)
    # |m1 - m2|^2 + d (s1 - s2)^2 for deviations s1 and s2 in every direction
    assert frechet(a, normal(20000, 4, 2, mean=3.0, scale=2.0)) == pytest.approx(4 * 9 + 4, rel=0.02)


def test_frechet_of_correlated_features():
    turn = torch.linalg.qr(normal(5, 5, 3))[0]
    a = normal(3000, 5, 4) * torch.tensor([3.0, 1, 1, 0.5, 0.01])
    b = normal(3000, 5, 5) * torch.tensor([1.0, 2, 1, 0.5, 0.02]) + 1
    assert frechet(a @ turn, b @ turn) == pytest.approx(frechet(a, b), rel=1e-4)
    root = torch.linalg.eigvals(torch.cov(a.double().T) @ torch.cov(b.double().T)).real.clamp(min=0).sqrt().sum()
    plain = (a.double().mean(0) - b.double().mean(0)).pow(2).sum() + torch.cov(a.double().T).trace() + torch.cov(b.double().T).trace() - 2 * root
    assert frechet(a, b) == pytest.approx(plain.item(), rel=1e-6)


def test_precision_and_recall_tell_what_is_missing_from_what_is_wrong():
    left, right = normal(400, 2, 6), normal(400, 2, 7, mean=50.0)
    both = torch.cat([normal(400, 2, 8), normal(400, 2, 9, mean=50.0)])
    precision, recall = metrics.precision_recall(left, both)
    assert precision > 0.95 and recall == pytest.approx(0.5, abs=0.03)
    precision, recall = metrics.precision_recall(both, right)
    assert precision == pytest.approx(0.5, abs=0.03) and recall > 0.95


def test_radii_are_of_the_kth_other():
    points = torch.tensor([[0.0], [1.0], [3.0], [7.0], [15.0]])
    assert metrics.radii(points, 3).tolist() == [7, 6, 4, 7, 14]


def test_psnr_and_ssim():
    a = torch.randint(0, 246, (3, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    assert metrics.psnr(a, a + 10) == pytest.approx(10 * math.log10(255**2 / 100), abs=1e-4)
    assert metrics.ssim(a, a) == pytest.approx(1, abs=1e-6)
    flat = torch.full_like(a, 100)
    c1 = 0.01**2
    m, n = 100 / 255, 110 / 255
    assert metrics.ssim(flat, flat + 10) == pytest.approx((2 * m * n + c1) / (m * m + n * n + c1), abs=1e-4)
    assert metrics.ssim(a, 255 - a) < 0


def test_perceptual_distance_of_unit_vectors():
    stages = lambda x: [x.float(), 2 * x.float()[:, :, ::2, ::2]]
    a, b = torch.zeros(2, 2, 4, 4), torch.zeros(2, 2, 4, 4)
    a[:, 0], b[:, 1] = 3, 7
    assert metrics.perceptual(stages, a, a) == 0
    assert metrics.perceptual(stages, a, b) == pytest.approx(4)


class Mean:
    """A space of mean colours."""

    name = "mean"

    def features(self, pictures, label=""):
        return pictures.float().mean((2, 3))

    def classes(self, pictures):
        return pictures.float().mean((1, 2, 3)).gt(127).long()


def pick(n, seed):
    return torch.randint(8, 248, (n, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def rebuilt(pictures, seed=9):
    """As an autoencoder would that gets every number wrong by up to 8."""
    off = torch.randint(-8, 9, pictures.shape, generator=torch.Generator().manual_seed(seed))
    return (pictures.int() + off).to(torch.uint8)


def test_training_pictures_are_seen_though_an_autoencoder_has_moved_them():
    train, real = pick(300, 1), pick(200, 2)
    labels = torch.arange(200) % 2
    yardstick = Yardstick([Mean()], real, labels, train=train, rebuilt={"VAE": rebuilt(real)})
    near = lambda pictures: yardstick.memorised(pictures, labels[: len(pictures)], "", "VAE")["nearer than held out"]
    assert near(rebuilt(train[:50])) > 0.99
    assert near(rebuilt(pick(200, 3))) == pytest.approx(0.5, abs=0.1)
    assert yardstick.memorised(train[:50], labels[:50], "", None) == {"nearest in space": 0, "nearest in pixels": 0, "nearer than held out": 1}


def test_a_class_whose_held_out_pictures_are_copies_shows_nothing_and_hides_nothing():
    train, new = pick(300, 1), pick(100, 2)
    labels = torch.arange(2).repeat_interleave(100)
    real = torch.cat([train[:100], new])
    yardstick = Yardstick([Mean()], real, labels, train=train, rebuilt={"VAE": rebuilt(real)})
    near = lambda second: yardstick.memorised(torch.cat([rebuilt(train[100:200], 5), second]), labels, "", "VAE")["nearer than held out"]
    assert near(rebuilt(pick(100, 3))) == pytest.approx(0.5, abs=0.1)
    assert near(rebuilt(train[200:], 6)) == pytest.approx(0.75, abs=0.05)


def test_equal_distances_count_half():
    assert nearer(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])) == pytest.approx((0.5 + 1 + 0 + 1) / 4)


def test_figures_of_a_set():
    dark, light = torch.full((40, 3, 8, 8), 20, dtype=torch.uint8), torch.full((40, 3, 8, 8), 220, dtype=torch.uint8)
    real = torch.cat([dark, light]) + torch.randint(0, 9, (80, 3, 1, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(2).repeat_interleave(40)
    found = Yardstick([Mean()], real, labels).distances(real, labels, "")
    assert found["class accuracy"] == 1 and found["mean distance"] == pytest.approx(0, abs=1e-3)
    assert Yardstick([Mean()], real, labels).distances(real, 1 - labels, "")["class accuracy"] == 0
