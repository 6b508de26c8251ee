"""The check of published claims: ``python -m experiments.reproduce paper=NAME``.

Reads the claims of ``conf/paper/NAME.yaml``, computes each or runs its experiment, and prints claim, target, ours,
difference, tolerance and verdict. Exits with 1 when one falls outside its tolerance, with 2 when the call or the file
cannot be meant.
"""

import difflib
import json
import math
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeGuard

import yaml
from rich.console import Console
from rich.table import Table

from dsnn.energy import evaluate_claim
from dsnn.rundir import config_hash

PAPERS = Path(__file__).resolve().parent.parent / "conf" / "paper"
OPTIONS = {"paper": "", "root": "outputs/paper"}


@dataclass
class Claim:
    """One published number and how to get it again.

    Args:
        claim: What is claimed, with its unit.
        target: The published value.
        tolerance: How far ours may lie from it: a number in the claim's unit, or a percentage such as "1%".
        source: Where it stands in the paper.
        compute: A function of `dsnn.energy.FUNCTIONS` and its arguments; or
        run: Overrides of ``python -m experiments.run``, and
        metric: the name in the run's metrics.json.
        press: What the press got wrong about this claim.
    """

    claim: str
    target: float
    tolerance: float | str
    source: str
    compute: dict[str, Any] | None = None
    run: list[str] | None = None
    metric: str = ""
    press: str = ""

    def __post_init__(self) -> None:
        if (self.compute is None) == (self.run is None):
            raise ValueError(f"Claim {self.claim!r} must have either compute or run, got both or neither; keep one.")
        if (self.run is None) != (not self.metric):
            raise ValueError(f"Claim {self.claim!r} must name the metric of its run, got metric {self.metric!r}.")
        if not _is_number(self.target):
            raise ValueError(f"Claim {self.claim!r}: target must be a finite number, got {self.target!r}.")
        if not (_is_number(self.tolerance) and float(self.tolerance) >= 0) and not re.fullmatch(
            r"\d+(\.\d+)?%", str(self.tolerance)
        ):
            raise ValueError(
                f'Claim {self.claim!r}: tolerance must be a number in the claim\'s unit or a percentage such as "1%", '
                f"got {self.tolerance!r}."
            )

    @property
    def allowed(self) -> float:
        """The largest difference, in the claim's unit."""
        if isinstance(self.tolerance, str):
            return float(self.tolerance.removesuffix("%")) / 100 * abs(self.target)
        return float(self.tolerance)

    def holds(self, ours: float) -> bool:
        """Whether our value lies within the tolerance (a value that is not finite never does)."""
        return abs(ours - self.target) <= self.allowed * (1 + 1e-9)


@dataclass
class Paper:
    """The claims of a paper.

    Args:
        title: Of the paper.
        source: Authors, year and address.
        claims: What is checked.
        press: What the press got wrong.
        unresolved: What could not be checked, or does not follow from the paper's own numbers.
    """

    title: str
    source: str
    claims: list[Claim]
    press: list[str] = field(default_factory=list)
    unresolved: list[str] = field(default_factory=list)


