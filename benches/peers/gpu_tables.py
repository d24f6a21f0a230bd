"""Tables of what `gpu` measured, each with the targets."""
import results as r

STAGE_TARGETS = {1: {"discrete": 3.0, "head": 5.0, "image": 3.0}, 64: {"image": 1.2}}
"""By batch, at sizes b and l: how many times faster than the fastest peer."""

NO_WGMMA = f"{r.OURS} without wgmma"
"""Ours on a Hopper without the kernels for it alone: not a peer."""

BESIDE_PEER, OF_COPY = "of the fastest peer", "of a copy"
PART_TARGETS = {
    ("product", "4096 x 4096 x 4096"): (0.8, BESIDE_PEER),
    ("product", "512 x 768 x 3072"): (1.0, BESIDE_PEER),
    ("product", "2 x 8192 x 8192"): (0.8, OF_COPY),
    ("product", "16 x 8192 x 8192"): (0.8, OF_COPY),
    ("attention", "64 x 576 x 64"): (1.0, BESIDE_PEER),
    ("attention", "64 x 576 x 80"): (1.0, BESIDE_PEER),
}
"""Speed as a share of the fastest peer's, or bytes a second of those of a large copy."""


def verdict(found, target):
    return "met" if found >= target else "missed"


def targets(about):
    return STAGE_TARGETS.get(about["batch"], {}) if about["size"] in ("b", "l") else {}


def part_seconds(results):
    """Median seconds by peer and part."""
    measured = [x for x in results if "part" in x and x["part"] != "copy"]
    return r.medians(measured, lambda x: [((x["part"], x["shape"]), x["seconds"])])


def beside_peer(results):
    """By part: the fastest peer's time over ours, and the target of that."""
    seconds, found = part_seconds(results), {}
    for name, ours in seconds.get(r.OURS, {}).items():
        peers = [s[name] for p, s in seconds.items() if p not in (r.OURS, NO_WGMMA) and name in s]
        aim, of = PART_TARGETS.get(name, (None, None))
        if peers:
            found[name] = min(peers) / ours, aim if of == BESIDE_PEER else None
    return found


def images(about, results):
    """Milliseconds by stage, ratios, targets."""
    seconds, names = r.medians(results, r.by_stage), r.titles(results)
    head = "{work}; {machine}; milliseconds a batch, median of {times} alternating runs".format(**about)
    rows = [[names[p], *(r.number(1000 * s[stage]) for stage in r.STAGES)] for p, s in seconds.items()]
    if len(seconds) > 1 and r.OURS in seconds:
        ratios = r.speedups(seconds)
        rows += [[f"{names.get(p, p)} / {r.OURS}", *(f"{x[stage]:.2f}" for stage in r.STAGES)] for p, x in ratios.items()]
        if aims := targets(about):
            cell = lambda s: f"{aims[s]:g}: {verdict(ratios[r.FASTEST][s], aims[s])}" if s in aims else ""
            rows.append([f"target of {r.FASTEST} / {r.OURS}", *map(cell, r.STAGES)])
    lines = [f"{head}; hash of our pictures: {r.hashes(results)}", r.table(["engine", *r.STAGES], rows)]
    return "\n\n".join([*lines, *told(about)])


def work(part, shape):
    """FLOPs, and bytes of inputs and results in bf16, each once."""
    a, b, c = map(int, shape.split(" x "))
    return (2 * a * b * c, 2 * (a * b + b * c + a * c)) if part == "product" else (4 * a * b * b * c, 8 * a * b * c)


def copy_bandwidth(results):
    """The best of what all engines' large copies moved."""
    ours = [x["peak"]["read_bytes"] for x in results if x.get("peak")]
    return max(ours + [x["bytes"] / x["seconds"] for x in results if x.get("part") == "copy"], default=None)


def parts(about, results):
    """Microseconds and rates by engine; what stands beside the targets."""
    copy, names = copy_bandwidth(results), r.titles([x for x in results if "part" in x])
    seconds, beside = part_seconds(results), beside_peer(results)
    ours = seconds.get(r.OURS, {})
    rows = []
    for name in dict.fromkeys(n for s in seconds.values() for n in s):
        flops, moved = work(*name)
        cell = lambda s: f"{r.number(1e6 * s)}, {r.number(flops / s / 1e12)}, {r.number(moved / s / 1e9)}"
        shares = {}
        if name in beside:
            shares[BESIDE_PEER] = beside[name][0]
        if name in ours and copy:
            shares[OF_COPY] = moved / ours[name] / copy
        target, of = PART_TARGETS.get(name, (0, ""))
        aim = f"{target:.0%} {of}" if of else ""
        if of in shares:
            aim += f": {verdict(shares[of], target)}"
        rows.append([f"{name[0]} {name[1]}", *(cell(s[name]) if name in s else "" for s in seconds.values()),
                     *(f"{shares[k]:.0%}" if k in shares else "" for k in (BESIDE_PEER, OF_COPY)), aim])
    head = "bf16; {machine}; microseconds, TFLOP/s and GB/s, median of {times} alternating runs".format(**about)
    if copy:
        head += f"; a large copy reads and writes {r.number(copy / 1e9)} GB/s"
    table = r.table(["part", *(names[p] for p in seconds), f"ours {BESIDE_PEER}", f"ours {OF_COPY}", "target"], rows)
    return "\n\n".join([head, table, *told(about, results)])


def kernels(about, results):
    """Ops of a picture, then kernels, those of the most time first, beside what the GPU can do at most."""
    run, head = next(x for x in results if "ops" in x), "{work}; {machine}".format(**about)
    peak = run["peak"]

    def table(entries, names):
        whole, rows = sum(x["seconds"] for x in entries), []
        for x in sorted(entries, key=lambda x: -x["seconds"]):
            flops, moved = (x[k] / max(x["seconds"], 1e-9) for k in ("flops", "bytes"))
            rows.append([*(x[name] for name in names), f"{x['calls']:.0f}", r.number(1e3 * x["seconds"]), f"{x['seconds'] / whole:.0%}",
                         r.number(flops / 1e9), f"{flops / peak[x['precision']]:.0%} of {x['precision']}", r.number(moved / 1e9),
                         f"{moved / peak['read_bytes']:.0%}"])
        return r.table([*names, "calls", "ms", "of all", "GFLOP/s", "of peak", "GB/s", "of a copy"], rows)

    tables = [table(run["ops"], ["stage", "op"]), table(run["kernels"], ["kernel"])]
    return "\n\n".join([f"{head}. Each op by itself, between two events. {r.limits(peak)}", *tables])


def checks(about, results):
    rows = [[x["check"], "passed" if x["passed"] else "FAILED", r.number(x["seconds"])] for x in results]
    return f"{about['machine']}\n\n{r.table(['check', 'result', 'seconds'], rows)}"


def told(about, results=()):
    """What went wrong, so that nobody takes a gap for a result."""
    wrong = about.get("failures", []) + [f"{x['peer']}: {x['part']} {x['shape']}: {x['error']}" for x in results if "error" in x]
    return ["Failed: " + "; ".join(dict.fromkeys(wrong)) + "."] if wrong else []


TABLES = {"gpu-images": images, "gpu-parts": parts, "gpu-kernels": kernels, "gpu-check": checks, "gpu-sanitize": checks}
"""By the kind of a file of results."""
