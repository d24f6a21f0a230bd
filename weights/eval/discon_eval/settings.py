"""What the settings of sampling do: distance and time when one of them is changed from the model's own."""
import pathlib

from discon_train.data import read_json

from .features import JudgeSpace, PhotoSpace
from .judging import Yardstick
from .sets import held_out, sample, seconds_a_picture

# Settings that are tried, as `discon sample` and the model's `sampling` name them.
TRIED = {
    "rounds": ("discon", "ar_steps", (1, 2, 4, 8, 16)),
    "steps": ("discon", "diffusion_steps", (5, 10, 25, 50)),
    "guidance": ("discon", "guidance", (1.0, 2.0, 3.0, 4.5)),
    "temperature": ("discon", "temperature", (0.5, 0.7, 0.85, 1.0)),
    "discrete-guidance": ("rar", "guidance", (1.0, 2.0, 3.0)),
    "discrete-temperature": ("rar", "temperature", (0.8, 0.9, 1.0)),
}
# Those that change how long a picture takes.
TIMED = ("rounds", "steps")


def settings(run, model, count, work, dtype):
    """{"own": {setting: value}, "tried": {setting: [{"value", "seconds", figures}]}}."""
    own = read_json(pathlib.Path(model) / "discon.json")["sampling"]
    yardstick = Yardstick([JudgeSpace(), PhotoSpace()], *held_out(pathlib.Path(run) / "data", "test"))
    found = {"count": count, "dtype": dtype, "own": {name: own[part][key] for name, (part, key, _) in TRIED.items()}, "tried": {}}
    for name, (part, key, values) in TRIED.items():
        found["tried"][name] = []
        for value in sorted({*values, own[part][key]}):
            changed = value != own[part][key]
            options = ("--dtype", dtype, *((f"--{name}", value) if changed else ()))
            path = pathlib.Path(work) / (f"{name}-{value}.npz" if changed else "own.npz")
            pictures, labels = sample(model, path, count, 0, options)
            row = {"value": value} | yardstick.distances(pictures, labels, f"{name} {value}")
            if name in TIMED:
                row["seconds"] = seconds_a_picture(model, options)
            print(name, " ".join(f"{k} {v:.3f}" for k, v in row.items()), flush=True)
            found["tried"][name].append(row)
    return found
