"""The training loop of every part: resumable exactly, ended at any time by a cooldown of known length."""
import contextlib
import hashlib
import os
import pathlib
import signal
import time

import torch

from .data import Order
from .errors import TrainError
from .muon import Muon
from .precision import half_products
from .progress import Progress

DEFAULTS = dict(steps=10000, cooldown=1000, warmup=100, batch=8, lr=1e-3, optimizer="adamw", weight_decay=0.0, betas=[0.9, 0.99],
                clip=1.0, ema=0.0, bf16=False, muon_scale=1.0, seed=1, eval_every=1000, save_seconds=100)


class Task:
    """What a part defines. `net` is trained; all randomness comes from the generator given to `loss`, which is the processor's: draws are the same
    on every device."""

    net: torch.nn.Module
    count: int
    device = torch.device("cpu")

    def to(self, device):
        """The task with its network, and what else `loss` multiplies, on `device`."""
        self.device = device
        self.net.to(device)
        return self

    def here(self, tensor):
        return tensor.to(self.device, non_blocking=True)

    def loss(self, index, gen, step):
        """Batch of training indices -> (loss, {name: float to show})."""
        raise NotImplementedError

    def evaluate(self):
        """Held-out figures {name: float} of `net` as it is."""
        return {}

    def after_step(self, step, gen):
        pass

    def state(self):
        return {}

    def load_state(self, state):
        pass


