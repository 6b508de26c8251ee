"""What stands before Hydra: a command line read, help that lists the experiments, a sentence for a mistyped option."""

import re
import sys
from collections.abc import Sequence
from typing import NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from rich.console import Console
from rich.table import Table

from dsnn import data
from dsnn.config import NAMED, OF_STACKS, PYTHON
from dsnn.run import schema
from dsnn.store import places
from dsnn.suggest import did_you_mean

HELP = ("-h", "--help")
HELPED = "see --help for all of them."
ELSEWHERE = {
    "experiment": "--config-dir DIR adds experiments of your own.",
    "data": "data of your own are data=python data.source=package.module:function, or data=npz data.path=FILE.",
}
"""What may have been meant by a name that is like none of those there are."""


SWITCHES = ("-m", "--multirun", "-r", "--run", "--resolve", "--hydra-help", "-sc", "--shell-completion")
VALUED = (
    "-c", "--cfg", "-p", "--package", "-cn", "--config-name", "-cp", "--config-path", "--experimental-rerun",
)  # fmt: skip
CFG = ("job", "hydra", "all")
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
"""Hydra's own flags, those of them that take a value, and what --cfg and --info may show."""

SHOWING = ("-c", "--cfg", "-i", "--info", "--hydra-help", "-sc", "--shell-completion")
"""Those with which nothing is run."""


class UsageError(ValueError):
    """A command line that cannot be meant; the message is one sentence."""


class Words(NamedTuple):
    """A command line.

    Attributes:
        flags: Hydra's, with their values.
        overrides: of options, as ``name=value``.
        folders: of configuration files, from --config-dir and hydra.searchpath.
        packages: further entries of hydra.searchpath.
    """

    flags: list[str]
    overrides: list[str]
    folders: list[str]
    packages: list[str]


def read(arguments: Sequence[str]) -> Words:
    """Returns a command line by its parts; ``--name=value`` is an option as well, as W&B's agents write it.

    Raises:
        UsageError: a flag that nobody knows, or one without its value.
    """
    words = Words([], [], [], [])
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument in HELP:  # which is shown before anything else is read
            continue
        name, equals, value = argument.partition("=")
        if name in ("-cd", "--config-dir"):
            words.folders.append(value if equals else _next(left, name))
        elif name in VALUED:
            given = value if equals else _next(left, name)
            if name in ("-c", "--cfg"):
                _check_shown(name, given, CFG)
            words.flags.extend([name, given])
        elif name in ("-i", "--info"):
            shown = value if equals else left.pop(0) if left and left[0] in INFO else ""
            if equals:
                _check_shown(name, shown, INFO)
            words.flags.extend([name, shown] if shown else [name])
        elif argument in SWITCHES:
            words.flags.append(argument)
        elif name == "hydra.searchpath":
            for entry in (part.strip(" '\"") for part in value.strip("[] ").split(",")):
                place = words.packages if entry.startswith("pkg:") else words.folders
                place.append(entry if entry.startswith("pkg:") else entry.removeprefix("file://"))
        elif argument.startswith("--") and equals:
            words.overrides.append(schema.at_home(argument[2:]))
        elif argument.startswith("-"):
            known = ("--config-dir", "--info", "--help", "--version", *SWITCHES, *VALUED)
            raise UsageError(f"{argument!r} is no flag; {did_you_mean(argument, known, HELPED, most=1)}")
        else:
            words.overrides.append(schema.at_home(argument))
    return words


