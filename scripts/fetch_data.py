"""Downloads and verifies data sets: ``python scripts/fetch_data.py mnist fashion-mnist [--root FOLDER]``."""

import argparse
import sys

from dsnn import data


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when every file is there and verified, 1 after saying what is not."""
    parser = argparse.ArgumentParser(description="Download and verify data sets.")
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"any of {', '.join(data.names())}")
    parser.add_argument("--root", help="data folder; by default DSNN_DATA, else the user's cache")
    options = parser.parse_args(arguments)
    failed = False
    for name in options.names:
        try:
            paths = data.fetch(name, options.root)
        except data.DataError as error:
            print(error, file=sys.stderr)
            failed = True
            continue
        print("\n".join(map(str, paths)) if paths else f"{name} needs no file")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
