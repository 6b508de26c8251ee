"""A user's table, CSV, TSV or Parquet: a row an example, a column a feature, one of them the target.

Columns of numbers stay what they are; columns of text become one input per category of the training part.
"""

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dsnn.data import foreign, own
from dsnn.data.missing import listed
from dsnn.data.split import TASKS, DataError, Split
from dsnn.store import untrusted

if TYPE_CHECKING:
    import pandas

SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
PARQUET = (".parquet", ".pq")
MAX_BYTES = 1 << 32
MAX_CELLS = 1 << 30
MAX_LINE = 1 << 20
MAX_LEVELS = 100
"""Categories of a column of text; one with more is a name or an identifier, which says nothing of other rows."""

MOSTLY_NUMBERS = 0.9
"""Share of a text column's values that must read as numbers for the others to be gaps in it, besides `GAPS`."""


GAPS = {"", "?", "-", "--", "*", ".", "na", "n/a", "n.a.", "nan", "none", "null", "missing", "unknown"}
"""Words, in lower case, that stand where a number is missing."""


class Column(NamedTuple):
    """How a column becomes inputs: ``levels`` are its categories, None for numbers."""

    name: str
    levels: tuple[str, ...] | None


def load(
    root: Path,
    seed: int,
    val_fraction: float | None,
    *,
    path: str | Path | None = None,
    target: str | int | None = None,
    test: str | None = None,
    test_fraction: float | None = None,
    task: str = "classification",
    drop: list[str] | tuple[str, ...] | str = (),
) -> Split:
    """Returns the split of a table: inputs ``[n, features]`` and the target column.

    Args:
        root: not used, ``path`` stands for itself.
        seed: chooses the validation part, and a test part that is asked for.
        val_fraction: of the training rows, in [0, 1); by default a fifth, and 5 000 at most.
        path: ``.csv``, ``.tsv`` or ``.parquet``, with the names of its columns in the first row.
        target: the column to predict; by default the last one.
        test: a second table with the test rows.
        test_fraction: of the rows, in (0, 1), to draw as the test part where there is no second table.
        task: ``classification`` (whole numbers or text) or ``regression``.
        drop: columns to leave out, such as identifiers.

    Raises:
        DataError: an unknown column, a column of text with more categories than rows can teach, no test part, or a
            file that is no table.
    """
    if path is None:
        raise DataError("data set 'table' needs the option path, got none; set it to a .csv, .tsv or .parquet file.")
    if task not in (TASKS[0], TASKS[2]):
        raise DataError(f"data.options.task of a table must be classification or regression, got {task!r}.")
    place = Path(path).expanduser()
    frame = read(place)
    goal = _target(frame, target, place)
    left_out = [drop] if isinstance(drop, str) else [str(name) for name in drop]
    for name in left_out:
        if name not in frame.columns or name == goal:
            raise DataError(f"data.options.drop must name columns of {place} besides {goal!r}, got {name!r}.")
    frame = frame.drop(columns=left_out)
    if len(frame.columns) < 2:
        raise DataError(f"{place} must have a column of inputs besides {goal!r}, got none; add one.")
    notes = [] if target is not None else [f"the last column, {goal!r}, is the target (data.options.target)."]
    frames = {"train": frame}
    if test is not None:
        frames["test"] = _same_columns(read(Path(test).expanduser()), frame, test, place)
    parts = {}
    for part, one in frames.items():
        if task == "regression" and (numbers := _as_numbers(one[goal])) is not None:
            one = one.assign(**{goal: numbers})
        y = one[goal]
        known = y.notna()
        if part == "test" and not known.all():
            raise DataError(
                f"every test row needs a target, got {int((~known).sum())} without one in column {goal!r} of {test}; "
                f"leave them out or fill them in."
            )
        if dropped := int((~known).sum()):
            notes.append(f"{dropped} rows have no target and were left out.")
        parts[part] = own.Raw(one.drop(columns=goal)[known], _targets(y[known]))
    whole = own.divided(
        parts, "table", place, seed=seed, val_fraction=val_fraction, test_fraction=test_fraction, task=task
    )
    frames = {part: arrays.x for part, arrays in whole.parts.items()}
    columns, said = described(frames["train"], place)
    arrays = {part: own.Raw(inputs(frames[part], columns), whole.parts[part].y) for part in frames}
    return own.split_of(
        own.checked(arrays, False, place),
        "table",
        task=task,
        columns=tuple(name for column in columns for name in called(column)),
        notes=(*notes, *whole.notes, *said),
    )


