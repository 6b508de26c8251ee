"""Damages every file of finished and unfinished runs in every way, and holds all readers to what is promised.

    python scripts/damage.py [--cases N] [--seed S] [--kinds NAME ...] [--keep DIR]

Runs of each kind are made once (`damage_runs.py`). A case copies one, damages one of its files, has every reader read
it, and gives the command that made it again. A case fails by a traceback, by a number that is not the undamaged run's,
by a run that ends with other results or other files, and by anything lost that the user put there. Cases are drawn
by the seed, evenly from all kinds and all ways of damage. A failed one stays in --keep DIR, if that is given.

Prints how many cases were *noticed* (somebody refused in one sentence), *remade* (the same command made the same
results again), *harmless* (nothing that anybody reads was damaged) and FAILED, and exits with 1 if one was.
"""

import argparse
import contextlib
import itertools
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from damage_runs import KINDS, OTHER, Crash, Kind, Refused, command, files, prepare, results

MINE, WORDS = "mine.txt", "what the user wrote\n"
VERDICTS = ("noticed", "remade", "harmless", "FAILED")
TOLD = ("damaged", "missing", "is made anew", "are passed over", "put aside", "could not be drawn", "unfinished")
"""Words by which a command that goes on says what it found."""


# --- Damage


def _cut(keep: Callable[[int], int]) -> Callable[[Path, random.Random], None]:
    return lambda path, draw: path.write_bytes(path.read_bytes()[: keep(path.stat().st_size)]) and None


