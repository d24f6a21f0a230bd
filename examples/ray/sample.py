"""Many images for an evaluation, over a Ray cluster: `discon sample`, a shard a task.

usage: python sample.py --model DIR --count N --npz FILE [--shards K] [--address HOST:PORT] [-- OPTIONS OF discon sample]
"""

import argparse
import ctypes
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field

import ray

# Images of a task without --shards: seconds to minutes of work, and an answer of some megabytes.
IMAGES_A_TASK = 512


@dataclass(frozen=True)
class Job:
    """The images to make, as every node is told."""

    model: str
    """Model folder, at the same place on each node that is to work; others are left out."""
    count: int
    shards: int
    options: list = field(default_factory=list)
    """Further options of `discon sample`."""
    discon: str = "discon"
    """The program: a path, or a name that is found on a node's PATH."""
    cpus: int = 1
    """Threads of a task."""
    name: str = ""
    """What tells this job's unfinished files on a node from those of others."""

    def file(self, number):
        """What `discon sample` calls shard `number` of samples.npz."""
        return f"samples.{number}-of-{self.shards}.npz"

    def images(self):
        """What decides the bytes of its shards, beside the files of the model."""
        return {"model": self.model, "count": self.count, "shards": self.shards, "options": list(self.options)}

    def scratch(self, number):
        """Where a node keeps what it has begun of a shard: a task that is done again there goes on with it."""
        said = repr((self.name, self.images(), number))
        return pathlib.Path(tempfile.gettempdir(), f"discon-sample-{hashlib.sha256(said.encode()).hexdigest()[:16]}")


def end_with_parent():
    """The command must not outlive a worker that was killed: it holds the shard's files. Only Linux can be asked for that."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def make_shard(job, number):
    """The task. Gives its "node", and "npz" (bytes), "unfit" (why this node cannot make images), or "error" (of the command)."""
    node = ray.get_runtime_context().get_node_id()
    program = shutil.which(job.discon)
    if program is None:
        return {"node": node, "unfit": f"no program `{job.discon}`"}
    if not os.path.isfile(os.path.join(job.model, "discon.json")):
        return {"node": node, "unfit": f"no model at {job.model}"}
    scratch = job.scratch(number)
    scratch.mkdir(exist_ok=True)
    npz = scratch / job.file(number)
    command = [program, "sample", "--quiet", "--model", job.model, "--count", str(job.count), "--threads", str(job.cpus)]
    command += ["--npz", str(scratch / "samples.npz"), "--shard", f"{number}/{job.shards}", *job.options]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=end_with_parent)
    if done.returncode < 0:
        # Not by itself: by an operator, or for want of memory. Ray does the task again.
        raise RuntimeError(f"shard {number}: ended by signal {-done.returncode}")
    if done.returncode != 0:
        if not any(scratch.iterdir()):
            scratch.rmdir()
        return {"node": node, "error": done.stderr.strip()}
    made = npz.read_bytes()
    shutil.rmtree(scratch)
    return {"node": node, "npz": made}


def collect(job, folder, retries=5, told=print):
    """Has the shards made that are not in `folder` yet; each is put there whole."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    # Ray does a task again whose worker or node is lost, or that raised.
    task = ray.remote(num_cpus=job.cpus, max_retries=retries, retry_exceptions=True)(make_shard)
    unfit = {}

    def submit(number):
        avoid = {"label_selector": {"ray.io/node-id": f"!in({','.join(unfit)})"}} if unfit else {}
        return task.options(name=f"shard {number} of {job.shards}", **avoid).remote(job, number)

    missing = [number for number in range(1, job.shards + 1) if not (folder / job.file(number)).exists()]
    running = {submit(number): number for number in missing}
    while running:
        [ready], _ = ray.wait(list(running), num_returns=1)
        number, answer = running.pop(ready), ray.get(ready)
        if "error" in answer:
            for task_left in running:
                ray.cancel(task_left, force=True)
            raise RuntimeError(f"shard {number} of {job.shards}: {answer['error']}")
        if "unfit" in answer:
            unfit[answer["node"]] = answer["unfit"]
            able = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= job.cpus]
            alive = {node["NodeID"] for node in able}
            if alive <= unfit.keys():
                raise RuntimeError(f"no node of this cluster can make images: {'; '.join(sorted(set(unfit.values())))}")
            running[submit(number)] = number
            continue
        partial = folder / f"{job.file(number)}.partial"
        partial.write_bytes(answer["npz"])
        partial.rename(folder / job.file(number))
        told(f"shard {number} of {job.shards} from node {answer['node']}, {len(running)} to come")


def begun(job, folder):
    """The folder of finished shards, which holds those of one job and says of which."""
    folder.mkdir(exist_ok=True)
    page = folder / "job.json"
    if not page.exists() and not any(folder.glob("*.npz")):
        partial = folder / "job.json.partial"
        partial.write_text(json.dumps(job.images(), indent=1))
        partial.rename(page)
    found = json.loads(page.read_text()) if page.exists() else "shards without a job.json"
    if found != job.images():
        raise RuntimeError(f"{folder}: expected shards of {job.images()}, found {found}: remove it, or write another file")


def sample(job, npz, retries=5, told=print):
    """Makes `npz`, of the same bytes as `discon sample` alone does. Started again, it goes on with the shards that are there."""
    if npz.exists():
        raise FileExistsError(f"{npz}: there is a file of that name")
    program = shutil.which(job.discon)
    if program is None:
        raise RuntimeError(f"no program `{job.discon}` on this machine, which is to join the shards")
    folder = npz.with_name(f"{npz.name}.shards")
    begun(job, folder)
    collect(job, folder, retries, told)
    shards = [str(folder / job.file(number)) for number in range(1, job.shards + 1)]
    done = subprocess.run([program, "sample", "--quiet", "--npz", str(npz), "--join", *shards], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    shutil.rmtree(folder)
    told(done.stdout.strip())


def main():
    parser = argparse.ArgumentParser(description="Many images for an evaluation, over a Ray cluster.")
    parser.add_argument("--model", required=True, help="model folder, at this place on every node that is to work")
    parser.add_argument("--count", type=int, required=True, help="images")
    parser.add_argument("--npz", type=pathlib.Path, required=True, help="the file to write, here")
    parser.add_argument("--shards", type=int, help=f"tasks; without it one for {IMAGES_A_TASK} images")
    parser.add_argument("--cpus", type=int, default=1, help="cores of a task (1)")
    parser.add_argument("--discon", default="discon", help="the program, found on each node's PATH (discon)")
    parser.add_argument("--address", help="the cluster; without it the one that RAY_ADDRESS names, else one of this machine alone")
    parser.add_argument("--retries", type=int, default=5, help="how often a shard is done again whose worker or node is lost (5)")
    parser.add_argument("options", nargs="*", metavar="-- OPTIONS", help="further options of `discon sample`")
    args = parser.parse_args()
    shards = args.shards or max(1, -(-args.count // IMAGES_A_TASK))
    job = Job(args.model, args.count, shards, args.options, args.discon, args.cpus, str(args.npz.resolve()))
    ray.init(address=args.address, logging_level="warning")
    try:
        sample(job, args.npz, args.retries)
    except (RuntimeError, OSError, ray.exceptions.RayError) as e:
        sys.exit(f"sample.py: error: {e}")


if __name__ == "__main__":
    main()
