"""What the quick tests leave out is variants alone, never a test."""

import variants

NAMES = [
    *(f"tests/test_a.py::test_x[{k}]" for k in range(9)),
    "tests/test_a.py::test_y",
    "tests/test_a.py::test_z[0-a[b]]",
]


def test_several_variants_are_the_first_the_last_and_some_between():
    kept = variants.sampled(NAMES, 3, whole=False)
    assert kept == [*(f"tests/test_a.py::test_x[{k}]" for k in (0, 4, 8)), *NAMES[9:]]


def test_a_single_variant_is_drawn_by_the_tests_name():
    first, *others = variants.sampled(NAMES, 1, whole=False)
    assert (first in NAMES[:9], others) == (True, NAMES[9:])
    assert variants.sampled(NAMES, 1, whole=False)[0] == first
    tests = [f"tests/test_{name}.py::test_x[{k}]" for name in "abcdefgh" for k in range(4)]
    assert len({name[-2] for name in variants.sampled(tests, 1, whole=False)}) > 1


def test_variants_that_users_name_all_stay_but_where_their_file_is_named():
    names = [f"tests/test_contracts.py::test_x[{k}]" for k in range(9)]
    assert variants.sampled(names, 3, whole=True) == variants.sampled(names, 1, whole=True) == names
    assert len(variants.sampled(names, 1, whole=False)) == 1