def _zeroed(path: Path, draw: random.Random) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _garbled(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for at in draw.sample(range(len(content)), min(len(content), draw.choice((1, 4, 16)))):
        content[at] ^= draw.randrange(1, 256)
    path.write_bytes(content)


def _replaced(path: Path, draw: random.Random) -> None:
    theirs = Path(OTHER, *path.parts[1:])
    shutil.copyfile(theirs if theirs.is_file() else Path(OTHER, "config.yaml"), path)


def _folder(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()
    (path / MINE).write_text(WORDS, encoding="utf-8")


WAYS: dict[str, Callable[[Path, random.Random], None]] = {
    "emptied": _cut(lambda size: 0),
    "cut in half": _cut(lambda size: size // 2),
    "a byte short": _cut(lambda size: max(0, size - 1)),
    "zeroed": _zeroed,
    "garbled": _garbled,
    "deleted": lambda path, draw: path.unlink(),
    "another's": _replaced,
    "a folder": _folder,
    "a file added": lambda path, draw: path.with_name(MINE).write_text(WORDS, encoding="utf-8") and None,
}
"""Ways of damage, by name."""


# --- A case


class Case(NamedTuple):
    """A kind of run, a file of it, and what happens to the file."""

    kind: str
    file: str
    way: str


class Whole(NamedTuple):
    """What a kind is before anything is damaged.

    Attributes:
        folder: where it was made.
        names: files that can be damaged.
        read: what each reader finds.
        results: of the command that made it.
        files: that the command leaves.
    """

    folder: Path
    names: list[str]
    read: dict[str, str]
    results: dict[str, object]
    files: set[str]


class Failed(RuntimeError):
    """Why a case failed, in one line."""


def whole(kind: Kind, begun: Path, work: Path, place: Path) -> Whole:
    """Makes a kind in a folder of its own, with a copy of what all kinds share, and keeps it in another."""
    shutil.copytree(begun, work)
    with contextlib.chdir(work):
        kind.make()
        shutil.copytree(work, place)
        read = {name: _found(reader) for name, reader in kind.readers.items()}
        if kind.again:
            command(*kind.again)
        found, left = results(Path()), files(Path())
    shutil.rmtree(work)
    names = sorted(
        path.relative_to(place).as_posix()
        for path in ((place / kind.place).rglob("*") if (place / kind.place).is_dir() else [place / kind.place])
        if path.is_file()
    )
    return Whole(place, names, read, found, left)


def judged(case: Case, kind: Kind, before: Whole, draw: random.Random) -> str:
    """Damages a file in the current folder, a copy of a kind, and returns what became of it.

    Raises:
        Failed: something that is promised does not hold.
    """
    path = Path(case.file)
    WAYS[case.way](path, draw)
    damaged = _content(path)
    saw = [_reads(name, reader, kind, before) for name, reader in kind.readers.items()]  # every one of them reads
    noticed = any(saw)
    if kind.again:
        said = _goes_on(case, kind, before, damaged)
        remade = said is not None and case.way != "a file added" and _content(path) != damaged
        noticed = noticed or said is None or any(word in said for word in TOLD)
        if remade:
            return _kept(case, "remade")
        if said is not None and noticed and kind.sealed and _unlike(before):
            return _kept(case, "noticed")
    return _kept(case, "noticed" if noticed else "harmless")


def _reads(name: str, reader: Callable[[], str], kind: Kind, before: Whole) -> bool:
    """Has a reader read, and returns whether it noticed something."""
    try:
        found = _found(reader)
    except Crash as error:
        raise Failed(f"{name}: {_last(error)}") from error
    if found == before.read[name]:
        return False
    if found.startswith("refused: "):
        said = found.removeprefix("refused: ")
        if "\n" in said or not said.endswith((".", "?")):
            raise Failed(f"{name}: not one sentence: {said[:300]!r}")
        return True
    if kind.sealed and not any(word in found for word in TOLD):
        raise Failed(f"{name}: another answer than the undamaged run's")
    return kind.sealed


def _goes_on(case: Case, kind: Kind, before: Whole, damaged: object) -> str | None:
    """Gives the command again and returns what it said, None where it refused; holds it to the same results."""
    try:
        said = command(*kind.again)
    except Crash as error:
        raise Failed(f"the same command: {_last(error)}") from error
    except Refused as error:
        if "\n" in str(error) and " jobs are done" not in str(error):  # a sweep ends with its table
            raise Failed(f"the same command: not one sentence: {str(error)[:300]!r}") from error
        if kind.anew and case.way not in ("a folder", "a file added"):
            _begins_anew(case, kind, before, damaged)
        return None
    if unlike := [name for name in _unlike(before) if not _is_told(name, kind)]:
        raise Failed(f"the same command: other results, the first: {unlike[0]}")
    extra = {name for name in files(Path()) - before.files if Path(name).name != MINE}
    if not kind.sealed:  # what can be drawn of a run that is not finished depends on what is damaged
        extra = {name for name in extra if "figures/" not in name}
    asides = tuple(_kept_checkpoints())
    for name in sorted(extra):
        if not name.startswith(asides) and not Path(name).name.startswith("journal.log.damaged"):
            raise Failed(f"the same command: leaves {name}")
    return said


def _kept_checkpoints() -> list[str]:
    """Returns the folders of checkpoints that are kept for a file of the user's in them."""
    found = (re.match(r".*checkpoints/(deep/)?\d+/", path.as_posix()) for path in Path().rglob(MINE))
    return [match[0] for match in found if match]


def _begins_anew(case: Case, kind: Kind, before: Whole, damaged: object) -> None:
    """Sets the damaged run aside, and holds the new one to the same results."""
    try:
        command(*kind.again, "resume=false")
    except (Crash, Refused) as error:
        raise Failed(f"resume=false: {_last(error)}") from error
    if unlike := [name for name in _unlike(before) if not name.startswith(f"{kind.place}.1")]:
        raise Failed(f"resume=false: other results, the first: {unlike[0]}")
    aside = Path(f"{kind.place}.1", *Path(case.file).parts[1:])
    if _content(aside) != damaged:
        raise Failed(f"resume=false: {aside} is not what was set aside")


def _unlike(before: Whole) -> list[str]:
    """Returns the names of results that are not those of the undamaged kind."""
    found = results(Path())
    return sorted(name for name in found.keys() | before.results.keys() if found.get(name) != before.results.get(name))


def _is_told(name: str, kind: Kind) -> bool:
    """Whether a run of a search is damaged or lacks its end, which its page tells: no trial that ended is run again."""
    found = results(Path())
    runs = {run for run, state in found.items() if state in ("damaged", "claimed")}
    return kind.again[0] == "search" and any(name == run or name.startswith(f"{run} ") for run in runs)


def _kept(case: Case, verdict: str) -> str:
    """Returns the verdict, if everything is there that the user wrote."""
    mine = [path for path in Path().rglob(MINE) if path.read_text(encoding="utf-8") == WORDS]
    if case.way in ("a folder", "a file added") and len(mine) != 1:
        raise Failed("what the user wrote is lost")
    return verdict


def _found(reader: Callable[[], str]) -> str:
    try:
        return reader()
    except Refused as error:
        return f"refused: {error}"


def _content(path: Path) -> object:
    return path.read_bytes() if path.is_file() else path.is_dir()


def _last(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1]


# --- All of them


def drawn(wholes: dict[str, Whole], count: int, seed: int) -> Iterator[Case]:
    """Yields so many cases, no two alike, from each kind and each way of damage in turn."""
    draw = random.Random(seed)
    heaps = []
    for kind, way in itertools.product(wholes, WAYS):
        names = list(wholes[kind].names)
        draw.shuffle(names)
        # parts of checkpoints, and pictures, are most files of a run
        parts = [name for name in names if "/state/" in name or "/figures/" in name]
        others = [name for name in names if name not in parts]
        mixed = itertools.chain(*itertools.zip_longest(others[::2], others[1::2], parts))
        heaps.append([Case(kind, name, way) for name in mixed if name])
    draw.shuffle(heaps)
    turns = (case for turn in itertools.zip_longest(*heaps) for case in turn if case is not None)
    yield from itertools.islice(turns, count)


def tried(kinds: Sequence[str], count: int, seed: int, folder: Path, keep: Path | None) -> dict[Case, tuple[str, str]]:
    """Returns the verdict of every case and, of those that failed, why."""
    (begun := folder / "begun").mkdir()
    with contextlib.chdir(begun):
        prepare()
    wholes, work, verdicts = {}, folder / "work", {}
    for name in kinds:
        wholes[name] = whole(KINDS[name], begun, work, folder / name)
        print(f"made: {name}, {len(wholes[name].names)} files", file=sys.stderr)
    for number, case in enumerate(drawn(wholes, count, seed)):
        began = time.monotonic()
        shutil.copytree(wholes[case.kind].folder, work)
        with contextlib.chdir(work):
            try:
                found = judged(case, KINDS[case.kind], wholes[case.kind], random.Random(f"{seed} {case}")), ""
            except Failed as error:
                found = "FAILED", str(error)
                if keep:
                    shutil.copytree(work, keep / f"case {number}")
        shutil.rmtree(work)
        verdicts[case] = found
        told = f"{case.kind}: {case.file} {case.way}: {found[0]} {found[1]}".rstrip()
        print(f"{number + 1} ({time.monotonic() - began:.1f} s) {told}", file=sys.stderr)
    return verdicts


def table(verdicts: dict[Case, tuple[str, str]]) -> str:
    """Returns a Markdown table of how many cases had each verdict, by kind and by way of damage, and the sums."""
    counts = Counter((case.kind, case.way, verdict) for case, (verdict, _) in verdicts.items())

    def cell(kind: str, way: str) -> str:
        return "/".join(
            str(sum(n for (k, w, v), n in counts.items() if kind in (k, "all") and way in (w, "all") and v == verdict))
            for verdict in VERDICTS
        )

    kinds = [kind for kind in KINDS if any(case.kind == kind for case in verdicts)]
    lines = [f"{len(verdicts)} cases: {'/'.join(VERDICTS)}", "", f"| | {' | '.join(WAYS)} | all |"]
    lines.append("|---" * (len(WAYS) + 2) + "|")
    lines += [f"| {kind} | {' | '.join(cell(kind, way) for way in (*WAYS, 'all'))} |" for kind in (*kinds, "all")]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=450)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="damage") as folder:
        keep = given.keep and given.keep.absolute()
        verdicts = tried(given.kinds, given.cases, given.seed, Path(folder), keep)
    print(table(verdicts))
    failed = {case: why for case, (verdict, why) in verdicts.items() if verdict == "FAILED"}
    for case, why in failed.items():
        print(f"FAILED: {case.kind}: {case.file} {case.way}: {why}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
