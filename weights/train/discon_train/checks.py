"""What is wrong with settings, or between settings, data and a model folder, said before anything is computed."""
import pathlib

from .data import SPLITS, Images
from .errors import TrainError


def check_config(config):
    """Whether the networks can be made for `image_size`, and fit each other."""
    size = config["image_size"]
    if not isinstance(size, int) or size < 8:
        raise TrainError(f"image_size {size}: expected a whole number of pixels, 8 or more")
    halvings = {}
    for part, width, mult in (("vae", "ch", "ch_mult"), ("vq", "hidden_channels", "channel_mult")):
        net = config[part]["net"]
        halvings[part] = len(net[mult]) - 1
        if size % 2 ** halvings[part]:
            raise TrainError(f"image_size {size}: the {part} halves it {halvings[part]} times ({mult} {net[mult]}); "
                             f"expected a multiple of {2 ** halvings[part]}")
        for m in net[mult]:
            if net[width] * m % 32:
                raise TrainError(f"{part}: {width} {net[width]} x {m} of {mult}: expected a multiple of 32, which GroupNorm divides into groups")
    if halvings["vae"] != halvings["vq"]:
        raise TrainError(f"the vae halves a picture {halvings['vae']} times and the vq {halvings['vq']} times; expected as many codes as tokens")
    for part, dim, heads in (("rar", "hidden_size", "heads"), ("discon", "encoder_dim", "encoder_heads"), ("discon", "decoder_dim", "decoder_heads")):
        net = config[part]["net"]
        if net[dim] % net[heads]:
            raise TrainError(f"{part}: {dim} {net[dim]} is not a multiple of {heads} {net[heads]}")


def check_data(config, run):
    """Whether the packed pictures of a run, if there are any, have the size of the settings and the same classes in every split."""
    data = pathlib.Path(run) / "data"
    sets = {split: Images(data, split) for split in SPLITS if (data / split).is_dir()}
    for split, images in sets.items():
        if images.size != config["image_size"]:
            raise TrainError(f"{data / split}: pictures of {images.size} pixels, image_size is {config['image_size']}; run the data command for another --run")
        first = sets[next(iter(sets))]
        if images.classes != first.classes:
            odd = sorted(set(images.classes) ^ set(first.classes))
            raise TrainError(f"{data}: classes in some splits only: {', '.join(odd)}")


def check_model(folder, model, images):
    """Whether the model folder `model` (its discon.json) is for the pictures `images`."""
    if model["image_size"] != images.size:
        raise TrainError(f"{folder}: pictures of {model['image_size']} pixels, the run's data have {images.size}")
    if model["classes"] != images.classes:
        odd = sorted(set(model["classes"]) ^ set(images.classes))
        raise TrainError(f"{folder}: other classes than the run's data: {', '.join(odd) or 'in another order'}")
