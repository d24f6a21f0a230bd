"""Trains a DisCon model: data, vae and vq, encode, rar (stage 1), discon (stage 2), export, cases, grids; or all."""
import argparse
import pathlib
import sys

from .errors import TrainError

HERE = pathlib.Path(__file__).resolve().parent.parent
TRAINED = ("vae", "vq", "rar", "discon")


def parser():
    p = argparse.ArgumentParser(prog="discon_train", description=__doc__)
    sub = p.add_subparsers(dest="command", required=True)

    def command(name, text, **kinds):
        c = sub.add_parser(name, help=text, description=text)
        c.add_argument("--config", type=pathlib.Path, default=HERE / "configs" / "avatars-64.json", help="settings of the model (JSON)")
        c.add_argument("--run", type=pathlib.Path, help="folder of data and checkpoints; default runs/NAME beside the package")
        c.add_argument("--threads", type=int, default=1, help="threads of this process (1: start one process a core)")
        for option, kind in kinds.items():
            c.add_argument("--" + option.replace("_", "-"), **kind)
        return c

    images = dict(type=pathlib.Path, help="IMAGES/CLASS/*.png: pictures to learn; without it the avatars are drawn")
    background = dict(default="ffffff", help="colour laid under transparent pictures")
    minutes = dict(type=float, help="start the cooldown early enough to end after this much training time")
    out = dict(type=pathlib.Path, help="model folder; default RUN/model")
    held_out = dict(type=float, default=0.02, help="share of a class kept for validation, and as much for the test (default .02)")
    copies = dict(type=int, default=1, help="times a training picture is kept: as it is, then mirrored or not, smaller and moved a little")
    no_mirror = dict(action="store_true", help="copies are not mirrored: for letters and all else that has a right way round")
    device = dict(default="cpu", help="what trains: cpu, or an NVIDIA GPU (cuda, cuda:1, ...)")
    packing = dict(images=images, background=background, held_out=held_out, copies=copies, no_mirror=no_mirror)
    command("data", "draw or pack the pictures into RUN/data", **packing)
    for part in TRAINED:
        command(part, f"train {part}; continues where it stopped", minutes=minutes, device=device, rank=dict(type=int, default=0, help="number of this process of --world"),
                world=dict(type=int, default=1, help="processes that train this part together, a share of the batch each"),
                port=dict(type=int, default=29517, help="where they find each other on this machine"),
                extend=dict(action="store_true", help="train on after the cooldown, at the full rate, to a new one"))
    command("adopt", "start a run from trained parts of a model folder", model=dict(type=pathlib.Path, required=True, help="model folder"),
            parts=dict(nargs="+", choices=TRAINED, default=["vae", "vq", "rar"], help="which parts (default: vae vq rar)"))
    command("encode", "latents and codes of all pictures", device=device, only=dict(choices=("latents", "codes")))
    command("sharpen", "train the decoder of an autoencoder further, on how pictures look: RUN/PART-sharp.pt", minutes=minutes, device=device,
            part=dict(choices=("vae", "vq"), required=True), extend=dict(action="store_true", help="train on after the cooldown"))
    command("export", "write the model folder", out=out)
    command("cases", "write the known answers into the model folder", out=out)
    command("grids", "write sheets of pictures", out=out, to=dict(type=pathlib.Path, help="where to; default OUT/card"),
            columns=dict(type=int, default=8), seed=dict(type=int, default=1), only=dict(choices=("real", "rebuilt", "generated")))
    command("measure", "sizes, steps and held-out figures of a run", out=out)
    command("judge", "class accuracy and Frechet distance of pictures by a small classifier", out=out, per_class=dict(type=int, default=32))
    command("all", "data, vae, vq, encode, rar, discon, export, cases, grids and measure in turn", **packing, minutes=minutes, device=device, out=out)
    return p


