"""What the quick tests leave out is variants alone, never a test."""

import variants


def test_every_test_keeps_its_first_and_last_variant_and_some_between():
    names = [
        *(f"tests/test_a.py::test_x[{k}]" for k in range(9)),
        "tests/test_a.py::test_y",
        "tests/test_a.py::test_z[0-a[b]]",
    ]
    kept = variants.sampled(names, 3)
    assert kept == [*(f"tests/test_a.py::test_x[{k}]" for k in (0, 4, 8)), *names[9:]]
    assert variants.sampled(names, 1) == [names[0], *names[9:]]


def test_variants_that_users_name_all_stay():
    names = [f"tests/test_contracts.py::test_x[{k}]" for k in range(9)]
    assert variants.sampled(names, 3) == names
    assert variants.sampled(names, 1) == names[:1]
