"""The example on two Ray nodes of this machine."""

import dataclasses
import os
import pathlib
import subprocess
import threading
import time
import zipfile

import numpy as np
import pytest
import ray
import sample as example
from ray.cluster_utils import Cluster

ROOT = pathlib.Path(__file__).parents[2]
DISCON = os.environ.get("DISCON", str(ROOT / "target/release/discon"))
MODEL = str(ROOT / "tests/fixtures/tiny")
COUNT, SHARDS = 40, 6
OPTIONS = ["--seed", "5", "--classes", "1,3,4"]


@pytest.fixture
def cluster():
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, logging_level="warning")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def whole(tmp_path):
    """What one run without shards makes."""
    npz = tmp_path / "whole.npz"
    command = [DISCON, "sample", "--quiet", "--model", MODEL, "--count", str(COUNT), "--npz", str(npz), *OPTIONS]
    subprocess.run(command, check=True)
    return npz.read_bytes()


@pytest.fixture
def scripted(tmp_path):
    """A `discon` that notes its shard before it works, and first runs lines of the test's own."""

    def script(lines):
        program = tmp_path / "discon-of-the-test"
        log = f'case "$*" in *--join*) ;; *) echo "$*" >> {tmp_path}/log ;; esac'
        program.write_text(f'#!/bin/sh\n{log}\n{lines}\nexec {DISCON} "$@"\n')
        program.chmod(0o755)
        return str(program)

    return script


def runs(tmp_path):
    """The shard of each run of the scripted program."""
    return sorted(int(line.split("--shard ")[1].split("/")[0]) for line in (tmp_path / "log").read_text().splitlines())


def nodes(told):
    """The nodes that shards came from."""
    return {line.split("from node ")[1].split(",")[0] for line in told if "from node" in line}


def job(tmp_path, program, **more):
    return example.Job(MODEL, COUNT, SHARDS, OPTIONS, program, name=str(tmp_path), **more)


def test_the_file_of_many_nodes_is_that_of_one_run(cluster, whole, scripted, tmp_path):
    # Long enough that one node does not take all.
    work = job(tmp_path, scripted("sleep 1"))
    told = []
    example.sample(work, tmp_path / "made.npz", told=told.append)
    assert (tmp_path / "made.npz").read_bytes() == whole
    assert runs(tmp_path) == list(range(1, SHARDS + 1))
    assert nodes(told) == {node["NodeID"] for node in ray.nodes()}
    assert told[-1].startswith(f"{COUNT} images of {SHARDS} shards")
    # Nothing is left, here or on a node.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["discon-of-the-test", "log", "made.npz", "whole.npz"]
    assert not any(work.scratch(shard).exists() for shard in range(1, SHARDS + 1))
    with pytest.raises(FileExistsError):
        example.sample(work, tmp_path / "made.npz")


def test_the_file_is_what_evaluations_read(whole, tmp_path):
    loaded = np.load(tmp_path / "whole.npz")
    assert loaded.files == ["arr_0", "arr_1"]
    assert loaded["arr_0"].shape == (COUNT, 8, 8, 3) and loaded["arr_0"].dtype == np.uint8
    assert loaded["arr_1"].dtype == np.int64 and list(loaded["arr_1"]) == [[1, 3, 4][i % 3] for i in range(COUNT)]
    # As a stream, the way that the evaluation suite of ADM reads images.
    with zipfile.ZipFile(tmp_path / "whole.npz") as archive, archive.open("arr_0.npy") as stream:
        assert np.lib.format.read_magic(stream) == (1, 0)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        data = np.frombuffer(stream.read(), dtype=dtype).reshape(shape)
    assert not fortran and np.array_equal(data, loaded["arr_0"])


def test_a_killed_workers_shard_is_done_again(cluster, whole, scripted, tmp_path):
    # Of shard 3 the first run kills the worker that it is of, of shard 5 the command itself.
    once = f"mkdir {tmp_path}/once-$SHARD 2>/dev/null"
    killed = scripted(f"""
case "$*" in
  *"--shard 3/"*) SHARD=3; if {once}; then kill -9 $PPID; sleep 30; fi ;;
  *"--shard 5/"*) SHARD=5; if {once}; then kill -9 $$; fi ;;
esac""")
    example.sample(job(tmp_path, killed), tmp_path / "made.npz")
    assert (tmp_path / "made.npz").read_bytes() == whole
    assert runs(tmp_path) == [1, 2, 3, 3, 4, 5, 5, 6]


