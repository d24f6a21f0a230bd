"""Known answers: inputs and outputs of every part of a model folder, in float64 from the exported weights."""
import json
import pathlib

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from .folder import latent_to_tokens, load, to_u8, tokens_to_latent

RTOL = {"rar_logits": 1e-4, "rar_sample": 0.0, "discon_z": 1e-4, "head_sample": 2e-4, "discon_sample": 1e-3,
        "vae_encode": 1e-4, "vae_decode": 1e-4, "vq_encode": 0.0, "vq_decode": 1e-4, "pipeline": 0.01}


@torch.no_grad()
def answer(kind, config, nets, i, p):
    """Outputs {name: tensor} of a case. i: inputs by name; p: params. Shapes are those of docs: B rows, L places."""
    if kind == "rar_logits":
        return {"logits": nets["rar"](i["ids"], i["classes"])}
    if kind == "rar_sample":
        return {"codes": nets["rar"].sample(i["classes"], i["uniforms"], p["guidance"], p["guidance_pow"], p["temperature"])}
    if kind == "discon_z":
        return {"z": nets["discon"](i["classes"], i["codes"], i["tokens"], i["masked"].bool())}
    if kind == "head_sample":
        head = nets["discon"].diffloss
        return {"tokens": head.sample(i["z"], i["z_null"], i["start"], i["noise"], p["diffusion_steps"], p["guidance"],
                                      p["temperature"], p.get("clip_x0"))}
    if kind == "discon_sample":
        codes = i["codes"] if config["discon"]["discrete"] else None
        return {"tokens": nets["discon"].sample(i["classes"], codes, i["order"], i["start"], i["noise"], p["ar_steps"],
                                                p["diffusion_steps"], p["guidance"], p["guidance_schedule"], p["temperature"], p.get("clip_x0"))}
    if kind == "vae_encode":
        mean, logvar = nets["vae"].encode(i["image"])
        return {"mean": mean, "logvar": logvar}
    if kind == "vae_decode":
        return {"image": nets["vae"].decode(i["latent"])}
    if kind == "vq_encode":
        return {"codes": nets["vq"].encode(i["image"])}
    if kind == "vq_decode":
        return {"image": nets["vq"].decode(i["codes"])}
    codes = nets["rar"].sample(i["classes"], i["uniforms"], p["guidance"], p["guidance_pow"], p["rar_temperature"])
    tokens = nets["discon"].sample(i["classes"], codes if config["discon"]["discrete"] else None, i["order"], i["start"], i["noise"],
                                   p["ar_steps"], p["diffusion_steps"], p["discon_guidance"], p["guidance_schedule"],
                                   p["temperature"], p.get("clip_x0"))
    return {"image": to_u8(nets["vae"].decode(tokens_to_latent(config["vae"], tokens)))}


def read_case(path):
    """(kind, params, rtol, inputs, outputs), integers as int64 and reals as float64."""
    with safe_open(path, "pt") as f:
        meta = f.metadata()
        every = {k: f.get_tensor(k) for k in f.keys()}
    wide = lambda t: t if t.dtype == torch.uint8 else t.double() if t.is_floating_point() else t.long()
    ins, outs = ({k.split(".", 1)[1]: wide(t) for k, t in every.items() if k.startswith(side)} for side in ("in.", "out."))
    return meta["kind"], json.loads(meta["params"]), float(meta["rtol"]), ins, outs


def write_case(path, kind, params, ins, outs):
    slim = lambda t: t if t.dtype == torch.uint8 else t.float() if t.is_floating_point() else t.int()
    tensors = {f"in.{k}": slim(t) for k, t in ins.items()} | {f"out.{k}": slim(t) for k, t in outs.items()}
    save_file({k: t.contiguous() for k, t in tensors.items()}, path,
              metadata={"kind": kind, "params": json.dumps(params), "rtol": repr(RTOL[kind])})


def error(out, ref):
    """||out - ref|| / ||ref||; for bytes the mean difference / 255."""
    if ref.dtype == torch.uint8:
        return ((out.double() - ref.double()).abs().mean() / 255).item()
    return ((out.double() - ref.double()).norm() / ref.double().norm().clamp(min=1e-30)).item()


