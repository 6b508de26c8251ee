"""The command ``dsnn``: ``dsnn COMMAND [option=value ...]``, a door to each of the command lines of this package."""

import importlib
import importlib.metadata
import sys

from dsnn.suggest import did_you_mean

COMMANDS = {
    "run": ("cli", "train, evaluate and report; -m sweeps comma-separated values"),
    "sweep": ("cli", "the same as run -m"),
    "search": ("sweep", "search settings: search=NAME trials=N"),
    "frontier": ("frontier", "accuracy over energy against rivals that are trained alike: data=NAME trials=N"),
    "inspect": ("inspect", "what data hold, and what a run would do with them"),
    "report": ("report", "draw the report of a run or of many anew"),
    "reproduce": ("reproduce", "hold a paper's claims against ours: paper=NAME"),
    "exits": ("exits", "compare ways of stopping early on a finished run"),
    "speed": ("measured_speed", "measure wall times of a finished run, whole and as deployed"),
    "ensemble": ("ensemble", "assess finished runs as one"),
}
"""Module of `dsnn.run` and one line of help, by command."""


def main() -> int:
    """Runs the command that the command line names; returns its exit status, 2 for one that cannot be meant."""
    given = sys.argv[1:]
    if not given or given[0] in ("-h", "--help"):
        print("dsnn COMMAND [option=value ...]; dsnn COMMAND --help says more.\n")
        for name, (_, said) in COMMANDS.items():
            print(f"  {name:<10} {said}")
        return 0 if given else 2
    if given[0] == "--version":
        print(f"dsnn {importlib.metadata.version('dsnn')}")
        return 0
    if given[0] not in COMMANDS:
        hint = did_you_mean(given[0], COMMANDS, "see dsnn --help.", most=1)
        print(f"error: a command must be one of {', '.join(COMMANDS)}, got {given[0]!r}; {hint}", file=sys.stderr)
        return 2
    try:
        module = importlib.import_module(f"dsnn.run.{COMMANDS[given[0]][0]}")
    except KeyboardInterrupt:
        print("stopped before anything began; the same command begins.", file=sys.stderr)
        return 130
    sweeps = given[0] == "sweep" and not {"-m", "--multirun"} & {*given}
    if sweeps and not any(word.partition("=")[0] in module.usage.SHOWING for word in given):
        given.insert(1, "-m")
    sys.argv = [f"dsnn {given[0]}", *given[1:]]
    return int(module.main() or 0)


if __name__ == "__main__":
    sys.exit(main())
