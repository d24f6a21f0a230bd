"""Draws the charts and fills the made sections of docs/performance.md from benches/results/*.jsonl.

    PYTHON benches/peers/report.py
"""
import re
from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt

import results as r

PAGE = r.ROOT / "docs/performance.md"
IMAGES = r.ROOT / "docs/images"
STAGE_COLOURS = dict(zip(r.STAGES, ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#444444")))
PEER_COLOURS = {r.OURS: "#ee6677", "onnxruntime": "#aa3377", "candle": "#bbbbbb"}
# Ops that take less of a picture's time are left out.
SHARE = 0.02


def bars(ax, title, groups, colours):
    """`groups`: bars by name and then by series, each a ratio; from 1 up, or down where it is slower."""
    series = [s for s in colours if any(s in values for values in groups.values())]
    width = 0.84 / len(series)
    for i, name in enumerate(series):
        at = [x + (i - (len(series) - 1) / 2) * width for x, values in enumerate(groups.values()) if name in values]
        ratios = [values[name] for values in groups.values() if name in values]
        ax.bar(at, [ratio - 1 for ratio in ratios], 0.92 * width, bottom=1, color=colours[name], label=name)
        for x, ratio in zip(at, ratios):
            ax.annotate(f"{ratio:.1f}", (x, max(ratio, 1)), (0, 2), textcoords="offset points", ha="center", fontsize=7)
    ax.set_yscale("log", base=2)
    ax.yaxis.set_major_formatter("{x:g} x")
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, 0.8), max(high * 1.2, 2.2))
    ax.axhline(1, color="black", linewidth=0.8)
    ax.set_xticks(range(len(groups)), list(groups))
    ax.set_title(title, loc="left", fontsize=10)
    ax.legend(ncols=len(series), fontsize=8, frameon=False, loc="upper right", bbox_to_anchor=(1, 1.13))
    ax.spines[["top", "right"]].set_visible(False)


def speed_up(graphs, parts):
    """Times of the faster of PyTorch eager and compiled over ours, by stage; and of each engine on the parts."""
    count = bool(graphs) + len(parts)
    fig, axes = plt.subplots(count, squeeze=False, figsize=(10, 3.4 * count), layout="constrained")
    axes = iter(axes[:, 0])
    if graphs:
        groups = {}
        for about, results in graphs:
            name = about["work"].replace(", ", "\n", 1).replace(" rounds, ", " rounds,\n")
            groups[name] = r.speedups(r.medians(results, r.by_stage), "torch")[r.FASTEST]
        bars(next(axes), "Pictures: speed-up over the faster of PyTorch eager and compiled", groups, STAGE_COLOURS)
    for about, results in parts:
        seconds = r.medians(results, r.by_part)
        torch = {n: ratio * seconds[r.OURS][n] for n, ratio in r.speedups(seconds, "torch")[r.FASTEST].items()}
        short = lambda n: r.label(*n).replace(" x ", "\u00d7").replace(" ", "\n", 1)
        groups = {short(n): {p: torch[n] / s[n] for p, s in seconds.items()} for n in torch}
        bars(next(axes), f"Parts, {about['dtype']}: speed-up over the same", groups, PEER_COLOURS)
    save(fig, "speed-up")


def profile(results):
    """Peaks of the machine, and the ops that count: stage, name, share of the time, FLOPs and bytes a second."""
    run = next(x for x in results if "ops" in x)
    whole = sum(op["seconds"] for op in run["ops"])
    ops = [(op["stage"], op["op"], op["seconds"] / whole, op["flops"] / op["seconds"], op["bytes"] / op["seconds"]) for op in run["ops"]]
    return run["peak"], [op for op in ops if op[2] >= SHARE]


def roofline(graphs):
    """Every op that counts below what arithmetic and memory allow."""
    fig, axes = plt.subplots(1, len(graphs), squeeze=False, figsize=(5 * len(graphs), 4), layout="constrained", sharey=True)
    for ax, (about, results) in zip(axes[0], graphs):
        peak, ops = profile(results)
        xs = [1 / 8, peak["flops"] / peak["read_bytes"], 1024]
        ax.plot(xs, [min(peak["flops"], x * peak["read_bytes"]) / 1e9 for x in xs], color="black", linewidth=1)
        for stage, name, share, flops, moved in ops:
            at = (flops / moved, flops / 1e9)
            ax.scatter(*at, s=20 + 400 * share, color=STAGE_COLOURS[stage], alpha=0.7, linewidths=0)
            ax.annotate(f"{stage} {name}", at, (0, 4), textcoords="offset points", ha="center", fontsize=6)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log", base=10)
        ax.set_title(about["work"], fontsize=9)
        ax.set_xlabel("FLOPs a byte")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("GFLOP/s")
    save(fig, "roofline")


def save(fig, name):
    IMAGES.mkdir(exist_ok=True)
    fig.savefig(IMAGES / f"{name}.svg", metadata={"Date": None})
    plt.close(fig)


def ops_table(about, results):
    peak, ops = profile(results)
    head = f"{about['work']}: at most {r.number(peak['flops'] / 1e9)} GFLOP/s of f32 in registers, " \
        f"{r.number(peak['read_bytes'] / 1e9)} GB/s read from memory."
    rows = [[stage, name, f"{share:.0%}", r.number(flops / 1e9), f"{flops / peak['flops']:.0%}", r.number(moved / 1e9),
             f"{moved / peak['read_bytes']:.0%}"] for stage, name, share, flops, moved in ops]
    return f"{head}\n\n{r.table(['stage', 'op', 'time', 'GFLOP/s', 'of peak', 'GB/s', 'of peak'], rows)}"


def fill(page, name, text):
    """The section between its markers, replaced."""
    start, end = f"<!-- made: {name} -->", "<!-- end -->"
    pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.S)
    assert len(pattern.findall(page)) == 1, f"one section {start} ... {end}"
    return pattern.sub(lambda _: f"{start}\n{text.strip() or 'No results yet.'}\n{end}", page)


def main():
    # Text stays text, and the same results give the same bytes.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "discon", "font.family": "sans-serif"})
    files = [r.load(path) for path in sorted((r.ROOT / "benches/results").glob("*.jsonl"))]
    graphs, parts = ([f for f in files if f[0]["kind"] == kind] for kind in ("graph", "parts"))
    chart = lambda name, alt, there: f"![{alt}](images/{name}.svg)" if there else ""
    if files:
        speed_up(graphs, parts)
    if graphs:
        roofline(graphs)
    page = PAGE.read_text()
    page = fill(page, "speed-up", chart("speed-up", "Speed-up over PyTorch by stage and part", files))
    page = fill(page, "pictures", "\n".join(r.graph_tables(*f) for f in graphs))
    page = fill(page, "parts", "\n".join(r.parts_tables(*f) for f in parts))
    page = fill(page, "roofline", "\n\n".join([chart("roofline", "Ops below the roofline", graphs), *(ops_table(*f) for f in graphs)]))
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
