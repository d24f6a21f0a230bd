"""What `run`, `parts`, `gpu` and `report.py` share: runs that alternate, files of results, Markdown tables of them.

A file of results has one JSON object a line: first what was measured and on which machine, then each run as its engine printed it.
"""
import json
import os
import random
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("discrete", "condition", "head", "decode", "image")
OURS = "discon"
FASTEST = "fastest peer"


def machine():
    info = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    fields = dict(map(str.strip, line.split(":", 1)) for line in info if ":" in line)
    cores = sum(line.startswith("processor") for line in info)
    return "{} (family {}, model {}), {} cores".format(*(fields.get(k, "?") for k in ("model name", "cpu family", "model")), cores)


def processor(about):
    """Without its cores."""
    return about["machine"].rsplit(",", 1)[0]


def load_average():
    """What else runs here, with a warning: engines whose threads wait by spinning lose most by it. To be read before anything is built."""
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: load average {load:.1f}: other programs run, the figures will mean little", file=sys.stderr)
    return round(load, 2)


def printed(command, env=None, failures=None):
    """The JSON objects that a command prints, one a line. A failure ends all, or is added to `failures`."""
    command = command if isinstance(command, str) else shlex.join(map(str, command))
    done = subprocess.run(command, shell=True, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    objects = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not objects:
        text = f"{command}\n{done.stderr}\nexit code {done.returncode}, {len(objects)} results"
        if failures is None:
            sys.exit(text)
        print(text, file=sys.stderr)
        last = (done.stderr.strip().splitlines() or ["no reason told"])[-1]
        failures.append(f"exit code {done.returncode}: {last}")
    return objects


def alternate(commands, times, env=None, failures=None):
    """All commands by turns, `times` times: what they printed, each with its peer's name. In another order each turn, since what else
    runs on a machine can have a rhythm. Where `failures` takes what a failed one said, the others go on, and it does too if it
    printed anything."""
    results, commands = [], dict(commands)
    for turn in range(times):
        for peer, command in random.sample(list(commands.items()), len(commands)):
            wrong = None if failures is None else []
            lines = printed(command, env, wrong)
            results += [dict(line, peer=peer, turn=turn) for line in lines]
            if wrong:
                failures += [f"{peer}: {text}" for text in wrong]
                if not lines:
                    del commands[peer]
            print(f"{turn + 1} of {times}: {peer}", file=sys.stderr)
    return results


def save(path, about, results):
    Path(path).write_text("".join(json.dumps(line) + "\n" for line in [about, *results]))


def load(path):
    about, *results = map(json.loads, Path(path).read_text().splitlines())
    return about, results


def table(head, rows):
    return "\n".join(["| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *rows)]) + "\n"


def folded(title, text):
    """What is there for those who want it."""
    return f"<details><summary>{title}</summary>\n\n{text.strip()}\n\n</details>\n"


def number(x):
    """Three significant digits, no exponent."""
    return f"{x:.0f}" if x >= 100 else f"{x:.3g}"


def titles(results):
    """What each peer calls itself, with its version."""
    names = {}
    for r in results:
        own = f"{OURS} {r['discon']}" if "discon" in r else r.get("engine", r["peer"])
        ways = [name for key, name in (("compile", "compiled"), ("graphs", "in CUDA graphs")) if r.get(key)]
        names.setdefault(r["peer"], ", ".join([own, *ways]))
    return names


def medians(results, key):
    """Median seconds by peer, ours first, and then by what `key` makes of a run: pairs of a name and seconds."""
    seconds = {}
    for r in results:
        if "peak" not in r and "error" not in r:
            for name, value in key(r):
                seconds.setdefault(r["peer"], {}).setdefault(name, []).append(value)
    ours_first = sorted(seconds.items(), key=lambda entry: (entry[0] != OURS, entry[0]))
    return {peer: {name: median(values) for name, values in by.items()} for peer, by in ours_first}


def by_stage(r):
    return [*r["seconds"].items(), ("image", r["image_seconds"])]


def by_part(r):
    return [((r["part"], r["rows"]), r["seconds"])]


def speedups(seconds, only=""):
    """By name: the seconds of each peer whose name starts with `only`, and of the fastest of them, over ours."""
    ours = seconds[OURS]
    ratios = {p: {n: s[n] / ours[n] for n in ours if n in s} for p, s in seconds.items() if p != OURS and p.startswith(only)}
    fastest = {n: min(r[n] for r in ratios.values() if n in r) for n in ours if any(n in r for r in ratios.values())}
    return {FASTEST: fastest, **ratios}


def hashes(results):
    return " ".join(sorted({r["hash"] for r in results if "hash" in r})) or "none"


def peaks(results):
    return next((r["peak"] for r in results if "peak" in r), None)


def limits(peak):
    """What the machine can do at most, in words."""
    f32, bf16, read = (number(peak[name] / 1e9) for name in ("f32", "bf16", "read_bytes"))
    if peak["q8"] is None:
        return f"At most {f32} GFLOP/s of f32 and {bf16} of bf16 (by `mma`) in registers, {read} GB/s read and written by a large copy."
    q8 = number(peak["q8"] / 1e9)
    return f"At most {f32} GFLOP/s of f32, {bf16} of bf16 and {q8} of 8-bit integers in registers, {read} GB/s read from memory."


def graph_summary(graphs):
    """The whole graph, a line a file: milliseconds of ours, and how many times as long the fastest peer takes, by stage."""
    rows = []
    for about, results in graphs:
        seconds = medians(results, by_stage)
        ratios = speedups(seconds)[FASTEST]
        ours = number(1000 * seconds[OURS]["image"])
        rows.append([about["work"], processor(about), about["isa"], ours, *(f"{ratios[s]:.2f}" if s in ratios else "" for s in STAGES)])
    return table(["work", "processor", "ours by", "ours, ms", *STAGES], rows)


def graph_tables(about, results):
    """The whole graph: milliseconds by stage, then ratios."""
    seconds, names = medians(results, by_stage), titles(results)
    cells = lambda values, of: [of(values[s]) if s in values else "" for s in STAGES]
    rows = [[names[p], *cells(s, lambda x: number(1000 * x))] for p, s in seconds.items()]
    if len(seconds) > 1:
        rows += [[f"{names.get(p, p)} / {OURS}", *cells(r, "{:.2f}".format)] for p, r in speedups(seconds).items()]
    head = "{work}; {machine}, {threads} threads, {isa}; milliseconds a picture, median of {times} alternating runs, load average before them {load}".format(**about)
    return f"{head}; hash of our pictures: {hashes(results)}\n\n{table(['engine', *STAGES], rows)}"


def work(part, rows, size):
    """FLOPs and bytes of a part: every weight, input and result once, all in numbers of `size` bytes."""
    width = 768
    if part == "product":
        return 8 * rows * width**2, size * (4 * width**2 + 4 * width + 5 * rows * width)
    scores = rows * rows // 2  # of each head: two sequences, each by itself
    return 24 * rows * width**2 + 4 * scores * width, size * (12 * width**2 + 13 * width + 2 * rows * width)


def label(part, rows):
    return f"product {rows} x 768 x 3072" if part == "product" else f"block 2 x {rows // 2} x 768"


def parts_tables(about, results, fold=lambda title, text: text):
    """Parts: ratios, then milliseconds, GFLOP/s and GB/s, folded."""
    seconds, names, peak = medians(results, by_part), titles(results), peaks(results)
    size = {"f32": 4, "bf16": 2}[about["dtype"]]
    ratios = speedups(seconds)
    head = "{dtype}; {machine}, {threads} threads; median of {times} alternating runs, load average before them {load}".format(**about)
    first = table(["part", *(f"{names.get(p, p)} / {OURS}" for p in ratios)],
                  [[label(*n), *(f"{r[n]:.2f}" if n in r else "" for r in ratios.values())] for n in seconds[OURS]])

    def cell(s, n):
        flops, moved = work(*n, size)
        return f"{number(1000 * s[n])} ms, {number(flops / s[n] / 1e9)} GFLOP/s, {number(moved / s[n] / 1e9)} GB/s"

    second = table(["part", *(names[p] for p in seconds)],
                   [[label(*n), *(cell(s, n) for s in seconds.values())] for n in seconds[OURS]])
    return f"{head}\n\n{first}\n{limits(peak)}\n\n{fold('Milliseconds and rates', second)}"
