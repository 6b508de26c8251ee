"""The door to reports: python -m experiments.report run=DIR | runs=DIR | ledger=DIR.

run=DIR     draws the page of one run anew, DIR/report.html
runs=DIR    makes one page over all runs below DIR, DIR/report.html
ledger=DIR  prints the energy and carbon that the runs below DIR used
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from dsnn import energy, store
from dsnn.report import files, write_report, write_runs_report
from dsnn.run.console import console
from dsnn.suggest import did_you_mean


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status: 0, 1 for a failure, 2 for a command that cannot be meant."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or {"-h", "--help"} & set(arguments):
        console.print(__doc__.strip(), markup=False)
        return 0 if arguments else 2
    try:
        for command, folder in [_parsed(argument) for argument in arguments]:
            command(folder)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except (store.RunDirError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


class UsageError(ValueError):
    """A command line that cannot be meant; the message is one sentence."""


def _page_of_run(folder: Path) -> None:
    if not (folder / "config.yaml").exists():
        raise UsageError(f"{folder} is not a run directory (it has no config.yaml); for many runs use runs={folder}.")
    console.print(str(write_report(folder)), markup=False)


def _page_of_runs(folder: Path) -> None:
    console.print(str(write_runs_report(folder)), markup=False)


def _print_ledger(folder: Path) -> None:
    """Prints what each run below the folder used, their sum, and what it compares to."""
    entries, missing, damaged = [], [], []
    # a finished run whose metrics are gone is damaged, and not absent
    found = {path.parent for name in ("metrics.json", store.DONE) for path in folder.rglob(name)}
    for directory in sorted(found):
        name = os.fsencode(directory.relative_to(folder).as_posix()).decode("utf-8", "replace")
        try:
            if (directory / store.DONE).exists():
                store.whole(directory)
            metrics = files.metrics(directory)
            if "carbon/kwh" in metrics:
                entries.append(energy.entry(name, metrics, tuning=_is_tuning(directory)))
            else:
                missing.append(name)
        except (store.RunDirError, ValueError) as error:
            damaged.append(f"{name}: {error}")
    for said in damaged:
        console.print(said, markup=False)
    total = energy.ledger(entries)
    table = Table(title=f"What {total.runs} runs used", title_justify="left", show_footer=True)
    table.add_column("run", "together", overflow="fold")
    for heading, value in (
        ("kWh", f"{total.kwh:.4g}"),
        ("g CO2e", f"{total.co2e_g:.4g}"),
        ("device hours", f"{total.device_hours:.4g}"),
        ("PF-days", f"{total.petaflops_days:.3g}"),
    ):
        table.add_column(heading, value, justify="right")
    table.add_column("source", f"tuning: {100 * total.tuning_share:.0f} % of the energy", overflow="fold")
    for run in entries:
        numbers = (run.kwh, run.co2e_g, run.device_hours, run.petaflops_days)
        table.add_row(escape(run.name), *(f"{value:.4g}" for value in numbers), escape(run.source))
    console.print(table)
    console.print(total.source, markup=False)
    for name, share in energy.as_references(total.co2e_g).items():
        console.print(f"  {share:.2g} of {name}", markup=False)
    if missing:
        console.print(f"{len(missing)} runs have not recorded what they used: {', '.join(missing[:5])}", markup=False)


def _is_tuning(directory: Path) -> bool:
    """Whether the run says that it searched for settings, by the tag `tuning` or `search`."""
    track = files.config(directory).get("track")
    tags = track.get("tags") if isinstance(track, dict) else None
    return any(tag in ("tuning", "search") for tag in tags) if isinstance(tags, list) else False


_COMMANDS: dict[str, Callable[[Path], None]] = {
    "run": _page_of_run,
    "runs": _page_of_runs,
    "ledger": _print_ledger,
}


def _parsed(argument: str) -> tuple[Callable[[Path], None], Path]:
    name, found, value = argument.partition("=")
    if not found or not value:
        raise UsageError(f"an option is given as name=DIR, got {argument!r}; see --help.")
    if name not in _COMMANDS:
        hint = did_you_mean(name, _COMMANDS, "see --help.", most=1)
        raise UsageError(f"the options are {', '.join(_COMMANDS)}, got {name!r}; {hint}")
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise UsageError(f"{name} must name a folder that exists, got {value!r}; check the path.")
    return _COMMANDS[name], folder


if __name__ == "__main__":
    sys.exit(main())
