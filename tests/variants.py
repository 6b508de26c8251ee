"""Which variants of parametrised tests run where all tests are asked for and none by its name."""

import zlib
from pathlib import Path

# In these each variant is something of its own that a user may name.
WHOLE = ("contracts", "imports", "configs", "old_names", "tutorials", "presets", "hostile_nir", "messy_data", "fuzz")

USUAL = 1
"""Variants of each test that run by default."""


def sampled(names: list[str], count: int, *, whole: bool) -> list[str]:
    """Returns of each parametrised test at most so many variants: one that its name draws, or several evenly apart.

    Args:
        names: of all tests, in their order.
        count: at least 1.
        whole: whether tests of the files in `WHOLE` keep all of theirs.
    """
    variants: dict[str, list[str]] = {}
    for name in names:
        variants.setdefault(name.split("[")[0], []).append(name)
    kept = []
    for test, every in variants.items():
        if len(every) <= count or (whole and Path(test.split("::")[0]).stem.removeprefix("test_") in WHOLE):
            kept += every
        elif count == 1:
            kept.append(every[zlib.crc32(test.encode()) % len(every)])
        else:
            kept += [every[round(k * (len(every) - 1) / (count - 1))] for k in range(count)]
    return kept
