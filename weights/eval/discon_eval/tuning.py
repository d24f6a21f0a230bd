"""Each system with the settings of sampling that suit it, out of as many for each: chosen on one half of the held-out pictures (val), while
the systems are compared on the other (test)."""
import itertools
import pathlib

from . import identity
from .features import JudgeSpace, PhotoSpace
from .judging import Yardstick
from .sets import held_out, sample


def every(**values):
    """Settings: each value of a name with each of the others."""
    return [dict(zip(values, chosen)) for chosen in itertools.product(*values.values())]


# The same for all that have a stage 2, whatever the models' own are.
BUDGET = ("--rounds", "8", "--steps", "25")
GUIDANCE, TEMPERATURE = (2.0, 3.0, 4.5), (0.5, 0.7, 0.85)
# The best of the nine was on the edge of what was tried for each: three more lie beyond it.
STAGE_1 = every(**{"discrete-guidance": (1.5, 2.0, 3.0, 1.0), "discrete-temperature": (0.7, 0.8, 0.9)})
STAGE_2 = every(guidance=(*GUIDANCE, 6.5), temperature=TEMPERATURE)
BOTH_STAGES = [
    *every(**{"guidance": GUIDANCE, "temperature": TEMPERATURE, "discrete-guidance": (2.0,), "discrete-temperature": (0.9,)}),
    *every(**{"guidance": (4.5,), "temperature": (0.5,), "discrete-guidance": (2.0,), "discrete-temperature": (0.95, 1.0, 1.1)}),
]
# What a system draws with, and the settings that are tried for it.
TRIES = {
    "discrete only": (("--what", "discrete"), STAGE_1),
    "continuous only": (BUDGET, STAGE_2),
    "without codes": (BUDGET, STAGE_2),
    "DisCon": (BUDGET, BOTH_STAGES),
}


def as_options(settings):
    return [text for name, value in settings.items() for text in (f"--{name}", str(value))]


def tune(run, model, system, count, work, dtype, earlier):
    """{"count", "dtype", "model", "sampling", "yardstick": what the figures are of, "tried": [{"settings", figures}], "best": settings}: least by
    the geometric mean of the distances in both spaces. `earlier`: what this returned before; its figures of the same are taken as they are."""
    data = pathlib.Path(run) / "data"
    what, tries = TRIES[system]
    found = {"count": count, "dtype": dtype, "model": identity.of_model(model), "sampling": identity.own_sampling(model, (*what, *as_options(tries[0]))),
             "yardstick": identity.of_yardstick(data)}
    rows = earlier["tried"] if all(earlier.get(key) == value for key, value in found.items()) else []
    yardstick, tried = None, []
    for settings in tries:
        row = next((row for row in rows if row["settings"] == settings), None)
        if row is None:
            yardstick = yardstick or Yardstick([JudgeSpace(), PhotoSpace()], *held_out(data, "val"))
            name = "-".join([system.replace(" ", "-"), *map(str, settings.values())])
            pictures, labels = sample(model, pathlib.Path(work) / f"{name}.npz", count, 0, (*what, "--dtype", dtype, *as_options(settings)))
            row = {"settings": settings} | yardstick.distances(pictures, labels, name)
            print(system, settings, f"judge {row['judge distance']:.3f} photo {row['photo distance']:.1f}", flush=True)
        tried.append(row)
    best = min(tried, key=lambda row: row["judge distance"] * row["photo distance"])
    return found | {"tried": tried, "best": best["settings"]}
