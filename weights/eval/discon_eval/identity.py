"""What figures are figures of: the model, how it draws by itself, and what it is held against. Those of equal ones are not measured again."""
import hashlib
import json
import pathlib

from discon_train.data import read_json

from .features import JUDGE

# Settings of sampling: as options of `discon sample` name them, and where a model's `sampling` has its own.
SAMPLING = {
    "rounds": ("discon", "ar_steps"),
    "steps": ("discon", "diffusion_steps"),
    "guidance": ("discon", "guidance"),
    "temperature": ("discon", "temperature"),
    "discrete-guidance": ("rar", "guidance"),
    "discrete-temperature": ("rar", "temperature"),
}


def identity(paths):
    """Of files: equal for equal names and contents."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as f:
            digest.update(path.name.encode() + hashlib.file_digest(f, "sha256").digest())
    return digest.hexdigest()[:16]


def of_model(folder):
    """Of its weights and its config, but for how it is sampled."""
    folder = pathlib.Path(folder)
    config = {key: value for key, value in read_json(folder / "discon.json").items() if key != "sampling"}
    text = json.dumps(config, sort_keys=True).encode()
    return hashlib.sha256(text + identity(sorted(folder.glob("*.safetensors"))).encode()).hexdigest()[:16]


def of_yardstick(data):
    """Of the classifier and the pictures in `data`."""
    return identity([JUDGE, *sorted(pathlib.Path(data).rglob("*.npy"))])


def own_sampling(folder, options):
    """The model's own settings of sampling, of the stages that draw, without those that the options give."""
    config = read_json(pathlib.Path(folder) / "discon.json")
    own = config.get("sampling", {})
    given = {place for name, place in SAMPLING.items() if f"--{name}" in options}
    codes = config.get("discon", {}).get("discrete", True)
    used = ("rar",) if "discrete" in options else ("rar", "discon") if codes else ("discon",)
    return {part: {key: value for key, value in own.get(part, {}).items() if (part, key) not in given} for part in used}
