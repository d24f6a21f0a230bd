"""What is measured of a set of pictures."""
import torch

from discon_train.judge import frechet

from .metrics import perceptual, precision_recall, psnr, ssim


class Yardstick:
    """The held-out pictures, and the training pictures, in each feature space. `rebuilt`: {autoencoder: what it makes of the held-out pictures}."""

    def __init__(self, spaces, real, real_labels, train=None, rebuilt=None):
        self.spaces, self.real, self.real_labels, self.train, self.rebuilt = spaces, real, real_labels, train, rebuilt or {}
        self.of_real = {s.name: s.features(real, "held out") for s in spaces}
        self.judge = spaces[0]
        if train is not None:
            self.of_train, self.of_new = self.judge.features(train, "training"), {}

    def distances(self, pictures, labels, label):
        """{figure: value} of a set: distance, precision and recall in each space, and the share whose class is seen."""
        found = {"class accuracy": (self.judge.classes(pictures) == labels).float().mean().item()}
        for space in self.spaces:
            features = space.features(pictures, label)
            found[f"{space.name} distance"] = frechet(features, self.of_real[space.name])
            found[f"{space.name} precision"], found[f"{space.name} recall"] = precision_recall(features, self.of_real[space.name])
        return found

    def memorised(self, pictures, labels, label, through=None):
        """How near the nearest training picture is: medians in the judge's space and in pixels (root of the mean square, of 255), and how
        often a picture is nearer than a held-out one of its class, which the same autoencoder (`through`, of `rebuilt`) has rebuilt, as
        that alone moves a picture away. Means over classes: .5 as far as new pictures are, 1 known by heart (the statistic of Mann and Whitney;
        Meehan et al. 2020, 2004.05675, ask it of models). Neighbours are looked for in the judge's space."""
        if through not in self.of_new:
            self.of_new[through] = self.near(self.rebuilt[through] if through else self.real, f"held out {through or ''}")[1]
        new = self.of_new[through]
        space, pixels = self.near(pictures, label)
        classes = [nearer(pixels[labels == c], new[self.real_labels == c]) for c in labels.unique()]
        return {"nearest in space": space.median().item(), "nearest in pixels": pixels.median().item(),
                "nearer than held out": sum(classes) / len(classes)}

    def near(self, pictures, label, neighbours=16):
        """Of the nearest in space the one that is nearest in pixels: (distance in space [N], in pixels [N])."""
        features = self.judge.features(pictures, label)
        space, pixels = [], []
        for part, f in zip(pictures.split(64), features.split(64)):
            found = torch.cdist(f, self.of_train).topk(neighbours, dim=1, largest=False)
            space.append(found.values[:, 0])
            others = self.train[found.indices.flatten()].view(*found.indices.shape, *part.shape[1:])
            error = (others.float() - part[:, None].float()).pow(2).mean((2, 3, 4)).sqrt()
            pixels.append(error.min(1).values)
        return torch.cat(space), torch.cat(pixels)


def nearer(distances, others):
    """How often one of `distances` [N] is less than one of `others` [M]; equal ones count half."""
    difference = others[None] - distances[:, None]
    return ((difference > 0).float().mean() + (difference == 0).float().mean() / 2).item()


def rebuilt(space, original, pictures):
    """{figure: value} of what an autoencoder makes of held-out pictures."""
    return {"PSNR": psnr(pictures, original), "SSIM": ssim(pictures, original), "perceptual": perceptual(space.stages, pictures, original)}