def make_data(args, config, run):
    from . import data
    if args.images:
        counts = data.pack_folder(args.images, run / "data", config["image_size"], data.colour(args.background), args.held_out, args.copies,
                                  not args.no_mirror)
        print(f"data: {sum(counts.values())} pictures, {len(counts) // 3} classes in {run / 'data'}")
    else:
        n = config.get("avatars", {"train": 4000, "val": 128, "test": 128})
        data.render_avatars(run / "data", n["train"], n["val"], n["test"], config["image_size"])


def train_part(part, config, run, minutes, device, rank=0, world=1, port=29517, extend=False):
    from . import autoencoders, transformers
    from .data import Images
    from .export import net_config
    from .loop import Team, train
    section = config[part]
    options = section.get("task", {})
    if part in ("vae", "vq"):
        task = {"vae": autoencoders.VaeTask, "vq": autoencoders.VqTask}[part](section["net"], run / "data", **options)
    else:
        net = net_config(config, part, len(Images(run / "data", "train").classes))
        task = {"rar": transformers.RarTask, "discon": transformers.Stage2Task}[part](net, run, **options)
    print(f"{part}: {sum(p.numel() for p in task.net.parameters()) / 1e6:.2f}M parameters, {task.count} images", flush=True)
    if world > 1 and part == "vq":
        raise TrainError("the vq keeps a codebook that only one process can; train it with --world 1")
    if world > 1 and device.type != "cpu":
        raise TrainError(f"--world {world} on {device}: several processes train on the processor only")
    train(task.to(device), run, part, section["train"], minutes, team=Team(rank, world, port), extend=extend)


def sharpen(part, config, run, minutes, device, extend=False):
    from .loop import train
    from .sharpen import TRAIN, SharpenTask
    section = config.get("sharpen", {})
    task = SharpenTask(config, run, part, **section.get("task", {}))
    train(task.to(device), run, f"{part}-sharp", {**TRAIN, **section.get("train", {})}, minutes, extend=extend)


def do(command, args, config, run):
    if command not in ("data", "all"):
        from .checks import check_data
        check_data(config, run)
    if hasattr(args, "device"):
        from .precision import device_named
        device = device_named(args.device)
    if command == "data":
        make_data(args, config, run)
    elif command in TRAINED:
        given = {name: getattr(args, name) for name in ("rank", "world", "port", "extend") if hasattr(args, name)}
        train_part(command, config, run, args.minutes, device, **given)
    elif command == "adopt":
        from .adopt import adopt
        for part, path in adopt(config, run, args.model, args.parts).items():
            print(f"{part}: {path}")
    elif command == "sharpen":
        sharpen(args.part, config, run, args.minutes, device, args.extend)
    elif command == "encode":
        from . import encode
        for kind in [getattr(args, "only", None)] if getattr(args, "only", None) else ["latents", "codes"]:
            getattr(encode, "encode_" + kind)(config, run, device)
    elif command == "all":
        for each in ("data", "vae", "vq", "encode", "rar", "discon", "export", "cases", "grids", "measure"):
            if each == "data" and (run / "data").exists():
                continue
            do(each, args, config, run)
    else:
        out = args.out or run / "model"
        if command == "export":
            from .export import export
            for name, size in export(config, run, out).items():
                print(f"{out / name}: {size} bytes")
        elif command == "cases":
            from .cases import write_cases
            from .checks import check_model
            from .data import Images, read_json
            images = Images(run / "data", "test")
            check_model(out, read_json(out / "discon.json"), images)
            print("cases:", *write_cases(out, images.batch(images.spread(1)[[0, -1]])))
        elif command == "grids":
            from .grids import write_grids
            for path in write_grids(out, run / "data", getattr(args, "to", None) or out / "card", getattr(args, "columns", 8),
                                    getattr(args, "seed", 1), only=getattr(args, "only", None)):
                print(path)
        elif command == "judge":
            from .judge import judge
            judge(out, run, args.per_class)
        else:
            from .measure import measure
            measure(out, run)


def main(argv=None):
    args = parser().parse_args(argv)
    try:
        import torch
        from .checks import check_config
        from .data import read_config
        torch.set_num_threads(args.threads)
        config = read_config(args.config)
        check_config(config)
        do(args.command, args, config, args.run or HERE / "runs" / config["name"])
    except TrainError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0
