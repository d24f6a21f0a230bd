"""Each system with the settings of sampling that suit it, out of as many for each: chosen on one half of the held-out pictures (val), while
the systems are compared on the other (test)."""
import itertools
import pathlib

from .features import JudgeSpace, PhotoSpace
from .judging import Yardstick
from .sets import held_out, sample

STAGE_2 = {"guidance": (2.0, 3.0, 4.5), "temperature": (0.5, 0.7, 0.85)}
STAGE_1 = {"discrete-guidance": (1.5, 2.0, 3.0), "discrete-temperature": (0.7, 0.8, 0.9)}
# The same for all that have a stage 2, whatever the models' own are.
BUDGET = ("--rounds", "8", "--steps", "25")
# What a system draws with, and the settings that are tried for it, every one with every other.
GRIDS = {"discrete only": (("--what", "discrete"), STAGE_1)} | {name: (BUDGET, STAGE_2) for name in ("continuous only", "without codes", "DisCon")}


def as_options(settings):
    return [text for name, value in settings.items() for text in (f"--{name}", str(value))]


def tune(run, model, system, count, work, dtype):
    """{"count", "dtype", "tried": [{"settings", figures}], "best": settings}: least by the geometric mean of the distances in both spaces."""
    yardstick = Yardstick([JudgeSpace(), PhotoSpace()], *held_out(pathlib.Path(run) / "data", "val"))
    what, grid = GRIDS[system]
    tried = []
    for values in itertools.product(*grid.values()):
        settings = dict(zip(grid, values))
        name = "-".join([system.replace(" ", "-"), *map(str, values)])
        pictures, labels = sample(model, pathlib.Path(work) / f"{name}.npz", count, 0, (*what, "--dtype", dtype, *as_options(settings)))
        tried.append({"settings": settings} | yardstick.distances(pictures, labels, name))
        print(system, settings, f"judge {tried[-1]['judge distance']:.3f} photo {tried[-1]['photo distance']:.1f}", flush=True)
    best = min(tried, key=lambda row: row["judge distance"] * row["photo distance"])
    return {"count": count, "dtype": dtype, "tried": tried, "best": best["settings"]}
