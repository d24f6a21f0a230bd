"""Ratios of the engine to PyTorch by stage, from the JSON lines of `benches/peers/run`: medians of each over the runs."""
import json
import platform
import sys
from pathlib import Path
from statistics import median

STAGES = ("discrete", "condition", "head", "decode", "image")


def machine():
    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor()


def main():
    rows = {}
    for line in Path(sys.argv[1]).read_text().splitlines():
        run = json.loads(line)
        name = "discon" if not run.get("engine", "").startswith("torch") else run["engine"] + (", compiled" if run["compile"] else "")
        seconds = dict(run["seconds"], image=run["image_seconds"])
        for stage in STAGES:
            rows.setdefault(name, {}).setdefault(stage, []).append(seconds[stage])
    ours = {s: median(v) for s, v in rows["discon"].items()}
    print(f"\n{machine()}; milliseconds, batch 1, f32\n")
    print("| engine | " + " | ".join(STAGES) + " |")
    print("|---|" + "---|" * len(STAGES))
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(f"{1000 * median(values[s]):.1f}" for s in STAGES) + " |")
    for name, values in rows.items():
        if name != "discon":
            print(f"| {name} / discon | " + " | ".join(f"{median(values[s]) / ours[s]:.2f}" for s in STAGES) + " |")


if __name__ == "__main__":
    main()
