"""The graph of a model folder in PyTorch, written to be fast there: fused attention, a fixed KV cache, both guidance halves in one
batch, channels-last convolutions, RAR's adaptive layers hoisted out of the token loop.

    python benches/peers/torch_graph.py MODEL [--device cpu|cuda] [--dtype f32|bf16] [--compile [MODE]] [--graphs] [--batch B]
                                        [--rounds R] [--steps T] [--tokens N] [--repeat 3] [--threads N]

Prints one JSON object like `discon bench --json`: median seconds by stage. The weights are the folder's, turned into the dtype, which
is that of the arithmetic too; random numbers are torch's own, so the pictures differ. What the engine does once and this in every picture,
round or step is told in docs/performance.md.

On a GPU each stage's time ends when the GPU is through. With --graphs the kernels of a stage are recorded as one CUDA graph for each
shape of its inputs, as far as the host goes the fastest that PyTorch can be: no Python and no launches are left. That is more than
`--compile reduce-overhead` does, which records the graph of each compiled function by itself, for each length of the cache anew, and
copies what a function is given into the graph, here its weights too.
"""
import argparse
import json
import math
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file


class Part:
    """Tensors by name."""

    def __init__(self, tensors):
        self.t = tensors

    @staticmethod
    def load(path, device):
        part = Part({k: v.to(torch.get_default_dtype()) for k, v in load_file(path, device=device).items()})
        for name, value in part.t.items():
            if value.dim() == 4:
                part.t[name] = value.contiguous(memory_format=torch.channels_last)
        return part

    def blocks(self, name, count):
        """A part for each of `count` blocks, all with the same names, so that what is compiled for one serves all."""
        starts = [f"{name}.{i}." for i in range(count)]
        return [Part({k.removeprefix(s): v for k, v in self.t.items() if k.startswith(s)}) for s in starts]

    def linear(self, name, x):
        return F.linear(x, self.t[name + ".weight"], self.t.get(name + ".bias"))

    def norm(self, name, x):
        return F.layer_norm(x, x.shape[-1:], self.t[name + ".weight"], self.t[name + ".bias"], 1e-6)

    def conv(self, name, x, stride=1, pad=None):
        w = self.t[name + ".weight"]
        return F.conv2d(x, w, self.t.get(name + ".bias"), stride, w.shape[-1] // 2 if pad is None else pad)


def heads(x, n):
    """[B, N, D] -> [B, H, N, D / H]"""
    return x.unflatten(-1, (n, -1)).transpose(1, 2)


class Discrete:
    """Stage 1."""

    def __init__(self, part, cfg, sampling):
        self.p, self.c, self.s, self.blocks = part, cfg, sampling, part.blocks("blocks", cfg["depth"])

    def block(self, p, x, mod, k, v, at):
        m = mod.chunk(6, -1)
        h = p.norm("norm1", x) * (1 + m[1]) + m[0]
        q, key, value = (heads(t, self.c["heads"]) for t in p.linear("attn.qkv", h).chunk(3, -1))
        k[:, :, at:at + 1], v[:, :, at:at + 1] = p.norm("attn.k_norm", key), value
        a = F.scaled_dot_product_attention(p.norm("attn.q_norm", q), k[:, :, :at + 1], v[:, :, :at + 1])
        x = x + m[2] * p.linear("attn.proj", a.transpose(1, 2).flatten(2))
        h = p.norm("norm2", x) * (1 + m[4]) + m[3]
        return x + m[5] * p.linear("mlp.fc2", F.gelu(p.linear("mlp.fc1", h)))

    def run(self, classes, tokens):
        p, c, s = self.p, self.c, self.s
        places, codes = c["seq_len"], c["codebook_size"]
        null = torch.full_like(classes, c["num_classes"])
        cond = p.t["embeddings.weight"][torch.cat([classes, null]) + codes + 1][:, None]
        silu = F.silu(cond + p.t["timesteps_embeddings"][:, :places + 1])
        mods = [b.linear("adaLN_modulation.1", silu) for b in self.blocks]
        last = p.linear("adaln_before_head.adaLN_modulation.1", silu)
        size = (cond.shape[0], c["heads"], places + 1, c["hidden_size"] // c["heads"])
        cache = [(cond.new_empty(size), cond.new_empty(size)) for _ in self.blocks]
        x, ids = p.t["cls_token"].expand(cond.shape[0], -1, -1), []
        for at in range(tokens + 1):
            x = x + p.t["pos_embed"][:, at:at + 1]
            if at:
                x = x + p.t["target_aware_pos_embed"][:, at + 1:at + 2]
            for b, mod, (k, v) in zip(self.blocks, mods, cache):
                x = self.block(b, x, mod[:, at:at + 1], k, v, at)
            if at == 0:
                x = cond
                continue
            scale, shift = last[:, at:at + 1].chunk(2, -1)
            logits = p.linear("lm_head", F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift)[:, 0]
            ramp = (1 - math.cos(((at - 1) / places) ** s["guidance_pow"] * math.pi)) / 2
            yes, no = logits.chunk(2)
            probs = ((no + ((s["guidance"] - 1) * ramp + 1) * (yes - no)) / s["temperature"]).float().softmax(-1)
            # What torch.multinomial does, but for its question whether all are probabilities, which waits for the GPU.
            ids.append((probs / torch.empty_like(probs).exponential_()).argmax(-1))
            x = p.t["embeddings.weight"][torch.cat([ids[-1], ids[-1]])][:, None]
        return F.pad(torch.stack(ids, 1), (0, places - tokens))


class Continuous:
    """Stage 2: condition and head."""

    def __init__(self, part, cfg):
        self.p, self.c = part, cfg
        self.blocks = {side: part.blocks(side + "_blocks", cfg[side + "_depth"]) for side in ("encoder", "decoder")}

    def block(self, p, n, x):
        q, k, v = (heads(t, n) for t in p.linear("attn.qkv", p.norm("norm1", x)).chunk(3, -1))
        a = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + p.linear("attn.proj", a)
        return x + p.linear("mlp.fc2", F.gelu(p.linear("mlp.fc1", p.norm("norm2", x))))

    def stack(self, side, x):
        for b in self.blocks[side]:
            x = self.block(b, self.c[side + "_heads"], x)
        return self.p.norm(side + "_norm", x)

    def prefix(self, classes, codes):
        p, c = self.p, self.c
        table = torch.cat([p.t["class_emb.weight"], p.t["fake_latent"]])
        both = torch.cat([classes, torch.full_like(classes, c["num_classes"])])
        rows = table[both][:, None].expand(-1, c["buffer_size"], -1)
        if c["discrete"]:
            codes = torch.cat([codes, torch.full_like(codes, c["codebook_size"])])
            rows = torch.cat([rows, p.t["discrete_emb.weight"][codes]], 1)
        return rows

    def condition(self, prefix, tokens, known):
        """z [2B, L, D]; `known` places, the same for all rows."""
        p, front = self.p, prefix.shape[1]
        x = torch.cat([prefix, p.linear("z_proj", tokens)], 1) + p.t["encoder_pos_embed_learned"]
        seen = torch.cat([torch.arange(front, device=known.device), front + known])
        x = p.linear("decoder_embed", self.stack("encoder", p.norm("z_proj_ln", x)[:, seen]))
        full = p.t["mask_token"].expand(len(x), front + tokens.shape[1], -1).clone()
        full[:, seen] = x
        full = self.stack("decoder", full + p.t["decoder_pos_embed_learned"])
        return full[:, front:] + p.t["diffusion_pos_embed_learned"]

    def eps(self, x, time_embedding, condition):
        p, n = self.p, "diffloss.net."
        y, h = F.silu(time_embedding + condition), p.linear(n + "input_proj", x)
        for i in range(self.c["head"]["depth"]):
            b = f"{n}res_blocks.{i}"
            shift, scale, gate = p.linear(b + ".adaLN_modulation.1", y).chunk(3, -1)
            u = p.norm(b + ".in_ln", h) * (1 + scale) + shift
            h = h + gate * p.linear(b + ".mlp.2", F.silu(p.linear(b + ".mlp.0", u)))
        shift, scale = p.linear(n + "final_layer.adaLN_modulation.1", y).chunk(2, -1)
        return p.linear(n + "final_layer.linear", F.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift)

    def head(self, z, steps, guidance):
        p, n, c = self.p, "diffloss.net.", self.c["token_dim"]
        condition, rows = p.linear(n + "cond_embed", z), len(z) // 2
        freqs = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float32, device=z.device) / 128)
        x = torch.randn(rows, c, device=z.device)
        for i in range(steps):
            a = 999.0 * (1 - i / max(1, steps - 1)) * freqs
            a = torch.cat([a.cos(), a.sin()]).to(z.dtype)
            time_embedding = p.linear(n + "time_embed.mlp.2", F.silu(p.linear(n + "time_embed.mlp.0", a)))
            out = self.eps(torch.cat([x, x]), time_embedding, condition)
            yes, no = out[:, :c].chunk(2)
            e, spread = no + guidance * (yes - no), torch.exp(0.5 * (out[:rows, c:] * 0.1 - 4))
            # The ancestral step's arithmetic with fixed factors: the same work.
            x = 0.99 * x - 0.1 * e.clamp(-5, 5) + 0.05 * spread * torch.randn_like(x)
        return x


