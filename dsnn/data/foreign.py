"""What `dsnn.store.untrusted` refuses, as data that cannot be used."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dsnn.data.split import DataError
from dsnn.store.untrusted import UntrustedError


@contextmanager
def sentences(path: Path, what: str) -> Iterator[None]:
    """Says of a file that cannot be read what is wrong with it.

    Args:
        path: of the file.
        what: it must be, for one that is not there.

    Raises:
        DataError: the file is missing, or `dsnn.store.untrusted` refuses it.
    """
    try:
        yield
    except UntrustedError as error:
        raise DataError(str(error)) from error
    except FileNotFoundError as error:
        raise DataError(f"{path} must be {what}, got: No such file or directory.") from error
