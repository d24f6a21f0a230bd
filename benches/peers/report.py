"""Draws the charts and fills the made sections of docs/performance.md from benches/results/*.jsonl.

    PYTHON benches/peers/report.py
"""
import re

import matplotlib
from matplotlib import pyplot as plt

import gpu_tables
import results as r

PAGE = r.ROOT / "docs/performance.md"
IMAGES = r.ROOT / "docs/images"
STAGE_COLOURS = dict(zip(r.STAGES, ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#444444")))
PRECISION_COLOURS = {"f32": "#4477aa", "bf16": "#228833", "q8": "#ee6677"}
WAY_COLOURS = {**PRECISION_COLOURS, "f32 over bf16": "#66ccee"}
PEER_COLOURS = {r.OURS: "#ee6677", "onnxruntime": "#aa3377", "candle": "#bbbbbb"}
# Ops that take less of a picture's time are left out.
SHARE = 0.02


def bars(ax, title, groups, colours, marks=None):
    """`groups`: bars by name and then by series, each a ratio; from 1 up, or down where it is slower. `marks`: what is aimed at."""
    series = [s for s in colours if any(s in values for values in groups.values())]
    width = 0.84 / len(series)
    for i, name in enumerate(series):
        at = [x + (i - (len(series) - 1) / 2) * width for x, values in enumerate(groups.values()) if name in values]
        ratios = [values[name] for values in groups.values() if name in values]
        ax.bar(at, [ratio - 1 for ratio in ratios], 0.92 * width, bottom=1, color=colours[name], label=name)
        for x, ratio in zip(at, ratios):
            ax.annotate(f"{ratio:.1f}", (x, max(ratio, 1)), (0, 2), textcoords="offset points", ha="center", fontsize=7)
        aims = [(marks or {}).get(group, {}).get(name) for group, values in groups.items() if name in values]
        for x, aim in zip(at, aims):
            if aim:
                ax.hlines(aim, x - width / 2, x + width / 2, "black", linewidth=1.5)
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
    """Times of the faster of PyTorch eager and compiled over ours, by stage, a row a processor; and of each engine on the parts."""
    processors = {}
    for about, results in graphs:
        name = about["work"].replace(", ", "\n", 1).replace(" rounds, ", " rounds,\n")
        title = f"Pictures, PyTorch / ours; {r.processor(about)}, {about['isa']}"
        processors.setdefault(title, {})[name] = r.speedups(r.medians(results, r.by_stage), "torch")[r.FASTEST]
    count = len(processors) + len(parts)
    widest = max(map(len, processors.values()), default=0)
    fig, axes = plt.subplots(count, squeeze=False, figsize=(max(10, 1.6 * widest), 3.4 * count), layout="constrained")
    axes = iter(axes[:, 0])
    for title, groups in processors.items():
        bars(next(axes), title, groups, STAGE_COLOURS)
    for about, results in parts:
        seconds = r.medians(results, r.by_part)
        torch = {n: ratio * seconds[r.OURS][n] for n, ratio in r.speedups(seconds, "torch")[r.FASTEST].items()}
        short = lambda n: r.label(*n).replace(" x ", "\u00d7").replace(" ", "\n", 1)
        groups = {short(n): {p: torch[n] / s[n] for p, s in seconds.items()} for n in torch}
        bars(next(axes), f"Parts, {about['dtype']}, PyTorch / each; {r.processor(about)}", groups, PEER_COLOURS)
    save(fig, "speed-up")


def profile(results):
    """Peaks of the machine, and the ops that count, each with its share of the time."""
    run = next(x for x in results if "ops" in x)
    whole = sum(op["seconds"] for op in run["ops"])
    ops = [op | {"share": op["seconds"] / whole} for op in run["ops"]]
    return run["peak"], [op for op in ops if op["share"] >= SHARE]


def roofs(ax, peak, precisions):
    """What memory and arithmetic allow."""
    for name in precisions:
        xs = [1 / 16, peak[name] / peak["read_bytes"], 4096]
        ax.plot(xs, [min(peak[name], x * peak["read_bytes"]) / 1e9 for x in xs], color=PRECISION_COLOURS[name], linewidth=1)
        ax.annotate(name, (4096, peak[name] / 1e9), (0, 2), textcoords="offset points", ha="right", fontsize=7)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=10)
    ax.set_xlabel("FLOPs a byte")
    ax.spines[["top", "right"]].set_visible(False)


def place(op):
    """FLOPs a byte, GFLOP/s."""
    return op["flops"] / op["bytes"], op["flops"] / op["seconds"] / 1e9


def roofline(graphs):
    """Every op that counts below what arithmetic and memory allow."""
    across = min(3, len(graphs))
    down = -(-len(graphs) // across)
    fig, axes = plt.subplots(down, across, squeeze=False, figsize=(5 * across, 4 * down), layout="constrained", sharey=True)
    for ax in axes.flat[len(graphs):]:
        ax.set_axis_off()
    for ax, (about, results) in zip(axes.flat, graphs):
        peak, ops = profile(results)
        roofs(ax, peak, ["f32", "bf16", "q8"])
        for op in ops:
            at = place(op)
            ax.scatter(*at, s=20 + 400 * op["share"], color=STAGE_COLOURS[op["stage"]], alpha=0.7, linewidths=0)
            ax.annotate(f"{op['stage']} {op['op']}", at, (0, 4), textcoords="offset points", ha="center", fontsize=6)
        ax.set_title(f"{about['work']}; {about['isa']}", fontsize=9)
    for row in axes:
        row[0].set_ylabel("GFLOP/s")
    save(fig, "roofline")


def lines_of(results):
    """The benches of `linear`, by matrix and way, fewest rows first."""
    lines = {}
    for op in results:
        if op["op"] == "linear":
            rows, matrix = op["shape"].split(" x ", 1)
            lines.setdefault((matrix, op["way"]), []).append((int(rows), op))
    return lines


def single_ops(results, peak):
    """Every op alone: products along their rows, and all else."""
    fig, axes = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained", sharey=True)
    lines = lines_of(results)
    styles = dict(zip(dict.fromkeys(matrix for matrix, _ in lines), ("-", "--", "-.", ":")))
    roofs(axes[0], peak, PRECISION_COLOURS)
    for (matrix, way), ops in lines.items():
        xs, ys = zip(*(place(op) for _, op in ops))
        axes[0].plot(xs, ys, styles[matrix], marker=".", markersize=4, linewidth=0.8, color=WAY_COLOURS[way])
    names = [plt.Line2D([], [], color=WAY_COLOURS[way], label=way) for way in dict.fromkeys(way for _, way in lines)]
    names += [plt.Line2D([], [], color="black", linestyle=style, label=matrix) for matrix, style in styles.items()]
    axes[0].legend(handles=names, fontsize=7, frameon=False)
    axes[0].set_title("linear, from few rows to many", loc="left", fontsize=9)
    axes[0].set_ylabel("GFLOP/s")
    roofs(axes[1], peak, ("f32", "bf16"))
    others = [op for op in results if op["op"] != "linear" and op["flops"]]
    for i, name in enumerate(dict.fromkeys(op["op"] for op in others)):
        xs, ys = zip(*(place(op) for op in others if op["op"] == name))
        axes[1].scatter(xs, ys, s=14, marker="os^vDP"[i % 6], color=plt.get_cmap("tab20")(i), label=name)
    axes[1].legend(fontsize=7, frameon=False)
    axes[1].set_title("other ops", loc="left", fontsize=9)
    save(fig, "ops")


def save(fig, name):
    IMAGES.mkdir(exist_ok=True)
    fig.savefig(IMAGES / f"{name}.svg", metadata={"Date": None})
    plt.close(fig)


def rates(op, peak):
    """GFLOP/s and GB/s, each with its share of the peak."""
    flops, moved = op["flops"] / op["seconds"], op["bytes"] / op["seconds"]
    read = op.get("read_bytes", peak["read_bytes"])
    return [r.number(flops / 1e9), f"{flops / peak[op['precision']]:.0%}", r.number(moved / 1e9), f"{moved / read:.0%}"]


RATES = ["GFLOP/s", "of peak", "GB/s", "of a read"]


def ops_table(about, results):
    peak, ops = profile(results)
    rows = [[op["stage"], op["op"], op["precision"], f"{op['share']:.0%}", *rates(op, peak)] for op in ops]
    ops = r.table(["stage", "op", "in", "time", *RATES], rows)
    return r.folded(f"{about['work']}; {r.processor(about)}, {about['isa']}", f"{r.limits(peak)}\n\n{ops}\n{floors(peak, results)}")


# Winograd's convolutions in f32 multiply so many times less than plain ones, whose FLOPs are what an op states.
WINOGRAD = 2.25


def floors(peak, results):
    """By stage: what its products and convolutions, and its attention, would take at the peak of what they multiply, all else in no
    time; what reading its operands once an op would take; what it takes; and how many times as long as the first the fastest peer does."""
    all_ops = next(x for x in results if "ops" in x)["ops"]
    seconds = r.medians(results, r.by_stage)
    peers = {stage: ratio * seconds[r.OURS][stage] for stage, ratio in r.speedups(seconds)[r.FASTEST].items()}
    rows, least = [], {}
    for stage in dict.fromkeys(op["stage"] for op in all_ops):
        ops = [op for op in all_ops if op["stage"] == stage]
        at_peak = lambda op: op["flops"] / peak[op["precision"]]
        multiplies = [op for op in ops if op["op"] in ("linear", "conv", "attention")]
        arithmetic = sum(map(at_peak, multiplies))
        least[stage] = sum(at_peak(op) / (WINOGRAD if (op["op"], op["precision"]) == ("conv", "f32") else 1) for op in multiplies)
        taken, reading = sum(op["seconds"] for op in ops), sum(op["bytes"] for op in ops) / peak["read_bytes"]
        rows.append([stage, *(r.number(1e3 * x) for x in (arithmetic, reading, taken)), f"{arithmetic / taken:.0%}"])
    least["image"] = sum(least.values())
    rows.append(["image", "", "", "", ""])
    for row in rows:
        row.append(f"{peers[row[0]] / least[row[0]]:.2f}" if row[0] in peers else "")
    head = ["stage", "products at the peak, ms", "a read of all operands, ms", "measured op by op, ms", "products' share", "fastest peer / products at the peak"]
    return r.table(head, rows)


def single_tables(about, results):
    """Products by rows and way, then all else."""
    peak, lines = about["peak"], lines_of(results)
    ways = list(dict.fromkeys(way for _, way in lines))
    cells = {(rows, matrix, way): "{}, {}; {}, {}".format(*rates(op, peak)) for (matrix, way), ops in lines.items() for rows, op in ops}
    shapes = dict.fromkeys((rows, matrix) for rows, matrix, _ in cells)
    head = "{machine}, {threads} threads, {isa}".format(**about)
    products = r.table(["linear", *ways], [[f"{m} x {n}", *(cells.get((m, n, way), "") for way in ways)] for m, n in shapes])
    others = [[op["op"], op["shape"], op["way"], r.number(1e6 * op["seconds"]), *rates(op, peak)] for op in results if op["op"] != "linear"]
    others = r.folded("All else", r.table(["op", "size", "way", "microseconds", *RATES], others))
    return f"{head}. {r.limits(peak)}\n\nProducts: GFLOP/s and their share of the peak; GB/s and their share of a read.\n\n{products}\n{others}"


def on_gpu(images, parts):
    """Times of the fastest peer over ours on a GPU, with the targets as marks."""
    groups, marks = {}, {}
    for about, results in images:
        seconds, name = r.medians(results, r.by_stage), "{size}\n{dtype}\nbatch {batch}".format(**about)
        if len(seconds) > 1 and r.OURS in seconds:
            groups[name], marks[name] = r.speedups(seconds)[r.FASTEST], gpu_tables.targets(about)
    for _, results in parts:
        for (part, shape), (ratio, target) in gpu_tables.beside_peer(results).items():
            name = f"{part}\n" + shape.replace(" x ", "\u00d7")
            groups[name], marks[name] = {"part": ratio}, {"part": target}
    if not groups:
        return False
    fig, ax = plt.subplots(figsize=(max(6, 1.4 * len(groups)), 3.6), layout="constrained")
    title = "On a GPU: speed-up over the fastest of PyTorch's ways; black: targets"
    bars(ax, title, groups, STAGE_COLOURS | {"part": "#aa3377"}, marks)
    ax.tick_params(axis="x", labelsize=7)
    save(fig, "gpu")
    return True


def gpu_section(files):
    """Everything measured on a GPU; where nothing was, that."""
    if not files:
        return "Nothing has been measured or checked on a GPU yet: the kernels have run under the host's emulation of them alone."
    images, parts = ([f for f in files if f[0]["kind"] == kind] for kind in ("gpu-images", "gpu-parts"))
    chart = "![Speed-up over PyTorch on a GPU](images/gpu.svg)" if on_gpu(images, parts) else ""
    tables = [gpu_tables.TABLES[kind](*f) for kind in gpu_tables.TABLES for f in files if f[0]["kind"] == kind]
    return "\n\n".join(t for t in [chart, *tables] if t)


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
    graphs, parts, singles = ([f for f in files if f[0]["kind"] == kind] for kind in ("graph", "parts", "ops"))
    graphs.sort(key=lambda f: (f[0]["machine"], f[0]["work"]))
    chart = lambda name, alt, there: f"![{alt}](images/{name}.svg)" if there else ""
    if graphs or parts:
        speed_up(graphs, parts)
    if graphs:
        roofline(graphs)
    # One chart has room for one machine: the last file's.
    for about, results in singles[-1:]:
        single_ops(results, about["peak"])
    page = PAGE.read_text()
    page = fill(page, "speed-up", chart("speed-up", "Speed-up over PyTorch by stage and part", graphs or parts))
    tables = "\n".join(r.graph_tables(*f) for f in graphs)
    page = fill(page, "pictures", r.graph_summary(graphs) + "\n" + r.folded("Milliseconds of every engine", tables))
    page = fill(page, "parts", "\n".join(r.parts_tables(*f, r.folded) for f in parts))
    page = fill(page, "roofline", "\n\n".join([chart("roofline", "Ops below the roofline", graphs), *(ops_table(*f) for f in graphs)]))
    page = fill(page, "gpu", gpu_section([f for f in files if f[0]["kind"] in gpu_tables.TABLES]))
    page = fill(page, "ops", "\n\n".join([chart("ops", "Single ops below the roofs", singles), *(single_tables(*f) for f in singles)]))
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