class Decoder:
    """Stage 3."""

    def __init__(self, part, cfg):
        self.p, self.c = part, cfg

    def group_norm(self, name, x):
        return F.group_norm(x, 32, self.p.t[name + ".weight"], self.p.t[name + ".bias"], 1e-6)

    def res(self, n, x):
        h = self.p.conv(n + ".conv1", F.silu(self.group_norm(n + ".norm1", x)))
        h = self.p.conv(n + ".conv2", F.silu(self.group_norm(n + ".norm2", h)))
        return h + (self.p.conv(n + ".nin_shortcut", x) if n + ".nin_shortcut.weight" in self.p.t else x)

    def attend(self, n, x):
        h = self.group_norm(n + ".norm", x)
        q, k, v = (self.p.conv(f"{n}.{t}", h).flatten(2).transpose(1, 2) for t in "qkv")
        a = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return x + self.p.conv(n + ".proj_out", a)

    def run(self, z):
        p, n = self.p, "decoder."
        h = p.conv(n + "conv_in", p.conv("post_quant_conv", z))
        h = self.res(n + "mid.block_2", self.attend(n + "mid.attn_1", self.res(n + "mid.block_1", h)))
        for i in reversed(range(len(self.c["ch_mult"]))):
            for j in range(self.c["num_res_blocks"] + 1):
                h = self.res(f"{n}up.{i}.block.{j}", h)
                if f"{n}up.{i}.attn.{j}.q.weight" in p.t:
                    h = self.attend(f"{n}up.{i}.attn.{j}", h)
            if i:
                h = p.conv(f"{n}up.{i}.upsample.conv", F.interpolate(h, scale_factor=2.0))
        return p.conv(n + "conv_out", F.silu(self.group_norm(n + "norm_out", h)))


