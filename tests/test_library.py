"""The compiled library in its folder: damage is noticed before it is loaded, and any way to name a compiler works."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dsnn.native import library, products

pytestmark = pytest.mark.skipif(products.problem() is not None, reason=f"nothing in C: {products.problem()}")
COMPILER = shutil.which(os.environ.get("CC", "cc")) or ""
PROGRAM = """
import jax, jax.numpy as jnp
from dsnn.native import products
x, w = jnp.eye(128, 1024), jnp.ones((1024, 64)).at[200].set(jnp.inf)
print(products.problem(), bool(jnp.isfinite(jax.jit(products.product)(x, w)).all()))
"""


def counting(folder: Path) -> tuple[Path, Path]:
    """A compiler that notes each compilation, and its notes."""
    folder.mkdir(exist_ok=True)
    path, notes = folder / "gcc", folder / "notes"
    path.write_text(f'#!/bin/sh\ncase "$*" in *--version*) ;; *) echo x >> "{notes}" ;; esac\nexec {COMPILER} "$@"\n')
    path.chmod(0o755)
    return path, notes


def run(cache: Path, compiler: str, umask: int = -1) -> None:
    """Another process uses the library, whose input of zero hides an infinite weight, as only it does."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "JAX_PLATFORMS": "cpu", "CC": compiler}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, umask=umask, check=False
    )
    assert (done.returncode, done.stdout) == (0, "None True\n"), done.stderr


def cut(path: Path) -> None:
    os.truncate(path, 12000)


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def garbled(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


@pytest.mark.slow
def test_reliability_7_a_damaged_library_is_compiled_again_before_it_is_loaded(tmp_path: Path) -> None:
    compiler, notes = counting(tmp_path / "bin")
    run(tmp_path, str(compiler))
    files = sorted((tmp_path / "dsnn").iterdir())
    whole = [file.read_bytes() for file in files]
    assert len(notes.read_text()) == 2 * len(files) == 10
    for damage, file in zip((cut, zeroed, garbled, cut, garbled), files, strict=True):
        damage(file)
    run(tmp_path, str(compiler))
    assert sorted((tmp_path / "dsnn").iterdir()) == files
    assert [file.read_bytes() for file in files] == whole
    assert len(notes.read_text()) == 20
    run(tmp_path, str(compiler))
    assert len(notes.read_text()) == 20


def test_reliability_7_a_library_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    settle, replace = library.settle, Path.replace
    monkeypatch.setattr(library, "settle", lambda path: (order.append(path.suffix or "folder"), settle(path)))
    monkeypatch.setattr(Path, "replace", lambda old, new: (order.append("named"), replace(old, new))[1])
    path = library._compiled([COMPILER], tmp_path, library.DECIDE)
    assert order == [".so", "named", "folder"]
    assert library._compiled([COMPILER], tmp_path, library.DECIDE) == path
    assert len(order) == 3


def test_reliability_7_a_library_of_others_is_not_loaded(tmp_path: Path) -> None:
    path = library._compiled([COMPILER], tmp_path, library.DECIDE)
    assert library._whole(path)
    path.chmod(0o775)
    assert not library._whole(path)
    assert library._compiled([COMPILER], tmp_path, library.DECIDE) == path
    assert library._whole(path)
    assert not library._whole(tmp_path / "missing-0.so")


@pytest.mark.slow
@pytest.mark.parametrize("mode", [None, 0o775])
def test_reliability_19_under_a_umask_of_002_it_is_compiled_once(mode: int | None, tmp_path: Path) -> None:
    if mode is not None:  # as data sets make it
        (tmp_path / "dsnn").mkdir()
        (tmp_path / "dsnn").chmod(mode)
    compiler, notes = counting(tmp_path / "bin")
    for _ in range(2):
        run(tmp_path, str(compiler), umask=0o002)
        assert len(notes.read_text()) == 10
    if mode is not None:
        assert (tmp_path / "dsnn").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("named", ["{}", "'{}' -m64", '"{}"', "/usr/bin/env '{}'"])
def test_reliability_25_a_compiler_in_a_folder_with_a_space(named: str, tmp_path: Path) -> None:
    compiler, notes = counting(tmp_path / "my tools")
    program = library._program(named.format(compiler))
    library._compiled(program, tmp_path, library.DECIDE)
    assert notes.read_text() == "x\n"


@pytest.mark.parametrize("named", ["  ", "'gcc", "no such compiler"])
def test_reliability_25_what_names_no_compiler_is_said(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", named)
    reason = library._problem.__wrapped__()
    assert reason is not None
    assert reason.startswith(f"{named} could not build them: ")