def read(place: Path) -> "pandas.DataFrame":
    """Returns the table in a file, told by its suffix.

    Raises:
        DataError: it cannot be read, is empty, too large, or names a column twice.
    """
    try:
        import pandas
    except ImportError as error:
        raise DataError(
            "tables are read by pandas and pyarrow, got an installation without them; pip install 'dsnn[table]'."
        ) from error
    suffix = place.suffix.lower()
    if suffix not in (*SEPARATORS, *PARQUET):
        known = ", ".join((*SEPARATORS, *PARQUET))
        raise DataError(f"a table must end in one of {known}, got {place.name!r}; rename or convert it.")
    with foreign.sentences(place, "a table that pandas can read"):
        untrusted.plain(place, MAX_BYTES)
    try:
        frame = _parquet(place) if suffix in PARQUET else _text(pandas, place, SEPARATORS[suffix])
    except DataError:
        raise
    except ImportError as error:
        raise DataError(
            f"{place.name} is read by pyarrow, got an installation without it; pip install 'dsnn[table]'."
        ) from error
    except Exception as error:  # whatever a reader of another library says of a file that it cannot read
        said = getattr(error, "strerror", None) or untrusted.one_line(error)
        raise DataError(f"{place} must be a table that pandas can read, got: {said}.") from error
    if not len(frame):
        raise DataError(f"{place} must have rows below the names of its columns, got none; add some.")
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise DataError(f"columns must have names of their own, got {str(twice[0])!r} twice in {place}; rename one.")
    return frame


def _text(pandas: Any, place: Path, separator: str) -> "pandas.DataFrame":
    def opened(**options: Any) -> Any:
        return pandas.read_csv(place, sep=separator, compression=None, encoding="utf-8-sig", header=None, **options)

    separator, decimal = _punctuation(place, separator)
    names = opened(nrows=1, dtype=str, keep_default_na=False).iloc[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            frame = pandas.read_csv(
                place,
                sep=separator,
                decimal=decimal,
                compression=None,
                encoding="utf-8-sig",
                skipinitialspace=True,
                low_memory=False,
                index_col=False,
            )
    except (pandas.errors.ParserWarning, pandas.errors.ParserError) as error:
        raise DataError(
            f"rows must have as many values as there are column names, {len(names)}, got other ones in {place} "
            f"({' '.join(str(error).split()).rstrip('.')}); mend it."
        ) from error
    _check_cells(len(frame), len(frame.columns), place)
    given = [str(name).strip() for name in names]
    if len(given) == len(frame.columns):  # pandas renames a name that comes twice
        frame.columns = pandas.Index(given)
    if all(_number(name) for name in given):
        raise DataError(
            f"the first row of {place} must name the columns, got the numbers {', '.join(given[:4])}; "
            f"add one that does."
        )
    return frame


def _punctuation(place: Path, separator: str) -> tuple[str, str]:
    """Returns what separates values and decimals, told by the first rows: many a .csv has semicolons, as in 1,5;2,5."""
    with open(place, encoding="utf-8-sig", errors="replace") as file:
        first = [file.readline(MAX_LINE) for _ in range(20)]
    if separator == "," and "," not in first[0]:
        separator = next((mark for mark in (";", "\t") if mark in first[0]), separator)
    rows = "".join(first[1:])
    comma = separator != "," and re.search(r"\d,\d", rows) and not re.search(r"\d\.\d", rows)
    return separator, "," if comma else "."


def _parquet(place: Path) -> "pandas.DataFrame":
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(place) as file:
        held = file.metadata
        _check_cells(held.num_rows, held.num_columns, place)
        total = sum(held.row_group(n).total_byte_size for n in range(held.num_row_groups))
        if total > 2 * MAX_BYTES:
            raise DataError(f"{place} may unpack to {2 * MAX_BYTES >> 30} GiB, got {total / 2**30:.1f}; split it.")
        frame = file.read().to_pandas()
    frame.columns = [str(name) for name in frame.columns]
    return frame.reset_index(drop=True)


def _check_cells(rows: int, columns: int, place: Path) -> None:
    if rows * columns > MAX_CELLS:
        raise DataError(f"{place} may have {MAX_CELLS} cells, got {rows} rows of {columns} columns; give fewer.")


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _target(frame: "pandas.DataFrame", target: str | int | None, place: Path) -> str:
    if target is None:
        return str(frame.columns[-1])
    if str(target) not in frame.columns:
        shown = ", ".join(map(str, frame.columns[:20])) + (", ..." if len(frame.columns) > 20 else "")
        raise DataError(f"data.options.target must be a column of {place} ({shown}), got {str(target)!r}.")
    return str(target)


def _same_columns(other: "pandas.DataFrame", frame: "pandas.DataFrame", test: str, place: Path) -> "pandas.DataFrame":
    if missing := [str(name) for name in frame.columns if name not in other.columns]:
        raise DataError(
            f"{test} must have the columns of {place}, got none called {', '.join(missing[:5])}; add "
            f"{'it' if len(missing) == 1 else 'them'}."
        )
    return other[list(frame.columns)]


def _targets(y: "pandas.Series") -> np.ndarray:
    """Returns a column of targets as numpy numbers or text; no Python objects."""
    values = y.to_numpy()
    if values.dtype.kind in "biuf":
        return values
    whole = all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in values)
    return values.astype(np.float64) if whole else np.array([str(value).strip() for value in values], dtype=str)