def read_paper(path: Path) -> Paper:
    """Reads and checks a file of claims.

    Raises:
        ValueError: The file is no table of claims.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is no valid YAML ({' '.join(str(error).split())}); correct it.") from None
    top = _checked(path.name, content, Paper)
    if not top["claims"]:
        raise ValueError(f"{path.name} must hold at least one claim, got none; add one under claims.")
    return Paper(**top | {"claims": [Claim(**_checked(path.name, entry, Claim)) for entry in top["claims"]]})


def _checked(name: str, content: object, kind: type) -> dict[str, Any]:
    known = [f.name for f in fields(kind)]
    needed = {"claim", "target", "tolerance", "source", "title", "claims"} & set(known)
    if not isinstance(content, Mapping):
        raise ValueError(f"{name}: a {kind.__name__.lower()} must be a table of {', '.join(known)}, got {content!r}.")
    if unknown := set(content) - set(known):
        raise ValueError(f"{name}: unknown entry {sorted(unknown)[0]!r}; a {kind.__name__.lower()} has {known}.")
    if missing := needed - set(content):
        raise ValueError(f"{name}: the entry {sorted(missing)[0]} is missing in {str(dict(content))[:80]}; add it.")
    return dict(content)


def reproduce(paper: Paper, root: Path) -> list[float]:
    """Our value of each claim, in order; claims with the same overrides share one run.

    Args:
        paper: Its claims.
        root: Folder for the run directories.

    Raises:
        ValueError: A claim cannot be computed, or its run failed or did not write the metric.
    """
    runs: dict[tuple[str, ...], dict[str, Any]] = {}
    values = []
    for claim in paper.claims:
        if claim.compute is not None:
            values.append(evaluate_claim(claim.compute))
            continue
        overrides = tuple(claim.run or ())
        if overrides not in runs:
            runs[overrides] = run(overrides, root)
        value = runs[overrides].get(claim.metric)
        if not _is_number(value):
            near = difflib.get_close_matches(claim.metric, runs[overrides], n=3)
            raise ValueError(f"The run of {claim.claim!r} must write {claim.metric}, got {value!r}; it wrote {near}.")
        values.append(float(value))
    return values


def run(overrides: Sequence[str], root: Path) -> dict[str, Any]:
    """Runs an experiment in its own process, or goes on with it, and returns its metrics.

    Args:
        overrides: Of ``python -m experiments.run``.
        root: Folder for the run directory, which is named by the overrides.

    Raises:
        ValueError: The run failed.
    """
    directory = root / config_hash({"overrides": list(overrides)})
    command = [sys.executable, "-m", "experiments.run", *overrides, f"run.dir={directory}"]
    done = subprocess.run(command, cwd=PAPERS.parent.parent, check=False)
    metrics = PAPERS.parent.parent / directory / "metrics.json"
    if done.returncode or not metrics.is_file():
        raise ValueError(f"`{' '.join(command[1:])}` must end well, got exit status {done.returncode}; see its output.")
    return json.loads(metrics.read_text(encoding="utf-8"))


def table(paper: Paper, values: Sequence[float]) -> Table:
    """Claim, target, ours, difference, tolerance, verdict and source, a row each."""
    rows = Table(title=f"{paper.title}\n{paper.source}", title_justify="left", title_style="bold")
    rows.add_column("claim")
    for name in ("target", "ours", "difference", "tolerance"):
        rows.add_column(name, justify="right", no_wrap=True)
    rows.add_column("verdict", no_wrap=True)
    rows.add_column("source")
    for claim, ours in zip(paper.claims, values, strict=True):
        verdict = "[green]within[/]" if claim.holds(ours) else "[bold red]OUTSIDE[/]"
        difference = f"{ours - claim.target:+.3g}"
        rows.add_row(
            claim.claim, f"{claim.target:,.10g}", _shown(ours), difference, str(claim.tolerance), verdict, claim.source
        )
    return rows


def _shown(value: float) -> str:
    digits = 3 if abs(value) < 1e4 else 1
    return f"{value:,.{digits}f}" if abs(value) >= 0.1 else f"{value:.4g}"


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def papers() -> list[str]:
    """The names of the papers that have claims."""
    return sorted(path.stem for path in PAPERS.glob("*.yaml"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks one paper; returns the exit status."""
    console = Console(width=None if sys.stdout.isatty() else 160, soft_wrap=False)
    arguments = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(arguments):
        console.print(
            f"{__doc__}\nPapers: {', '.join(papers())}.\nOptions: root=DIR, where runs are kept.", markup=False
        )
        return 0
    try:
        options = _options(arguments)
        paper = read_paper(PAPERS / f"{options['paper']}.yaml")
        values = reproduce(paper, Path(options["root"]))
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    console.print(table(paper, values))
    press = [*paper.press, *(f"{claim.claim}: {claim.press}" for claim in paper.claims if claim.press)]
    for heading, notes in (("What the press got wrong", press), ("Not reproduced", paper.unresolved)):
        if notes:
            console.print(f"\n[bold]{heading}[/]")
        for note in notes:
            console.print(f"- {note}", markup=False, highlight=False)
    outside = [c.claim for c, ours in zip(paper.claims, values, strict=True) if not c.holds(ours)]
    console.print(f"\n{len(values) - len(outside)} of {len(values)} claims within tolerance.")
    return int(bool(outside))


def _options(arguments: Sequence[str]) -> dict[str, str]:
    given = dict(OPTIONS)
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or name not in OPTIONS:
            raise ValueError(f"An option must be paper=NAME or root=DIR, got {argument!r}; see --help.")
        given[name] = value
    if given["paper"] not in papers():
        near = difflib.get_close_matches(given["paper"], papers(), n=1)
        hint = f"did you mean {near[0]}?" if near else "see --help."
        raise ValueError(f"paper must be one of {', '.join(papers())}, got {given['paper']!r}; {hint}")
    return given


if __name__ == "__main__":
    sys.exit(main())
