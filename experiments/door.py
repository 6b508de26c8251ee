"""What stands before Hydra: help that lists the experiments, and one sentence for a mistyped option."""

import re
import sys
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from rich.console import Console
from rich.table import Table

from dsnn import data
from dsnn.nearest import did_you_mean
from experiments import schema

HELP = ("-h", "--help")
HELPED = "see --help for all of them."


class UsageError(ValueError):
    """A command line that cannot be meant; the message is one sentence."""


def experiments() -> dict[str, dict[str, str]]:
    """Returns the headers of the experiment files: title, command, time and expected result by name."""
    found = {}
    for file in sorted((schema.CONF / "experiment").glob("*.yaml")):
        lines = [line[1:].strip() for line in file.read_text().splitlines() if line.startswith("#")]
        header = {"title": next((line for line in lines if line and not line.startswith("@")), "")}
        for line in lines:
            if match := re.match(r"(command|time|expected):\s*(.*)", line):
                header[match[1]] = match[2]
        found[file.stem] = header
    return found


def check(arguments: Sequence[str]) -> None:
    """Checks the overrides on a command line against the options that exist.

    Raises:
        UsageError: an unknown option, experiment or data set, or something that is no override.
    """
    known = schema.options()
    for argument in (a for a in arguments if not a.startswith("-")):
        try:
            override: Override = OverridesParser.create().parse_override(argument)
        except HydraException:
            raise UsageError(_unread(argument)) from None
        name = override.key_or_group
        if name.startswith("hydra") or schema.is_open_ended(name):
            continue
        if name not in known:
            raise UsageError(f"{name!r} is not an option; {did_you_mean(name, known, HELPED)}")
        for group, choices in (("experiment", list(experiments())), ("data", list(data.names()))):
            value = override.value()
            if name == group and isinstance(value, str) and value not in choices:
                hint = did_you_mean(value, choices, HELPED)
                raise UsageError(f"{group} must be one of {', '.join(choices)}, got {value!r}; {hint}")


def _unread(argument: str) -> str:
    """Returns what is wrong with an argument that Hydra cannot read."""
    name, equals, value = argument.partition("=")
    if not equals:
        return f"an option is given as name=value, got {argument!r}; see --help."
    return (
        f"the value of {name} must be in Hydra's grammar, got {value!r}; text with special characters is quoted, "
        f"""'{name}="(text)"', and keys of a dictionary never are, '{name}={{key: 1}}'."""
    )


def show_help() -> None:
    """Prints what can be run and every option with its default."""
    console = Console(width=max(100, Console().width))
    console.print("[bold]python -m experiments.run[/] [-m] [experiment=NAME] [option=value ...]\n")
    table = Table(title="Experiments", title_justify="left", show_lines=False)
    for column in ("experiment", "what", "command", "time", "expected"):
        table.add_column(column, overflow="fold", no_wrap=column == "experiment")
    for name, header in experiments().items():
        table.add_row(name, *(header.get(k, "") for k in ("title", "command", "time", "expected")))
    console.print(table)
    console.print(f"\n[bold]Data[/] (data=NAME): {', '.join(data.names())}")
    settings = Table(title="Options", title_justify="left")
    settings.add_column("option")
    settings.add_column("default")
    for name, default in schema.options().items():
        if not isinstance(default, dict):
            settings.add_row(name, str(default))
    console.print(settings)
    console.print("\n-m sweeps comma-separated values: python -m experiments.run -m seed=0,1,2 train.epochs=2")
    console.print("What each option means: dsnn/config.py. Hydra's own help: --hydra-help.")


def wants_help(arguments: Sequence[str] | None = None) -> bool:
    """Whether the command line asks for help."""
    return any(a in HELP for a in (sys.argv[1:] if arguments is None else arguments))
