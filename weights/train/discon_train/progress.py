"""Progress: a bar on a terminal, a line now and then elsewhere."""
import sys
import time

from tqdm import tqdm


def bar(items, label, every=30.0):
    """`items`, with a bar on a terminal, elsewhere a line after `every` seconds: nothing for what is done sooner."""
    if sys.stderr.isatty():
        yield from tqdm(items, desc=label, leave=False)
        return
    begin = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - last > every:
            last = now
            print(f"{label} {done}/{len(items)} left {clock((now - begin) / done * (len(items) - done))}", flush=True)
        yield item


def clock(seconds):
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"


class Progress:
    """Shows steps, loss and time left of a training run; `every` seconds between lines where there is no terminal."""

    def __init__(self, label, total, start, every=30.0, quiet=False):
        self.label, self.total, self.every, self.first = label, total, every, start
        self.begin = self.last = time.monotonic()
        self.tqdm = tqdm(total=total, initial=start, desc=label) if sys.stderr.isatty() and not quiet else None
        self.quiet, self.mean = quiet, {}

    def step(self, done, total, values):
        for k, v in values.items():
            self.mean[k] = v if k not in self.mean else 0.98 * self.mean[k] + 0.02 * v
        text = " ".join(f"{k} {v:.4g}" for k, v in self.mean.items())
        if self.tqdm:
            self.tqdm.total = total
            self.tqdm.set_postfix_str(text, refresh=False)
            self.tqdm.update(1)
        elif not self.quiet and time.monotonic() - self.last > self.every:
            self.last = time.monotonic()
            rate = (self.last - self.begin) / (done - self.first)
            print(f"{self.label} {done}/{total} {text} {rate:.3f} s/step left {clock(rate * (total - done))}", flush=True)

    def note(self, text):
        if self.quiet:
            return
        (self.tqdm.write if self.tqdm else lambda t: print(t, flush=True))(f"{self.label} {text}")

    def close(self):
        if self.tqdm:
            self.tqdm.close()
