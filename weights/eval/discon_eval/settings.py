"""What the settings of sampling do: distance and time when one of them is changed."""
import pathlib

from discon_train.data import read_json

from .features import JudgeSpace, PhotoSpace
from .identity import SAMPLING
from .judging import Yardstick
from .sets import held_out, sample, seconds_a_picture
from .tuning import BUDGET

TRIED = {
    "rounds": (1, 2, 4, 8, 16),
    "steps": (5, 10, 25, 50),
    "guidance": (1.0, 2.0, 3.0, 4.5),
    "temperature": (0.5, 0.7, 0.85, 1.0),
    "discrete-guidance": (1.0, 1.5, 2.0, 3.0),
    "discrete-temperature": (0.7, 0.8, 0.9, 1.0),
}
# Those that change how long a picture takes.
TIMED = ("rounds", "steps")


def settings(run, model, count, work, dtype):
    """{"own": {setting: the model's}, "base": {setting: what it is while another is changed}, "tried": {setting: [{"value", "seconds", figures}]}}.
    Rounds and steps are those of the comparison of systems, the others the model's own."""
    sampling = read_json(pathlib.Path(model) / "discon.json")["sampling"]
    own = {name: sampling[part][key] for name, (part, key) in SAMPLING.items()}
    base = own | {name.removeprefix("--"): int(value) for name, value in zip(BUDGET[::2], BUDGET[1::2])}
    yardstick = Yardstick([JudgeSpace(), PhotoSpace()], *held_out(pathlib.Path(run) / "data", "test"))
    found = {"count": count, "dtype": dtype, "own": own, "base": base, "tried": {}}
    for name, values in TRIED.items():
        found["tried"][name] = []
        for value in sorted({*values, base[name]}):
            given = dict(zip(BUDGET[::2], BUDGET[1::2])) | ({f"--{name}": str(value)} if value != base[name] else {})
            options = ("--dtype", dtype, *(text for option in given.items() for text in option))
            path = pathlib.Path(work) / ("base.npz" if value == base[name] else f"{name}-{value}.npz")
            pictures, labels = sample(model, path, count, 0, options)
            row = {"value": value} | yardstick.distances(pictures, labels, f"{name} {value}")
            if name in TIMED:
                row["seconds"] = seconds_a_picture(model, options)
            print(name, " ".join(f"{k} {v:.3f}" for k, v in row.items()), flush=True)
            found["tried"][name].append(row)
    return found