def _check_shown(flag: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UsageError(
            f"{flag} must be one of {', '.join(known)}, got {value!r}; {did_you_mean(value, known, HELPED)}"
        )


def _next(left: list[str], flag: str) -> str:
    if not left:
        raise UsageError(f"{flag} takes a value, got none; {HELPED}")
    return left.pop(0)


def for_hydra(flags: Sequence[str]) -> list[str]:
    """Returns flags as they may stand before overrides: --info, whose value may be missing, would take the first."""
    following = [*flags, ""][1:]
    return [
        "--info=all" if flag in ("-i", "--info") and after not in INFO else flag
        for flag, after in zip(flags, following, strict=True)
    ]


def experiments() -> dict[str, dict[str, str]]:
    """Returns the headers of the experiment files: title, command, time and expected result by name."""
    found = {}
    for name, file in sorted(places.files("experiment").items()):
        lines = [line[1:].strip() for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
        header = {"title": next((line for line in lines if line and not line.startswith("@")), "")}
        for line in lines:
            if match := re.match(r"(command|time|expected):\s*(.*)", line):
                header[match[1]] = match[2]
        found[name] = header
    return found


def check(overrides: Sequence[str]) -> None:
    """Checks overrides against the options that exist.

    Raises:
        UsageError: an unknown option, experiment or data set, something that is no override, or layers of a stack for a
            network that has options of its own.
    """
    known, architecture = schema.options(), ""
    for argument in overrides:
        try:
            override: Override = OverridesParser.create().parse_override(argument)
        except HydraException:
            raise UsageError(_unread(argument)) from None
        name = override.key_or_group
        if name.startswith("hydra") or schema.is_open_ended(name):
            continue
        if name not in known:
            raise UsageError(f"{name!r} is not an option; {did_you_mean(name, known, HELPED)}")
        for group, choices in (("experiment", list(experiments())), ("data", [*data.names(), PYTHON])):
            value = override.value()
            if name == group and isinstance(value, str) and value not in choices:
                hint = did_you_mean(value, choices, ELSEWHERE[group])
                raise UsageError(f"{group} must be one of {', '.join(choices)}, got {value!r}; {hint}")
        if name == "model.architecture":
            architecture = str(override.value())
    if architecture in NAMED:
        for argument in overrides:
            if (name := argument.lstrip("+").partition("=")[0]) in [f"model.{option}" for option in OF_STACKS]:
                raise UsageError(
                    f"{name} is of the architectures mlp and conv, got {argument} with model.architecture="
                    f"{architecture}; its options are in model.architecture_options."
                )


def _unread(argument: str) -> str:
    """Returns what is wrong with an argument that Hydra cannot read."""
    name, equals, value = argument.partition("=")
    if not equals or not name.isprintable():
        return f"an option is given as name=value, got {argument!r}; see --help."
    return (
        f"the value of {name} must be in Hydra's grammar, got {value!r}; text with special characters is quoted, "
        f"""'{name}="(text)"', and keys of a dictionary never are, '{name}={{key: 1}}'."""
    )


def show_help() -> None:
    """Prints what can be run and every option with its default."""
    console = Console(width=max(100, Console().width))
    console.print("[bold]dsnn run[/] \\[-m] \\[--config-dir DIR] \\[experiment=NAME] \\[option=value ...]")
    console.print("(in a checkout also python -m experiments.run)\n")
    table = Table(title="Experiments", title_justify="left", show_lines=False)
    for column in ("experiment", "what", "command", "time", "expected"):
        table.add_column(column, overflow="fold", no_wrap=column == "experiment")
    for name, header in experiments().items():
        table.add_row(name, *(header.get(k, "") for k in ("title", "command", "time", "expected")))
    console.print(table)
    console.print(f"\n[bold]Data[/] (data=NAME): {', '.join((*data.names(), PYTHON))}")
    settings = Table(title="Options", title_justify="left")
    settings.add_column("option")
    settings.add_column("default")
    for name, default in schema.options().items():
        if not isinstance(default, dict):
            settings.add_row(name, str(default))
    console.print(settings)
    console.print("\n-m sweeps comma-separated values: dsnn run -m seed=0,1,2 train.epochs=2")
    console.print("--config-dir DIR adds experiment/, paper/, search/ and hardware/ files of your own.")
    console.print(
        "What options mean: dsnn/config. --cfg job shows what is composed; --info and --hydra-help are Hydra's.\n"
        "An option that is given twice is what it was given last."
    )


def wants_help(arguments: Sequence[str] | None = None) -> bool:
    """Whether the command line asks for help."""
    return any(a in HELP for a in (sys.argv[1:] if arguments is None else arguments))
