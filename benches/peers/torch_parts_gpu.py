"""Products and attention by PyTorch on a GPU, as benches/gpu.rs has them: cases, numbers and matrices that take turns.

    python benches/peers/torch_parts_gpu.py CASE... [--compile] [--device cuda|cpu] [--once]

Prints one JSON object a measurement, and first the speed of a large copy. Inputs and results are bf16. The calls of a turn are one CUDA
graph, so the host's time is in no figure. Eager products are cuBLAS's; of eager attention, the fastest of the kernels that PyTorch has
counts. With --compile, products are tuned (mode max-autotune-no-cudagraphs). --device cpu is to try the script.
"""
import argparse
import json
import math
import sys
import time
from statistics import median

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from python_parts import numbers, tensor

FAR, TURN, TURNS, WARM_UP, HEADS = 256 << 20, 2e-3, 32, 0.5, 16
COPIED = 1 << 30
ATTENTIONS = {"": None, "flash": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION,
              "memory-efficient": SDPBackend.EFFICIENT_ATTENTION}


class Clock:
    """Seconds of a call, as benches/gpu.rs takes them."""

    def __init__(self, device, once):
        self.on_gpu, self.once = device == "cuda", once

    def seconds(self, calls):
        """Of one of the calls, which are one turn."""
        play = self.recorded(calls) if self.on_gpu else lambda: [call() for call in calls]
        start = time.perf_counter()
        while True:
            samples = self.turns(play, 2 if self.once else TURNS)
            if self.once or time.perf_counter() - start > WARM_UP:
                return median(samples) / len(calls)

    def recorded(self, calls):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for call in calls:
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in calls:
                call()
        return graph.replay

    def turns(self, play, count):
        if not self.on_gpu:
            at = [time.perf_counter()]
            for _ in range(count):
                play()
                at.append(time.perf_counter())
            return [b - a for a, b in zip(at, at[1:])]
        # The first is in no sample.
        events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        for event in events:
            play()
            event.record()
        torch.cuda.synchronize()
        return [a.elapsed_time(b) / 1e3 for a, b in zip(events, events[1:])]


def bytes_of(part, a, b, c):
    """Of what takes turns."""
    return 2 * (b * c if part == "product" else 3 * a * b * c)


def count(part, a, b, c, sets):
    """Calls of a turn: TURN seconds of them, at 800 TFLOP/s and 4 TB/s and no less than 2 microseconds each."""
    flops, moved = (2 * a * b * c, 2 * (a * b + b * c + a * c)) if part == "product" else (4 * a * b * b * c, 8 * a * b * c)
    calls = max(1, int(TURN / max(flops / 800e12, moved / 4e12, 2e-6)))
    return math.ceil(calls / sets) * sets


def product(size, sets, device, compiled):
    m, k, n = size
    to = lambda x: torch.from_numpy(x).to(device, torch.bfloat16)
    x, w = to(numbers((m, k), 0)), to(tensor(n, k, 2))
    weights = [w.clone() for _ in range(sets)]
    call = torch.compile(F.linear, mode="max-autotune-no-cudagraphs") if compiled else F.linear
    yield "", [lambda w=w: call(x, w) for w in weights]


def attention(size, sets, device, compiled):
    heads, places, d = size
    groups = heads // HEADS if heads % HEADS == 0 else 1
    x = torch.from_numpy(numbers((groups * places, 3 * heads // groups * d), 1)).to(device, torch.bfloat16)
    # q, k and v are columns of one matrix, as a product leaves them.
    split = lambda x: x.unflatten(0, (groups, places)).unflatten(-1, (3, heads // groups, d)).permute(2, 0, 3, 1, 4)
    inputs = [split(x.clone()) for _ in range(sets)]
    if compiled:
        call = torch.compile(F.scaled_dot_product_attention, mode="max-autotune-no-cudagraphs")
        yield "", [lambda x=x: call(*x) for x in inputs]
        return

    def by(backend, x):
        if backend is None:
            return F.scaled_dot_product_attention(*x)
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(*x)

    for way, backend in ATTENTIONS.items():
        yield way, [lambda x=x, backend=backend: by(backend, x) for x in inputs]


def measure(clock, part, size, device, compiled):
    """The fastest way, and the mean of its results' magnitudes."""
    sets = 2 if clock.once else max(2, -(-FAR // bytes_of(part, *size)))
    times = {}
    for way, calls in {"product": product, "attention": attention}[part](size, sets, device, compiled):
        try:
            mean = float(calls[0]().float().abs().mean())
            turn = calls * (1 if clock.once else count(part, *size, sets) // sets)
            times[way] = {"seconds": clock.seconds(turn), "mean": mean, "way": way}
        except RuntimeError as e:
            # Not every kernel takes every size.
            if way == "":
                raise
            print(f"{part} {size} by {way}: {str(e).splitlines()[0]}", file=sys.stderr)
    return min(times.values(), key=lambda one: one["seconds"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("cases", nargs="+", metavar="CASE", help="as benches/gpu.rs names them")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--once", action="store_true", help="each a few times, the clock does not matter")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch_parts_gpu.py: PyTorch finds no GPU to use")
    torch.set_grad_enabled(False)
    clock, failed = Clock(args.device, args.once), False
    about = {"engine": "torch " + torch.__version__.split("+")[0], "dtype": "bf16", "compile": args.compile}
    if not args.compile and not args.once:
        source = torch.randint(1 << 30, (COPIED // 4,), dtype=torch.int32, device=args.device)
        to = torch.empty_like(source)
        seconds = clock.seconds([lambda: to.copy_(source)])
        print(json.dumps(about | {"part": "copy", "shape": "1 GiB", "seconds": seconds, "bytes": 2 * COPIED}), flush=True)
        del source, to
    for case in args.cases:
        part, size = case.split(":")
        size = [int(n) for n in size.split("x")]
        line = about | {"part": part, "shape": " x ".join(map(str, size))}
        try:
            line |= measure(clock, part, size, args.device, args.compile)
        except Exception as e:
            failed = True
            line["error"] = str(e)
            print(f"{case}: {e}", file=sys.stderr)
        print(json.dumps(line), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
