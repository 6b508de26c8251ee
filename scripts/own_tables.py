"""Data of one's own under the defaults, against a linear model and the deterministic twin.

    python scripts/own_tables.py OUT.jsonl [sets=iris,wine] [splits=0,1,2,3,4] [option=value ...]
    python scripts/own_tables.py OUT.jsonl table

The first command runs what OUT.jsonl does not hold yet, one `python -m experiments.run data=npz` a set and split, of
thirteen sets and five splits; the second prints the comparison, paired over splits, with Holm's correction over sets.
Four sets of classes and diabetes come with scikit-learn (a quarter of the examples tests, of diabetes a fifth), the
other eight and their published splits (Hernandez-Lobato and Adams 2015) from the folder uci-regression of DSNN_DATA.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import ttest_rel
from sklearn import datasets
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

ROOT = Path(__file__).resolve().parent.parent
CLASSES = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast-cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
}
UCI = (
    "bostonHousing",
    "concrete",
    "energy",
    "kin8nm",
    "naval-propulsion-plant",
    "power-plant",
    "wine-quality-red",
    "yacht",
)
SETS = (*CLASSES, "diabetes", *UCI)


class Parts(NamedTuple):
    """Inputs and targets of a training and a test part."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def parts(name: str, split: int) -> Parts:
    """Returns one split of a set, in the units that it is published in."""
    if name in UCI:
        folder = Path(os.environ["DSNN_DATA"]) / "uci-regression" / name
        rows = np.loadtxt(folder / "data.txt")
        inputs = np.loadtxt(folder / "index_features.txt").astype(int)
        target = int(np.loadtxt(folder / "index_target.txt"))
        test = np.loadtxt(folder / f"index_test_{split}.txt").astype(int)
        train = np.setdiff1d(np.arange(len(rows)), test)
        return Parts(rows[train][:, inputs], rows[train, target], rows[test][:, inputs], rows[test, target])
    if name == "diabetes":
        x, y = datasets.load_diabetes(return_X_y=True, scaled=False)
        a, b, c, d = train_test_split(x, y, test_size=0.2, random_state=split)
    else:
        x, y = CLASSES[name](return_X_y=True)
        a, b, c, d = train_test_split(x, y, test_size=0.25, random_state=split, stratify=y)
    return Parts(a, c, b, d)


def linear(given: Parts, classes: bool) -> dict[str, float]:
    """Returns a linear model of the whole training part, scikit-learn's defaults on standardised inputs."""
    scale = StandardScaler().fit(given.x_train)
    x, test = scale.transform(given.x_train), scale.transform(given.x_test)
    if classes:
        probs = LogisticRegression(max_iter=5000).fit(x, given.y_train).predict_proba(test)
        own = probs[np.arange(len(test)), given.y_test.astype(int)]
        return {"accuracy": float((probs.argmax(1) == given.y_test).mean()), "nll": -float(np.log(own + 1e-300).mean())}
    model = RidgeCV(alphas=np.logspace(-3, 4, 8)).fit(x, given.y_train)
    spread = np.sqrt(((given.y_train - model.predict(x)) ** 2).sum() / max(len(x) - x.shape[1] - 1, 1))
    error = given.y_test - model.predict(test)
    nll = 0.5 * (error / spread) ** 2 + np.log(spread) + 0.5 * np.log(2 * np.pi)
    return {"rmse": float(np.sqrt((error**2).mean())), "nll": float(nll.mean())}