def save(path, state):
    """Writes a checkpoint in one move, so that a stop never leaves half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def generator(seed, step):
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


def inside(name, p):
    """Whether a parameter is a matrix or kernel between hidden features: not an embedding, first or last layer."""
    outer = ("embed", "_emb", "conv_in", "lm_head", "z_proj", "conv_out.weight", "final_layer", "quant_conv", "input_proj")
    return p.ndim in (2, 4) and min(p.shape[:2]) > 3 and not any(o in name for o in outer)


def optimizers(net, s):
    """AdamW for all, or ("muon") Muon for hidden matrices and kernels and AdamW for the rest."""
    params = [(n, p) for n, p in net.named_parameters() if p.requires_grad]
    hidden = [p for n, p in params if s["optimizer"] == "muon" and inside(n, p)]
    chosen = {id(p) for p in hidden}
    rest = [p for _, p in params if id(p) not in chosen]
    decay, plain = [p for p in rest if p.ndim > 1], [p for p in rest if p.ndim <= 1]
    groups = [dict(params=decay, weight_decay=s["weight_decay"]), dict(params=plain, weight_decay=0.0)]
    found = [torch.optim.AdamW([g for g in groups if g["params"]], lr=s["lr"], betas=tuple(s["betas"]), fused=True)]
    if hidden:
        found.append(Muon(hidden, lr=s["lr"] * s["muon_scale"], weight_decay=s["weight_decay"]))
    return found


def rate(step, s, cooldown_from):
    """Share of the full rate: linear warm-up, constant, then 1 - sqrt over the cooldown."""
    share = min(1.0, (step + 1) / max(1, s["warmup"]))
    if step >= cooldown_from:
        share *= 1 - ((step - cooldown_from) / max(1, s["cooldown"])) ** 0.5
    return share


def mean_weights(ema, net, decay):
    params = dict(net.named_parameters())
    with torch.no_grad():
        torch._foreach_lerp_(list(ema.values()), [params[k] for k in ema], 1 - decay)


@contextlib.contextmanager
def swapped(net, ema):
    """Inside, `net` has the averaged weights."""
    if not ema:
        yield net
        return
    kept = {k: p.detach().clone() for k, p in net.named_parameters() if k in ema}
    with torch.no_grad():
        for k, p in net.named_parameters():
            if k in ema:
                p.copy_(ema[k])
    yield net
    with torch.no_grad():
        for k, p in net.named_parameters():
            if k in kept:
                p.copy_(kept[k])


def fill(net, weights, path):
    """Weights of a checkpoint into `net`."""
    try:
        net.load_state_dict(weights)
    except RuntimeError as e:
        raise TrainError(f"{path}: made with other settings or another number of classes; give another --run or remove it ({e})") from None


class Team:
    """The processes that train one part together, each on its share of every batch. port: where, on this machine,
    they find each other."""

    def __init__(self, rank=0, world=1, port=29517):
        self.rank, self.world = rank, world
        if not 0 <= rank < world:
            raise TrainError(f"--rank {rank} of --world {world}: expected 0 to {world - 1}")
        if world > 1:
            try:
                torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
            except torch.distributed.DistError as e:
                raise TrainError(f"port {port}: {e}; another team may be at work there, give each its own --port") from None

    def average(self, params):
        """Gradients become the mean over processes."""
        if self.world > 1:
            grads = [p.grad for p in params if p.grad is not None]
            flat = torch.cat([g.flatten() for g in grads])
            torch.distributed.all_reduce(flat)
            flat /= self.world
            for g, new in zip(grads, flat.split([g.numel() for g in grads])):
                g.copy_(new.view_as(g))

    def any(self, *flags):
        """Which flags are set in any process."""
        if self.world == 1:
            return flags
        t = torch.tensor([float(bool(f)) for f in flags])
        torch.distributed.all_reduce(t, torch.distributed.ReduceOp.MAX)
        return tuple(bool(v) for v in t)


def train(task, folder, part, settings, minutes=None, stop_at=None, every=30.0, team=None, extend=False):
    """Trains `task` until its cooldown ends; continues from FOLDER/PART.pt when that is there.

    The cooldown starts at steps - cooldown, or at once when the file FOLDER/PART.finish appears, or when only as much
    of `minutes` is left as it takes. `extend` forgets a cooldown that was
    begun or done and trains on at the full rate, if `steps` leave room for that. `stop_at` stops (saved) at a step, for tests.
    Returns the state."""
    s, team = {**DEFAULTS, **settings}, team or Team()
    if s["batch"] % team.world:
        raise TrainError(f"{part}: batch {s['batch']} for --world {team.world}: expected as many pictures for each process")
    folder = pathlib.Path(folder)
    path, finish = folder / f"{part}.pt", folder / f"{part}.finish"
    net, opts = task.net, optimizers(task.net, s)
    ema = {k: p.detach().clone() for k, p in net.named_parameters() if p.requires_grad} if s["ema"] else {}
    step, seconds, cooldown_from, history = 0, 0.0, s["steps"] - s["cooldown"], []
    if path.exists():
        state = torch.load(path, map_location=task.device, weights_only=False)
        fill(net, state["net"], path)
        if state["settings"]["optimizer"] == s["optimizer"]:
            for o, saved in zip(opts, state["opts"]):
                o.load_state_dict(saved)
        step, seconds, history = state["step"], state["seconds"], state["history"]
        # A part taken from a model folder has no averages yet: they begin as its weights.
        ema = {k: state["ema"].get(k, p.detach().clone()) for k, p in net.named_parameters() if k in ema}
        if not extend:
            cooldown_from = min(cooldown_from, state["cooldown_from"])
        elif cooldown_from <= step:
            raise TrainError(f"{part}: at step {step}; to extend it, expected `steps` above {step + s['cooldown']} (its cooldown takes "
                             f"{s['cooldown']}), found {s['steps']}")
        task.load_state(state["task"])
        print(f"{part}: continues at step {step}", flush=True)
    for o, fresh in zip(opts, optimizers(net, s)):
        for g, new in zip(o.param_groups, fresh.param_groups):
            g.update({k: v for k, v in new.items() if k != "params"}, initial_lr=new["lr"])
    order = Order(task.count, s["batch"], s["seed"])
    stopped = []
    before = signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    show = Progress(part, cooldown_from + s["cooldown"], step, every, quiet=team.rank > 0)
    begin = saved_at = time.monotonic()
    earlier, first = seconds, step
    params = [p for p in net.parameters() if p.requires_grad]

    def state():
        return dict(step=step, net=net.state_dict(), ema=ema, opts=[o.state_dict() for o in opts], task=task.state(),
                    cooldown_from=cooldown_from, seconds=seconds, settings=s, history=history)

    def judge():
        net.eval()
        with swapped(net, ema), torch.no_grad():
            found = task.evaluate()
        net.train()
        if found:
            history.append(dict(step=step, seconds=round(seconds, 1), **found))
            show.note(f"step {step} held out: " + " ".join(f"{k} {v:.4f}" for k, v in found.items()))

    net.train()
    while step < cooldown_from + s["cooldown"]:
        pace = (time.monotonic() - begin) / (step - first) if step - first >= 20 else 0.0
        late = finish.exists() or (minutes and seconds + pace * s["cooldown"] >= 60 * minutes)
        halt, late = team.any(stopped or (stop_at is not None and step >= stop_at), late)
        if halt:
            break
        if late and step < cooldown_from:
            cooldown_from = step
            show.note(f"cooldown from step {step}, {s['cooldown']} steps")
        gen = generator(s["seed"], step * team.world + team.rank)
        share = rate(step, s, cooldown_from)
        for o in opts:
            for g in o.param_groups:
                g["lr"] = g["initial_lr"] * share
        with half_products(s["bf16"], task.device):
            loss, values = task.loss(order(step)[team.rank :: team.world], gen, step)
        for o in opts:
            o.zero_grad(set_to_none=True)
        loss.backward()
        team.average(params)
        norm = torch.nn.utils.clip_grad_norm_(params, s["clip"])
        if torch.isfinite(norm):
            for o in opts:
                o.step()
        task.after_step(step, gen)
        if ema:
            mean_weights(ema, net, min(s["ema"], (step + 1) / (step + 10)))
        step += 1
        seconds = earlier + time.monotonic() - begin
        show.step(step, cooldown_from + s["cooldown"], values)
        if step % s["eval_every"] == 0 and team.rank == 0:
            judge()
        if team.rank == 0 and time.monotonic() - saved_at > s["save_seconds"]:
            save(path, state())
            saved_at = time.monotonic()
    if team.rank == 0:
        if step >= cooldown_from + s["cooldown"] and not (history and history[-1]["step"] == step):
            judge()
        save(path, state())
    show.close()
    signal.signal(signal.SIGTERM, before)
    show.note(f"{'stopped' if stopped else 'done'} at step {step}, {seconds / 60:.1f} min")
    return state()


def fingerprint(state):
    """Of the weights of a checkpoint: equal for equal ones."""
    digest = hashlib.sha256()
    for kind in ("net", "ema"):
        for name, tensor in sorted(state[kind].items()):
            digest.update(f"{kind} {name} ".encode() + tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def check_sharpened(found, plain, path):
    """An error unless the state `found` of a sharpened decoder, at `path`, was made of the checkpoint `plain`."""
    if found["task"]["of"] != fingerprint(plain):
        raise TrainError(f"{path}: made of other weights than those beside it, which are now at step {plain['step']}; remove it, or remove it and sharpen again")


def trained(net, folder, part, sharp=True):
    """`net` with the weights of a run, averaged ones where they were kept; an autoencoder with its sharpened decoder, if there is one
    and `sharp` allows it. Returns (net, state)."""
    path, sharpened = (pathlib.Path(folder) / f"{name}.pt" for name in (part, f"{part}-sharp"))
    if not path.exists():
        raise TrainError(f"{path}: not there; train '{part}' first")
    state = torch.load(path, map_location="cpu", weights_only=False)
    if sharp and sharpened.exists():
        plain, path = state, sharpened
        state = torch.load(path, map_location="cpu", weights_only=False)
        check_sharpened(state, plain, path)
    fill(net, {**state["net"], **state["ema"]}, path)
    return net.eval(), state