def write_cases(folder, images=None, batch=2, rounds=4, steps=8, seed=7):
    """Writes FOLDER/cases/*.safetensors. images: float [batch, 3, H, W] in [-1, 1], noise when absent. Returns names."""
    folder = pathlib.Path(folder)
    config, nets = load(folder, torch.float64)
    gen = torch.Generator().manual_seed(seed)
    # inputs are stored as float32: round them before they are used
    randn = lambda *s: torch.randn(*s, generator=gen).double()
    B, L, K = batch, config["discon"]["seq_len"], config["rar"]["codebook_size"]
    C, n, size = config["discon"]["token_dim"], config["rar"]["num_classes"], config["image_size"]
    image = (images if images is not None else torch.rand(B, 3, size, size, generator=gen) * 2 - 1).float().double()
    unit = ((image + 1) / 2).float().double()
    classes = torch.randperm(n, generator=gen)[:B] if n >= B else torch.zeros(B, dtype=torch.long)
    uniforms = torch.rand(B, L, generator=gen).double()
    order = torch.stack([torch.randperm(L, generator=gen) for _ in range(B)])
    start, noise = randn(B, L, C), randn(steps, B, L, C)
    r, d = config["sampling"]["rar"], config["sampling"]["discon"]
    codes = nets["vq"].encode(unit)
    mean = nets["vae"].encode(image)[0].float().double()
    tokens = latent_to_tokens(config["vae"], mean).float().double()
    mask = lambda m: torch.zeros(B, L, dtype=torch.long).scatter(1, order[:, :m], 1)
    z_in = dict(classes=classes, codes=codes, tokens=tokens)
    z = nets["discon"](classes, codes, tokens, mask(L // 2).bool()).float().double()
    zn = nets["discon"](torch.full_like(classes, n), torch.full_like(codes, K), tokens, mask(L // 2).bool()).float().double()
    N, rounds = min(6, L), min(rounds, L)
    head_in = dict(z=z[0, :N], z_null=zn[0, :N], start=randn(N, C), noise=randn(steps, N, C))
    sampling = dict(guidance_schedule=d["guidance_schedule"], temperature=d["temperature"], clip_x0=d["clip_x0"])
    rar = dict(guidance=r["guidance"], guidance_pow=r["guidance_pow"])
    stage2 = dict(order=order, start=start, noise=noise)
    todo = {
        "rar_logits": ("rar_logits", {}, dict(classes=classes, ids=codes[:, :-1])),
        "rar_sample": ("rar_sample", {**rar, "temperature": r["temperature"]}, dict(classes=classes, uniforms=uniforms)),
        "discon_z_none_known": ("discon_z", {}, {**z_in, "masked": mask(L)}),
        "discon_z_half_known": ("discon_z", {}, {**z_in, "masked": mask(L // 2)}),
        "discon_z_one_left": ("discon_z", {}, {**z_in, "masked": mask(1)}),
        "head_sample": ("head_sample", dict(diffusion_steps=steps, guidance=d["guidance"], temperature=d["temperature"], clip_x0=d["clip_x0"]), head_in),
        "discon_sample": ("discon_sample", dict(ar_steps=rounds, diffusion_steps=steps, guidance=d["guidance"], **sampling), {**stage2, "classes": classes, "codes": codes}),
        "vae_encode": ("vae_encode", {}, dict(image=image)),
        "vae_decode": ("vae_decode", {}, dict(latent=mean)),
        "vq_encode": ("vq_encode", {}, dict(image=unit)),
        "vq_decode": ("vq_decode", {}, dict(codes=codes)),
        "pipeline": ("pipeline", {**rar, "rar_temperature": r["temperature"], "ar_steps": rounds, "diffusion_steps": steps,
                                  "discon_guidance": d["guidance"], **sampling}, {**stage2, "classes": classes, "uniforms": uniforms}),
    }
    out = folder / "cases"
    out.mkdir(parents=True, exist_ok=True)
    for name, (kind, params, ins) in todo.items():
        write_case(out / f"{name}.safetensors", kind, params, ins, answer(kind, config, nets, ins, params))
    return list(todo)