def run(name: str, split: int, overrides: list[str]) -> dict[str, Any]:
    """Returns what one run and the linear model make of a split."""
    given, classes = parts(name, split), name in CLASSES
    with tempfile.TemporaryDirectory() as folder:
        path, place = Path(folder) / f"{name}.npz", Path(folder) / "run"
        np.savez(path, **given._asdict())
        words = [f"data.path={path}", f"run.dir={place}", f"seed={split}", "track.tool=none", "run.report=false"]
        words += [] if classes else ["data.options.task=regression"]
        command = [sys.executable, "-m", "experiments.run", "data=npz", *words, *overrides]
        began = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{name}, split {split}: {done.stderr[-2000:]}")
        metrics = json.loads((place / "metrics.json").read_text())
    kept = {key: value for key, value in metrics.items() if isinstance(value, int | float)}
    return {"set": name, "split": split, "s": time.monotonic() - began, "m": kept, "linear": linear(given, classes)}


def holm(p: dict[str, float]) -> dict[str, float]:
    """Returns p values corrected for their number (Holm 1979)."""
    corrected, least = {}, 0.0
    for rank, name in enumerate(sorted(p, key=lambda name: p[name])):
        least = max(least, min(1.0, (len(p) - rank) * p[name]))
        corrected[name] = least
    return corrected


def table(results: list[dict[str, Any]]) -> None:
    """Prints a row per set: what each model scores on average, and how surely ours is worse."""
    by_set = defaultdict(list)
    for result in results:
        by_set[result["set"]].append(result)
    worse: dict[str, dict[str, float]] = {"linear": {}, "twin": {}}
    rows = []
    for name in (name for name in SETS if name in by_set):
        runs = sorted(by_set[name], key=lambda result: result["split"])
        metric = "accuracy" if name in CLASSES else "rmse"
        sign = 1 if name in CLASSES else -1

        def column(key: str, runs: list[dict[str, Any]] = runs) -> np.ndarray:
            return np.array([run["m"].get(key, np.nan) for run in runs])

        ours, twin = column(f"test/{metric}"), column(f"twin/test/{metric}")
        line = np.array([run["linear"][metric] for run in runs])
        for rival, theirs in (("linear", line), ("twin", twin)):
            apart = np.ptp(ours - theirs) > 0 if len(runs) > 1 else False
            p = ttest_rel(sign * ours, sign * theirs, alternative="less").pvalue if apart else 1.0
            worse[rival][name] = float(p)
        cells = [f"{len(runs)}", *(f"{one.mean():.4g}" for one in (ours, column(f"deployed/{metric}"), line, twin))]
        nlls = column("test/nll"), np.array([run["linear"]["nll"] for run in runs]), column("twin/test/nll")
        cells += [*(f"{one.mean():.3f}" for one in nlls), f"{column('test/ece').mean():.3f}"]
        cells += [f"{column('conformal/coverage').mean():.2f}", f"{100 * column('gates/kept_fraction').mean():.0f} %"]
        rows.append(f"| {name} | {' | '.join(cells)} | {column('guard/fits').mean():.1f} ")
    corrected = {rival: holm(values) for rival, values in worse.items()}
    heads = ["set", "splits", "ours", "deployed", "linear", "twin", "NLL", "linear", "twin", "ECE", "conformal", "kept"]
    heads += ["fits", "p linear, twin"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, row in zip((name for name in SETS if name in by_set), rows, strict=True):
        print(f"{row}| {corrected['linear'][name]:.2f}, {corrected['twin'][name]:.2f} |")


def main() -> None:
    """Runs what is missing, or prints the table."""
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    out, words = Path(sys.argv[1]), sys.argv[2:]
    results = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    if words == ["table"]:
        table(results)
        return
    given = dict(word.split("=", 1) for word in words if word.startswith(("sets=", "splits=")))
    overrides = [word for word in words if not word.startswith(("sets=", "splits="))]
    sets = given.get("sets", ",".join(SETS)).split(",")
    done = {(result["set"], result["split"]) for result in results}
    for split in map(int, given.get("splits", "0,1,2,3,4").split(",")):
        for name in (name for name in sets if (name, split) not in done):
            result = run(name, split, overrides)
            with out.open("a") as stream:
                stream.write(json.dumps(result) + "\n")
            print(f"{name}, split {split}: {result['s']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
