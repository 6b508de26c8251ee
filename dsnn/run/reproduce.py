"""The check of published claims: ``python -m experiments.reproduce paper=NAME [seeds=3] [fast=true]``.

Reads the claims of ``conf/paper/NAME.yaml``, computes each or runs its experiment, and prints claim, target, ours,
difference, tolerance and verdict; the same goes to ``studies/NAME.md`` of the working folder (``experiments/studies``
in a checkout). ``seeds=3`` runs each experiment with three seeds and judges the mean. ``fast=true`` runs each with the
paper's ``fast`` overrides, to see that all of it works; nothing is judged or written then. Runs that are finished are
not run again. Exits with 1 when a claim falls outside its tolerance, with 2 when the call or the file cannot be meant.
"""

import json
import math
import re
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import yaml
from rich.console import Console
from rich.table import Table

from dsnn.run import usage
from dsnn.run.claims import evaluate_claim
from dsnn.store import config_hash, environment, places, write_text
from dsnn.suggest import did_you_mean

RUN = "dsnn.run.cli"
STUDIES = "experiments/studies"
"""Where studies go in a checkout; elsewhere into a folder ``studies``, both in the working folder."""

OPTIONS = {"paper": "", "root": "outputs/paper", "seeds": "1", "fast": "false", "studies": ""}


@dataclass
class Claim:
    """One published number and how to get it again.

    Args:
        claim: What is claimed, with its unit.
        target: The published value.
        tolerance: How far ours may lie from it: a number in the claim's unit, or a percentage such as "1%".
        source: Where it stands in the paper.
        compute: A function of `dsnn.run.claims.FUNCTIONS` and its arguments; or
        run: Overrides of ``python -m experiments.run``, and
        metric: the name in the run's metrics.json.
        press: What the press got wrong about this claim.
    """

    claim: str
    target: float | int
    tolerance: float | int | str
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
        differs: Where our set-up is not the paper's.
        fast: Overrides that make a run a matter of seconds.
    """

    title: str
    source: str
    claims: list[Claim]
    press: list[str] = field(default_factory=list)
    unresolved: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    fast: list[str] = field(default_factory=list)


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


class Ours(NamedTuple):
    """Our values of a claim, one by seed; a computed claim has one."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Their mean, which is what is judged."""
        return statistics.fmean(self.values)

    def __str__(self) -> str:
        spread = f" ± {_shown(statistics.stdev(self.values))}" if len(self.values) > 1 else ""
        return _shown(self.mean) + spread


def reproduce(paper: Paper, root: Path, seeds: int = 1, fast: bool = False) -> list[Ours]:
    """Our values of each claim, in order; claims with the same overrides share their runs.

    Args:
        paper: Its claims.
        root: Folder for the run directories.
        seeds: How many seeds, from the run's own or 0, a run is repeated with.
        fast: Whether runs take the paper's quick overrides.

    Raises:
        ValueError: A claim cannot be computed, or its run failed or did not write the metric.
    """
    runs: dict[tuple[str, ...], dict[str, Any]] = {}
    ours = []
    for claim in paper.claims:
        if claim.compute is not None:
            ours.append(Ours((evaluate_claim(claim.compute),)))
            continue
        values = []
        for overrides in _repeated(claim.run or [], seeds):
            overrides = (*overrides, *(paper.fast if fast else ()))
            if overrides not in runs:
                runs[overrides] = run(overrides, root)
            value = runs[overrides].get(claim.metric)
            if not _is_number(value):
                hint = did_you_mean(claim.metric, runs[overrides], "see its metrics.json.")
                raise ValueError(f"The run of {claim.claim!r} must write {claim.metric}, got {value!r}; {hint}")
            values.append(float(value))
        ours.append(Ours(tuple(values)))
    return ours


def _repeated(overrides: Sequence[str], seeds: int) -> list[tuple[str, ...]]:
    """Returns the overrides as they are for one seed, else once for each seed that follows the given one or 0."""
    if seeds == 1:
        return [tuple(overrides)]
    first = next((int(o.removeprefix("seed=")) for o in overrides if o.startswith("seed=")), 0)
    rest = [o for o in overrides if not o.startswith("seed=")]
    return [(*rest, f"seed={first + k}") for k in range(seeds)]


def run(overrides: Sequence[str], root: Path) -> dict[str, Any]:
    """Runs an experiment in its own process, or goes on with it, and returns its metrics.

    Args:
        overrides: Of ``python -m experiments.run``.
        root: Folder for the run directory, which is named by the overrides.

    Raises:
        ValueError: The run failed.
    """
    directory = root / config_hash({"overrides": list(overrides)})
    command = [sys.executable, "-m", RUN, *overrides, f"run.dir={directory}"]
    done = subprocess.run(command, check=False)
    metrics = directory / "metrics.json"
    if done.returncode or not metrics.is_file():
        raise ValueError(f"`{' '.join(command[1:])}` must end well, got exit status {done.returncode}; see its output.")
    return json.loads(metrics.read_text(encoding="utf-8"))


def verdicts(paper: Paper, ours: Sequence[Ours]) -> list[str]:
    """Whether our mean of each claim lies within its tolerance: "within" or "OUTSIDE"."""
    return ["within" if claim.holds(own.mean) else "OUTSIDE" for claim, own in zip(paper.claims, ours, strict=True)]


