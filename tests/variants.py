"""Which variants of parametrised tests run where all tests are asked for and none by its name."""

from pathlib import Path

# In these each variant is something of its own that a user may name; all run, but where one of each test is asked for.
WHOLE = ("contracts", "imports", "configs", "old_names", "tutorials", "presets", "hostile_nir", "messy_data", "fuzz")


def sampled(names: list[str], count: int) -> list[str]:
    """Returns of each parametrised test at most `count` variants: the first, the last, and others evenly between."""
    variants: dict[str, list[str]] = {}
    for name in names:
        variants.setdefault(name.split("[")[0], []).append(name)
    kept = []
    for test, every in variants.items():
        whole = count > 1 and Path(test.split("::")[0]).stem.removeprefix("test_") in WHOLE
        if whole or len(every) <= count:
            kept += every
        else:
            kept += [every[round(k * (len(every) - 1) / max(count - 1, 1))] for k in range(count)]
    return kept
