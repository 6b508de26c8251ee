"""Where configuration files are found: dsnn's own, and folders of one's own that a command names.

A folder of one's own has the shape of ``conf``: ``experiment/``, ``paper/``, ``search/``, ``frontier/``, ``hardware/``.
It is given as ``--config-dir DIR``, by ``hydra.searchpath=[DIR]``, or to every command of a shell by DSNN_CONFIG_DIR
(several are separated as in PATH). Names of one's own may not be those of dsnn.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from dsnn.suggest import did_you_mean

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf" if (ROOT / "conf").is_dir() else ROOT.parent / "conf"
"""dsnn's own: inside an installed package, beside it in a checkout."""

VARIABLE = "DSNN_CONFIG_DIR"
KINDS = ("experiment", "paper", "search", "frontier", "hardware")


def own() -> tuple[Path, ...]:
    """Returns the folders that were named, in their order.

    Raises:
        ValueError: one that is no folder.
    """
    named = tuple(Path(part).expanduser().absolute() for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part)
    for folder in named:
        if not folder.is_dir():
            raise ValueError(f"a configuration folder must exist, got {folder}; give --config-dir DIR.")
    return named


def add(folders: Sequence[str | Path]) -> None:
    """Names folders of one's own, to this process and to those that it starts."""
    given = [str(Path(folder).expanduser().absolute()) for folder in folders]
    before = [part for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    if given:
        os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys([*before, *given]))


def files(kind: str) -> dict[str, Path]:
    """Returns the YAML files of a kind by name, dsnn's own and those of the folders that were named.

    Args:
        kind: "experiment", "paper", "search", "frontier" or "hardware".

    Raises:
        ValueError: a name that two folders have.
    """
    found: dict[str, Path] = {}
    for folder in (CONF, *own()):
        for file in sorted((folder / kind).glob("*.yaml")):
            if file.stem in found and found[file.stem].resolve() != file.resolve():
                raise ValueError(
                    f"a name of a {kind} must be that of one file, got {file.stem!r} in {found[file.stem].parent} and "
                    f"in {file.parent}; rename one's own."
                )
            found[file.stem] = file
    return found


def file(kind: str, name: str) -> Path:
    """Returns the file of a name.

    Raises:
        ValueError: there is none; the sentence names those that there are.
    """
    known = files(kind)
    if name not in known:
        hint = did_you_mean(name, known, "--config-dir DIR adds a folder of your own.", most=1)
        raise ValueError(f"{kind} must be one of {', '.join(sorted(known))}, got {name!r}; {hint}")
    return known[name]
