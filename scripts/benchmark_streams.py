"""Learns from a large mapped file: ``python scripts/benchmark_streams.py FOLDER [--gigabytes 20] [--workers 0]``.

Writes a sparse file of zeros into the folder, learns from it as it is read, and from its first examples in memory, in
turn and in processes of their own. Prints the largest resident memory beyond mapped pages, and how long an update took.
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, CLASSES, BATCH, IN_MEMORY = 784, 10, 128, 50_000
EPOCHS = 5  # of which the first compiles


def resident_mb() -> float:
    """Returns the resident memory of this process beyond mapped files, in MB."""
    status = Path("/proc/self/status").read_text()
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith(("RssAnon", "RssShmem"))) / 1e3


def write(folder: Path, gigabytes: float) -> int:
    """Writes a training part of so many gigabytes, and a small test part; returns the number of training examples."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    count = int(gigabytes * 1e9 / 4 / WIDTH)
    for part, rows in (("train", count), ("test", 1000)):
        np.lib.format.open_memmap(folder / f"x_{part}.npy", mode="w+", dtype=np.float32, shape=(rows, WIDTH)).flush()
        np.save(folder / f"y_{part}.npy", rng.integers(0, CLASSES, rows).astype(np.int32))
    return count


def learn(folder: Path, stream: str, updates: int, workers: int) -> dict[str, Any]:
    """Returns what one run took: seconds of each update, by the epoch, and its largest memory."""
    from dsnn.run import job, loop, schema

    most, going = [resident_mb()], [True]

    def watch() -> None:
        while going[0]:
            most[0] = max(most[0], resident_mb())
            time.sleep(0.02)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    ends: list[float] = []
    recorded = loop.Member.record

    def record(self: Any, state: Any, info: Any, epoch: int) -> dict[str, float]:
        ends.append(time.perf_counter())
        found = recorded(self, state, info, epoch)
        ends.append(time.perf_counter())
        return found

    loop.Member.record = record  # type: ignore[method-assign]
    limit = [] if stream == "always" else [f"data.limit={IN_MEMORY}"]
    job.run(
        schema.compose(
            [
                "data=npy",
                f"data.path={folder}",
                f"data.stream={stream}",
                f"compute.workers={workers}",
                f"train.epochs={EPOCHS}",
                f"train.updates_per_epoch={updates // (EPOCHS - 1)}",
                f"train.batch_size={BATCH}",
                "train.eval_every=1",
                "train.steps=4",
                "model.architecture=mlp",
                "model.hidden=[512,512]",
                "bayes.samples=2",
                "baseline=none",
                "track.tool=none",
                "run.report=false",
                "resume=false",
                f"run.dir={folder.parent / f'{folder.name}-{stream}'}",
                *limit,
            ]
        )
    )
    going[0] = False
    watching.join()
    seconds = [end - begun for begun, end in zip(ends[1::2], ends[2::2], strict=False)]
    each = updates // (EPOCHS - 1)
    return {"stream": stream, "ms_an_update": [1e3 * s / each for s in seconds], "peak_mb": most[0]}


def main() -> int:
    """Writes the file, and learns from it and from memory in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=0, help="processes that read; 0 reads in threads")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=("always", "auto"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(learn(given.folder, given.only, given.updates, given.workers)))
        return 0
    count = write(given.folder, given.gigabytes)
    how = ["--updates", str(given.updates), "--workers", str(given.workers), "--only"]
    command = [sys.executable, __file__, str(given.folder), *how]
    found = []
    for _ in range(given.turns):
        for stream in ("always", "auto"):
            done = subprocess.run([*command, stream], capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr or done.stdout)
            found.append(json.loads(done.stdout.strip().splitlines()[-1]))
    medians = {
        stream: statistics.median(ms for one in found if one["stream"] == stream for ms in one["ms_an_update"])
        for stream in ("always", "auto")
    }
    peak = max(one["peak_mb"] for one in found if one["stream"] == "always")
    result = {
        "examples": count,
        "gigabytes": given.gigabytes,
        "updates": given.updates,
        "workers": given.workers,
        "peak_mb": peak,
        "streamed_ms": medians["always"],
        "in_memory_ms": medians["auto"],
        "ratio": medians["always"] / medians["auto"],
        "runs": found,
    }
    print(f"{count} examples, {given.gigabytes:g} GB: at most {peak:.0f} MB resident beyond mapped pages")
    print(
        f"an update of {BATCH}: {medians['always']:.2f} ms streamed, {medians['auto']:.2f} ms in memory, ratio "
        f"{result['ratio']:.2f}"
    )
    if given.json:
        given.json.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