def test_a_lost_nodes_shard_is_done_on_another(cluster, whole, scripted, tmp_path):
    # The first two runs, one a node, wait until one of them has ended with its node.
    waiting = scripted(f"""
for i in 1 2; do
  if mkdir {tmp_path}/$i 2>/dev/null; then
    echo $$ > {tmp_path}/$i/pid
    while [ ! -e {tmp_path}/go ]; do sleep 0.1; done
    break
  fi
done""")
    failed, told = [], []

    def run():
        try:
            example.sample(job(tmp_path, waiting), tmp_path / "made.npz", told=told.append)
        except Exception as e:
            failed.append(e)

    thread = threading.Thread(target=run)
    thread.start()

    def wait_until(true):
        deadline = time.monotonic() + 60
        while not true():
            assert time.monotonic() < deadline and thread.is_alive()
            time.sleep(0.1)

    pids = [tmp_path / "1/pid", tmp_path / "2/pid"]
    wait_until(lambda: all(path.exists() and path.read_text() for path in pids))
    [lost] = cluster.worker_nodes
    cluster.remove_node(lost, allow_graceful=False)
    wait_until(lambda: not all(pathlib.Path("/proc", path.read_text().strip()).exists() for path in pids))
    (tmp_path / "go").touch()
    thread.join(120)
    assert not thread.is_alive() and not failed
    assert (tmp_path / "made.npz").read_bytes() == whole
    again = [shard for shard in range(1, SHARDS + 1) if runs(tmp_path).count(shard) == 2]
    assert len(again) == 1 and len(runs(tmp_path)) == SHARDS + 1
    assert nodes(told) == {cluster.head_node.node_id}


def test_nodes_without_program_or_model_are_left_out(cluster, whole, scripted, tmp_path):
    program = pathlib.Path(scripted("sleep 1")).name
    here, told = os.environ["PATH"], []
    fit = cluster.add_node(num_cpus=1, env_vars={"PATH": f"{tmp_path}:{here}"})
    os.environ["PATH"] = f"{tmp_path}:{here}"
    try:
        example.sample(job(tmp_path, program), tmp_path / "made.npz", told=told.append)
    finally:
        os.environ["PATH"] = here
    assert (tmp_path / "made.npz").read_bytes() == whole
    assert nodes(told) == {fit.node_id}
    nowhere = example.Job(str(tmp_path / "nowhere"), COUNT, SHARDS, OPTIONS, DISCON)
    with pytest.raises(RuntimeError, match="no node of this cluster can make images: no model at .*nowhere"):
        example.sample(nowhere, tmp_path / "none.npz")
    assert not (tmp_path / "none.npz").exists()


def test_shards_of_another_job_are_refused(tmp_path, monkeypatch):
    collected = []

    def interrupted(job, folder, *_):
        collected.append(job)
        (folder / job.file(1)).write_bytes(b"a shard")
        raise KeyboardInterrupt

    monkeypatch.setattr(example, "collect", interrupted)
    first = job(tmp_path, DISCON)
    others = [
        dataclasses.replace(first, options=["--seed", "6", "--classes", "1,3,4"]),
        dataclasses.replace(first, model=MODEL + "/../odd"),
        dataclasses.replace(first, count=COUNT + 1),
        dataclasses.replace(first, shards=SHARDS - 1),
    ]
    for again in (first, dataclasses.replace(first, cpus=2)):
        with pytest.raises(KeyboardInterrupt):
            example.sample(again, tmp_path / "made.npz")
    for other in others:
        with pytest.raises(RuntimeError, match="made.npz.shards: expected shards of .* found "):
            example.sample(other, tmp_path / "made.npz")
    # Of which job they are is not known.
    (tmp_path / "made.npz.shards/job.json").unlink()
    with pytest.raises(RuntimeError, match="shards without a job.json"):
        example.sample(first, tmp_path / "made.npz")
    assert len(collected) == 2


def test_a_program_that_could_not_join_is_told_of_first(tmp_path, monkeypatch):
    monkeypatch.setattr(example, "collect", lambda *_: pytest.fail("it is known before"))
    with pytest.raises(RuntimeError, match="no program `discon-is-not-here` on this machine"):
        example.sample(job(tmp_path, "discon-is-not-here"), tmp_path / "made.npz")
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_is_told(cluster, tmp_path):
    wrong = example.Job(MODEL, COUNT, SHARDS, ["--classes", "cat"], DISCON)
    with pytest.raises(RuntimeError, match="class: expected .* found `cat`"):
        example.sample(wrong, tmp_path / "made.npz")
