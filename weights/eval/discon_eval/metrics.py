"""Distances between sets of pictures and of their features, beside the Fréchet distance, which the trainer has too.

Precision and recall by nearest neighbours: Kynkäänniemi et al. 2019 (1904.06991). SSIM: Wang et al. 2004. Perceptual distance: the form
of LPIPS (Zhang et al. 2018, 1801.03924) without its learnt weights.
"""
import torch
import torch.nn.functional as F


def radii(points, k):
    """Distance of every point [N, D] to its k-th neighbour among the others."""
    return torch.cat([torch.cdist(part, points).kthvalue(k + 1, dim=1).values for part in points.split(512)])


def covered(points, others, reach):
    """Share of `points` that are within `reach` of at least one of `others`."""
    return torch.cat([(torch.cdist(part, others) <= reach).any(1) for part in points.split(512)]).float().mean().item()


def precision_recall(made, real, k=3):
    """(share of the made that lie among the real, share of the real that lie among the made)."""
    return covered(made, real, radii(real, k)), covered(real, made, radii(made, k))


def psnr(a, b):
    """Mean over pictures, dB. a and b: uint8 [N, 3, H, W]."""
    error = (a.float() - b.float()).pow(2).mean((1, 2, 3)).clamp(min=1e-10)
    return (10 * torch.log10(255**2 / error)).mean().item()


def ssim(a, b):
    """Mean over pictures and channels, 11 x 11 Gaussian window of deviation 1.5. a and b: uint8 [N, 3, H, W]."""
    g = torch.exp(-((torch.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    window = ((g / g.sum())[:, None] * (g / g.sum())[None]).double()
    blur = lambda x: F.conv2d(x.flatten(0, 1)[:, None], window[None, None])
    found = []
    for x, y in zip(a.split(256), b.split(256)):
        x, y = x.double() / 255, y.double() / 255
        mx, my = blur(x), blur(y)
        vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
        c1, c2 = 0.01**2, 0.03**2
        found.append(((2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))).mean((1, 2)))
    return torch.cat(found).mean().item()


def perceptual(stages, a, b, batch=64):
    """Mean over pictures of the squared distance of unit feature vectors, summed over `stages`: pictures -> list of [B, C, h, w]."""
    found = []
    for x, y in zip(a.split(batch), b.split(batch)):
        pairs = zip(stages(x), stages(y))
        found.append(sum((F.normalize(p, dim=1) - F.normalize(q, dim=1)).pow(2).sum(1).mean((1, 2)) for p, q in pairs))
    return torch.cat(found).mean().item()