def called(column: Column) -> list[str]:
    """Returns the names of the inputs that a column becomes: its own, or ``colour=red`` for each category."""
    return [column.name] if column.levels is None else [f"{column.name}={level}" for level in column.levels]


def described(train: "pandas.DataFrame", place: Path) -> tuple[list[Column], tuple[str, ...]]:
    """Returns how each column becomes inputs, read off the training rows, and what to say of it.

    Raises:
        DataError: a column of text has more categories than `MAX_LEVELS`.
    """
    columns: list[Column] = []
    words, gaps = [], []
    for number, name in enumerate(train.columns):
        values = train[name]
        if _as_numbers(values) is not None:
            columns.append(Column(str(name), None))
            if values.dtype.kind not in "biufM":
                gaps.append(number)
            continue
        levels = tuple(sorted({str(value).strip() for value in values[values.notna()]}))
        if len(levels) > MAX_LEVELS:
            raise DataError(
                f"a column of text may have {MAX_LEVELS} categories, got {len(levels)} in {str(name)!r} of {place}; "
                f"leave it out with data.options.drop=[{name}], or make numbers of it."
            )
        columns.append(Column(str(name), levels))
        words.append(number)
    total, said, names = len(columns), [], [column.name for column in columns]
    if words:
        inputs_ = sum(len(column.levels) for column in columns if column.levels is not None)
        said.append(
            f"text in {listed(words, total, names)} became {inputs_} categories of 0 or 1, those of the training part; "
            f"another or a missing one is 0 in all of them."
        )
    if gaps:
        said.append(f"what is no number in {listed(gaps, total, names)} is missing there.")
    return columns, tuple(said)


def _as_numbers(values: "pandas.Series") -> np.ndarray | None:
    """Returns a column as numbers, with NaN for gaps, None where it is text."""
    import pandas

    if values.dtype.kind == "M":
        seconds = values.to_numpy("datetime64[ns]").astype(np.int64) / 1e9
        return np.where(values.isna(), np.nan, seconds)
    if pandas.api.types.is_bool_dtype(values.dtype) or pandas.api.types.is_numeric_dtype(values.dtype):
        return values.to_numpy(np.float64, na_value=np.nan)
    known = values.notna().to_numpy()
    if known.any() and all(isinstance(value, bool | np.bool_) for value in values[known]):
        return np.array([float(value) if there else np.nan for value, there in zip(values, known, strict=True)])
    numbers = pandas.to_numeric(values.astype(str).where(known), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    said = known & np.array([str(value).strip().lower() not in GAPS for value in values], bool)
    return numbers if not said.any() or np.isfinite(numbers[said]).mean() >= MOSTLY_NUMBERS else None


def inputs(frame: "pandas.DataFrame", columns: list[Column]) -> np.ndarray:
    """Returns the rows of a table as numbers, float64 ``[n, features]``."""
    import pandas

    made: list[np.ndarray] = []
    for name, levels in columns:
        values = frame[name]
        if levels is None:
            found = _as_numbers(values)
            if found is None:  # text in another part than the training part
                numbers = pandas.to_numeric(values.astype(str), errors="coerce")
                found = numbers.to_numpy(np.float64, na_value=np.nan)
            made.append(found[:, None])
        else:
            known = values.notna()
            text = [str(value).strip() if there else "" for value, there in zip(values, known, strict=True)]
            same = np.array(text, dtype=str)[:, None] == np.array(levels, dtype=str)
            made.append((same & known.to_numpy(bool)[:, None]).astype(np.float64))
    return np.concatenate(made, axis=1)