class Recorded:
    """A stage whose kernels are recorded as a CUDA graph for each shape of its inputs, and played from then on."""

    def __init__(self, call, pool):
        self.call, self.pool, self.graphs = call, pool, {}

    def __call__(self, *inputs):
        key = tuple(x.shape if torch.is_tensor(x) else x for x in inputs)
        if key not in self.graphs:
            self.graphs[key] = self.record([x.clone() if torch.is_tensor(x) else x for x in inputs])
        graph, own, result = self.graphs[key]
        for to, x in zip(own, inputs):
            if torch.is_tensor(x):
                to.copy_(x)
        graph.replay()
        # The graph writes there again, and the picture may still need it.
        return result.clone()

    def record(self, own):
        # What is compiled, chosen or allocated at first is so before the recording, in a stream as that one has.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.call(*own), self.call(*own)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            result = self.call(*own)
        return graph, own, result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compile", nargs="?", const="default", metavar="MODE", help="torch.compile, in a mode of it")
    parser.add_argument("--graphs", action="store_true", help="record each stage as a CUDA graph")
    for name in ("rounds", "steps", "tokens", "threads"):
        parser.add_argument("--" + name, type=int)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    on_gpu, batch = args.device == "cuda", args.batch
    if on_gpu and not torch.cuda.is_available():
        sys.exit("torch_graph.py: PyTorch finds no GPU to use")
    if args.graphs and not on_gpu:
        sys.exit("torch_graph.py: --graphs are of --device cuda")
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    # Shapes come again with every picture: the fastest of cuDNN's ways is looked for once.
    torch.backends.cudnn.benchmark = True
    torch.set_default_dtype({"f32": torch.float32, "bf16": torch.bfloat16}[args.dtype])
    if args.threads:
        torch.set_num_threads(args.threads)
    cfg = json.loads((args.model / "discon.json").read_text())
    part = {n: Part.load(args.model / f"{n}.safetensors", args.device) for n in ("rar", "discon", "vae")}
    discrete = Discrete(part["rar"], cfg["rar"], cfg["sampling"]["rar"])
    continuous, decoder = Continuous(part["discon"], cfg["discon"]), Decoder(part["vae"], cfg["vae"])
    if args.compile:
        # Rounds and places of the head bring more shapes than the default allows.
        torch._dynamo.config.recompile_limit = 256
        compiled = lambda call, **how: torch.compile(call, mode=args.compile, **how)
        discrete.block, continuous.block = compiled(discrete.block, dynamic=True), compiled(continuous.block, dynamic=True)
        continuous.eps, decoder.run = compiled(continuous.eps), compiled(decoder.run)
    stages = {"discrete": discrete.run, "condition": continuous.condition, "head": continuous.head, "decode": decoder.run}
    if args.graphs:
        # Graphs that never play at the same time share memory.
        pool = torch.cuda.graph_pool_handle()
        stages = {name: Recorded(call, pool) for name, call in stages.items()}
    s, places, c = cfg["sampling"]["discon"], cfg["discon"]["seq_len"], cfg["discon"]["token_dim"]
    rounds, steps, side = args.rounds or s["ar_steps"], args.steps or s["diffusion_steps"], math.isqrt(places)
    drawn = min(args.tokens or places, places)
    times = {k: [] for k in stages}

    for repeat in range(args.repeat + 1):
        spent = dict.fromkeys(times, 0.0)

        def clock(stage, *inputs, call=None):
            start = time.perf_counter()
            result = (call or stages[stage])(*inputs)
            if on_gpu:
                torch.cuda.synchronize()
            spent[stage] += time.perf_counter() - start
            return result

        classes = torch.randint(0, cfg["discon"]["num_classes"], (batch,), device=args.device)
        codes = clock("discrete", classes, drawn)
        prefix = clock("condition", classes, codes, call=continuous.prefix)
        # Both guidance halves of the batch, one below the other.
        tokens, order, left = torch.zeros(2 * batch, places, c, device=args.device), torch.randperm(places, device=args.device), places
        for r in range(rounds):
            keep = max(1, min(left - 1, math.floor(places * math.cos(math.pi / 2 * (r + 1) / rounds))))
            keep = 0 if r == rounds - 1 else keep
            z = clock("condition", prefix, tokens, order[left:])
            picked = order[keep:left]
            made = clock("head", z[:, picked].flatten(0, 1), steps, s["guidance"]).unflatten(0, (batch, -1))
            tokens[:, picked] = torch.cat([made, made])
            left = keep
        latent = tokens[:batch].transpose(1, 2).reshape(batch, c, side, side).contiguous(memory_format=torch.channels_last)
        clock("decode", latent)
        if repeat:
            for k, v in spent.items():
                times[k].append(v)
    median = {k: sorted(v)[len(v) // 2] for k, v in times.items()}
    print(json.dumps({
        "engine": "torch " + torch.__version__.split("+")[0], "model": cfg["name"], "dtype": args.dtype, "device": args.device,
        "compile": bool(args.compile), "mode": args.compile, "graphs": args.graphs, "batch": batch, "rounds": rounds, "steps": steps, "tokens": drawn, "threads": torch.get_num_threads(),
        "seconds": {k: round(v, 5) for k, v in median.items()}, "image_seconds": round(sum(median.values()), 5),
    }))


if __name__ == "__main__":
    main()
