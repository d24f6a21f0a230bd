"""Measures models: the classifier that judges, settings that suit each system, the claim of the paper, and the effect of the settings."""
import argparse
import json
import pathlib
import sys

from discon_train.data import read_json
from discon_train.errors import TrainError

from .features import HERE, JUDGE
from .sets import ROOT
from .tuning import TRIES

RESULTS = HERE / "results"


def parser():
    p = argparse.ArgumentParser(prog="discon_eval", description=__doc__)
    sub = p.add_subparsers(dest="command", required=True)

    def command(name, text):
        c = sub.add_parser(name, help=text, description=text)
        c.add_argument("--run", type=pathlib.Path, required=True, help="the trainer's run folder, of which `data` is read")
        c.add_argument("--threads", type=int, default=2)
        return c

    command("judge", "train the classifier on RUN/data and write judge.safetensors")
    dtype = dict(default="bf16", choices=("f32", "bf16", "q8"), help="precision of the products")
    c = command("tune", "try settings of sampling for one system: writes results/tuning.json")
    c.add_argument("--model", type=pathlib.Path, default=HERE.parent / "avatars-64")
    c.add_argument("--system", required=True, choices=tuple(TRIES))
    c.add_argument("--count", type=int, default=1600, help="pictures of one choice of settings")
    c.add_argument("--dtype", **dtype)
    c.add_argument("--work", type=pathlib.Path, required=True)
    c.add_argument("--fresh", action="store_true", help="try all anew, also what results/tuning.json has of the same model and settings")
    c = command("systems", "compare the systems: writes results/systems.json")
    c.add_argument("--discon", type=pathlib.Path, default=HERE.parent / "avatars-64", help="model folder")
    c.add_argument("--continuous", type=pathlib.Path, help="model folder of the rival of continuous tokens alone; without it the figures stay that the results have of it")
    c.add_argument("--without-codes", type=pathlib.Path, help="model folder of DisCon's stage 2 trained without codes in front; as above")
    c.add_argument("--count", type=int, default=1600, help="pictures of a system and a seed")
    c.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    c.add_argument("--dtype", **dtype)
    c.add_argument("--work", type=pathlib.Path, required=True, help="where pictures lie; those that are there are not made again")
    c.add_argument("--fresh", action="store_true", help="measure all anew, also what results/systems.json has of equal models and options")
    c = command("settings", "the effect of the sampling's settings: writes results/settings.json")
    c.add_argument("--model", type=pathlib.Path, default=HERE.parent / "avatars-64")
    c.add_argument("--count", type=int, default=1600)
    c.add_argument("--dtype", **dtype)
    c.add_argument("--work", type=pathlib.Path, required=True)
    sub.add_parser("budgets", help="what each system was given to learn with: writes results/budgets.json")
    sub.add_parser("report", help="fill docs/quality.md, its tables and charts, from results/")
    return p


def write(name, found):
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(RESULTS / f"{name}.json")


def kept(name):
    """What was written before, or {}."""
    path = RESULTS / f"{name}.json"
    return read_json(path) if path.exists() else {}


def publish_judge(run):
    from safetensors.torch import save_file

    from discon_train.judge import make_judge
    net = make_judge(run)
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, JUDGE)
    print(f"{JUDGE}: {JUDGE.stat().st_size} bytes")


def main(argv=None):
    args = parser().parse_args(argv)
    try:
        if args.command == "report":
            from .report import report
            report(RESULTS)
            return 0
        if args.command == "budgets":
            from .budgets import budgets
            write("budgets", budgets())
            return 0
        import torch
        torch.set_num_threads(args.threads)
        if args.command == "judge":
            publish_judge(args.run)
        elif args.command == "systems":
            from .systems import systems
            rivals = {"continuous only": args.continuous, "without codes": args.without_codes}
            given = (args.run, args.discon, rivals, args.count, args.seeds, args.work)
            write("systems", systems(*given, kept("tuning"), args.dtype, {} if args.fresh else kept("systems"), ROOT / "docs/images"))
        elif args.command == "tune":
            from .tuning import tune
            found = tune(args.run, args.model, args.system, args.count, args.work, args.dtype, {} if args.fresh else kept("tuning").get(args.system, {}))
            # Read now, so that what another process has found meanwhile is kept.
            write("tuning", kept("tuning") | {args.system: found})
        else:
            from .settings import settings
            write("settings", settings(args.run, args.model, args.count, args.work, args.dtype))
    except TrainError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0