def _rows(paper: Paper, ours: Sequence[Ours]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for claim, own, verdict in zip(paper.claims, ours, verdicts(paper, ours), strict=True):
        target, difference = f"{claim.target:,.10g}", f"{own.mean - claim.target:+.3g}"
        rows.append((claim.claim, target, str(own), difference, str(claim.tolerance), verdict, claim.source))
    return rows


COLUMNS = ("claim", "target", "ours", "difference", "tolerance", "verdict", "source")


def table(paper: Paper, ours: Sequence[Ours]) -> Table:
    """Claim, target, ours, difference, tolerance, verdict and source, a row each."""
    rows = Table(title=f"{paper.title}\n{paper.source}", title_justify="left", title_style="bold")
    for name in COLUMNS:
        number = name in COLUMNS[1:5]
        rows.add_column(name, justify="right" if number else "left", no_wrap=number or name == "verdict")
    for row in _rows(paper, ours):
        style = "[green]within[/]" if row[5] == "within" else "[bold red]OUTSIDE[/]"
        rows.add_row(*row[:5], style, row[6])
    return rows


def study(name: str, paper: Paper, ours: Sequence[Ours], command: str) -> str:
    """The study of a paper in Markdown: claims, command, machine, results, verdict."""
    here = environment(0)
    held = verdicts(paper, ours).count("within")
    seeds = max(len(own.values) for own in ours)
    revision = str(here.get("git_revision", "unknown"))[:12]
    lines = [
        f"# {paper.title}: {held} of {len(ours)} claims within tolerance",
        "",
        f"**Source.** {paper.source}. Claims in `conf/paper/{name}.yaml`.",
        "",
        f"**Command.** `{command}`",
        "",
        f"**Set-up.** {here['cores']} cores, {here['device']}; jax {here['jax']}, numpyro {here['numpyro']}, Python "
        f"{here['python']}; revision {revision}; {seeds} seed{'s' if seeds > 1 else ''} (mean ± sd).",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(str(cell).replace("|", "/") for cell in row) + " |" for row in _rows(paper, ours)),
    ]
    for heading, notes in _notes(paper):
        lines += ["", f"## {heading}", "", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def _notes(paper: Paper) -> list[tuple[str, list[str]]]:
    press = [*paper.press, *(f"{claim.claim}: {claim.press}" for claim in paper.claims if claim.press)]
    every = (("What differs from the paper", paper.differs), ("What the press got wrong", press))
    return [(heading, notes) for heading, notes in (*every, ("Not reproduced", paper.unresolved)) if notes]


def _shown(value: float) -> str:
    digits = 3 if abs(value) < 1e4 else 1
    return f"{value:,.{digits}f}" if abs(value) >= 0.1 else f"{value:.4g}"


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def papers() -> list[str]:
    """The names of the papers that have claims."""
    return sorted(places.files("paper"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks one paper; returns the exit status."""
    console = Console(width=None if sys.stdout.isatty() else 160, soft_wrap=False)
    arguments = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(arguments):
        console.print(
            f"{__doc__}\nPapers: {', '.join(papers())}.\nOptions: root=DIR, where runs are kept; studies=DIR.",
            markup=False,
        )
        return 0
    try:
        options = _options(arguments)
        paper = read_paper(places.file("paper", options["paper"]))
        fast = options["fast"] == "true"
        if fast and any(claim.run for claim in paper.claims) and not paper.fast:
            raise ValueError(f"fast=true needs quick overrides, {options['paper']}.yaml has none; add them under fast.")
        ours = reproduce(paper, Path(options["root"]), int(options["seeds"]), fast)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    console.print(table(paper, ours))
    for heading, notes in _notes(paper):
        console.print(f"\n[bold]{heading}[/]")
        for note in notes:
            console.print(f"- {note}", markup=False, highlight=False)
    outside = verdicts(paper, ours).count("OUTSIDE")
    if fast:
        console.print("\nEverything ran; fast=true judges nothing, and no study was written.")
        return 0
    console.print(f"\n{len(ours) - outside} of {len(ours)} claims within tolerance.")
    told = [f"{name}={value}" for name, value in options.items() if name in ("paper", "seeds") and value != "1"]
    folder = options["studies"] or (STUDIES if Path(STUDIES).is_dir() else "studies")
    written = Path(folder) / f"{options['paper']}.md"
    text = study(options["paper"], paper, ours, f"python -m experiments.reproduce {' '.join(told)}")
    write_text(written.parent, written.name, text)
    console.print(f"study: {written}", markup=False)
    return int(bool(outside))


def _options(arguments: Sequence[str]) -> dict[str, str]:
    given = dict(OPTIONS)
    words = usage.read(arguments)
    places.add(words.folders)
    for argument in (*words.flags, *words.overrides):
        name, equals, value = argument.partition("=")
        if not equals or name not in OPTIONS:
            raise ValueError(
                f"An option must be one of {', '.join(OPTIONS)} (name=value), got {argument!r}; see --help."
            )
        given[name] = value
    if not given["seeds"].isdigit() or given["seeds"] == "0" or given["fast"] not in ("true", "false"):
        raise ValueError(
            f"seeds must be a number from 1 and fast true or false, got {given['seeds']} and {given['fast']}."
        )
    if given["paper"] not in papers():
        hint = did_you_mean(given["paper"], papers(), "see --help.", most=1)
        raise ValueError(f"paper must be one of {', '.join(papers())}, got {given['paper']!r}; {hint}")
    return given


if __name__ == "__main__":
    sys.exit(main())
