"""The command as a user calls it, in a process of its own."""
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent.parent


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "discon_eval", *arguments], cwd=HERE, capture_output=True, text=True)


def test_it_tells_what_it_does():
    done = run("--help")
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("judge", "tune", "systems", "settings", "budgets", "report"))


def test_a_run_without_pictures_is_named(tmp_path):
    for command in (["judge"], ["settings", "--work", str(tmp_path)], ["systems", "--continuous", "gone", "--work", str(tmp_path)],
                    ["tune", "--system", "DisCon", "--work", str(tmp_path)]):
        done = run(*command, "--run", str(tmp_path))
        assert done.returncode == 2 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr, done.stderr
        assert str(tmp_path) in done.stderr or "judge.safetensors" in done.stderr, done.stderr
