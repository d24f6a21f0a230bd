"""The tables and charts of docs/quality.md from results/*.json."""
import json
import pathlib
import re
import statistics

from discon_train.errors import TrainError

from .sets import ROOT

PAGE = ROOT / "docs/quality.md"
# Columns of the table of systems: heading, figure, digits, and whether more is better.
COLUMNS = (
    ("Fréchet distance, judge", "judge distance", 2), ("precision", "judge precision", 3), ("recall", "judge recall", 3),
    ("Fréchet distance, photo", "photo distance", 2), ("precision", "photo precision", 3), ("recall", "photo recall", 3),
    ("class seen", "class accuracy", 3), ("nearer to training than held out", "nearer than held out", 2),
)
COLOURS = {"discrete only": "#ee6677", "continuous only": "#ccbb44", "without codes": "#66ccee", "DisCon": "#4477aa", "DisCon as shipped": "#4477aa"}
# The distances of photo features are divided by this where both are in one chart.
PHOTO = 500
REBUILT = (("PSNR, dB", "PSNR", 2), ("SSIM", "SSIM", 4), ("perceptual", "perceptual", 3))


def spread(values, digits):
    """Mean and standard deviation over seeds, as text."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def systems_table(found):
    """A row a system, with its spread over seeds, below the rows of held-out and rebuilt pictures."""
    rows = [[name, *(f"{figures[key]:.{digits}f}" for _, key, digits in COLUMNS), ""] for name, figures in found["sets"].items()]
    for name, runs in found["systems"].items():
        figures = (spread([r[key] for r in runs], digits) for _, key, digits in COLUMNS)
        seconds = found["seconds"].get(name)
        rows.append([f"**{name}**", *figures, "" if seconds is None else f"{1000 * seconds:.0f}"])
    return table(["pictures", *(head for head, _, _ in COLUMNS), "ms an image"], rows)


def budgets_table(found):
    """What the transformers of each system were given; several of one system with a + between."""
    rows = []
    for name, parts in found.items():
        each = lambda text: " + ".join(text(part) for part in parts)
        rows.append([name, each(lambda p: f"{p['parameters'] / 1e6:.2f}"), each(lambda p: f"{p['steps']:,} x {p['batch']}"), each(lambda p: f"{p['TFLOP']:.0f}"),
                     f"{sum(p['TFLOP'] for p in parts):,.0f}"])
    return table(["system", "parameters, M", "steps x pictures", "TFLOP of training", "together"], rows)


def tuning_table(found):
    """The best settings of each system among those tried."""
    rows = []
    for name, tuned in found.items():
        best = next(row for row in tuned["tried"] if row["settings"] == tuned["best"])
        text = ", ".join(f"{k} {v:g}" for k, v in tuned["best"].items())
        rows.append([name, str(len(tuned["tried"])), text, f"{best['judge distance']:.2f}", f"{best['photo distance']:.0f}"])
    return table(["system", "tried", "best", "distance, judge", "distance, photo"], rows)


def rebuilt_table(found):
    rows = [[name, *(f"{figures[key]:.{digits}f}" for _, key, digits in REBUILT)]
            for name, figures in found["sets"].items() if "PSNR" in figures]
    return table(["pictures", *(head for head, _, _ in REBUILT)], rows)


def plotting():
    """Matplotlib such that text stays text, and the same results give the same bytes."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "discon", "font.family": "sans-serif"})
    return pyplot


def keep(plt, fig, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, metadata={"Date": None})
    plt.close(fig)


def systems_chart(found, path):
    """A panel a space: the distances of held-out and rebuilt pictures and, with their spread, of the systems."""
    plt = plotting()
    fig, axes = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained", sharey=True)
    sets, systems = found["sets"], found["systems"]
    names = [*sets, *systems]
    colours = ["#bbbbbb"] * len(sets) + [COLOURS[name] for name in systems]
    for ax, space in zip(axes, ("judge", "photo")):
        values = [[f[f"{space} distance"]] for f in sets.values()] + [[r[f"{space} distance"] for r in runs] for runs in systems.values()]
        deviation = [statistics.stdev(v) if len(v) > 1 else 0 for v in values]
        ax.barh(names, [statistics.mean(v) for v in values], xerr=deviation, color=colours)
        ax.set_title(f"Fréchet distance, {space}", loc="left", fontsize=10)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    keep(plt, fig, path)


def settings_chart(found, path):
    """A panel a setting: the distances in both spaces, and the time where it changes. A line at the model's own, a dotted one at the others' panels'."""
    plt = plotting()
    tried = found["tried"]
    fig, axes = plt.subplots(2, -(-len(tried) // 2), squeeze=False, figsize=(11, 6), layout="constrained")
    for ax, (name, rows) in zip(axes.flat, tried.items()):
        values = [r["value"] for r in rows]
        ax.plot(values, [r["judge distance"] for r in rows], "o-", color="#4477aa", label="distance, judge")
        ax.plot(values, [r["photo distance"] / PHOTO for r in rows], "s-", color="#228833", label=f"distance, photo / {PHOTO}")
        ax.axvline(found["base"][name], color="black", linewidth=0.8, linestyle=":")
        ax.axvline(found["own"][name], color="black", linewidth=0.8)
        ax.set_title(name, loc="left", fontsize=10)
        ax.set_ylim(bottom=0)
        if "seconds" in rows[0]:
            time = ax.twinx()
            time.plot(values, [1000 * r["seconds"] for r in rows], "^--", color="#ee6677", label="ms a picture")
            time.set_ylim(bottom=0)
            time.legend(fontsize=7, frameon=False, loc="upper right")
    axes.flat[0].legend(fontsize=7, frameon=False, loc="upper left")
    keep(plt, fig, path)


def fill(page, name, text):
    """The section between its markers, replaced."""
    start, end = f"<!-- made: {name} -->", "<!-- end -->"
    pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.S)
    if len(pattern.findall(page)) != 1:
        raise TrainError(f"docs/quality.md: expected one section {start} ... {end}, found {len(pattern.findall(page))}")
    return pattern.sub(lambda _: f"{start}\n{text.strip()}\n{end}", page)


def report(results, page=PAGE):
    """Fills the page from the results that are there."""
    results, page = pathlib.Path(results), pathlib.Path(page)
    if not page.exists():
        raise TrainError(f"{page}: not there; it has the sections that are filled")
    text = page.read_text()
    if (results / "systems.json").exists():
        found = json.loads((results / "systems.json").read_text())
        text = fill(text, "systems", systems_table(found))
        text = fill(text, "rebuilt", rebuilt_table(found))
        systems_chart(found, page.parent / "images/systems.svg")
    if (results / "tuning.json").exists():
        text = fill(text, "tuning", tuning_table(json.loads((results / "tuning.json").read_text())))
    if (results / "budgets.json").exists():
        text = fill(text, "budgets", budgets_table(json.loads((results / "budgets.json").read_text())))
    if (results / "settings.json").exists():
        settings_chart(json.loads((results / "settings.json").read_text()), page.parent / "images/settings.svg")
    page.write_text(text)
