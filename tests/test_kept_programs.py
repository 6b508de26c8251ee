"""The folder of compiled programs: damage is repaired once, and what others put there is never touched."""

import os
import subprocess
import sys
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from dsnn.native import kept_programs, programs
from dsnn.store import private_folder

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)
KEY = "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    jax.clear_caches()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def entry(folder: Path, name: str, content: bytes = b"program") -> Path:
    path = folder / f"jit_{name}-{KEY}-cache"
    path.write_bytes(zlib.compress(content))
    return path


def compiled(folder: Path) -> list[Path]:
    """Programs of two functions, as JAX keeps them."""
    programs.use_cache(str(folder))
    jax.clear_caches()
    x = jnp.arange(3.0)
    for number in (1.5, 2.5):
        assert jax.jit(lambda x, number=number: x * number + 1)(x)[1] == number + 1
    return sorted(Path(jax.config.jax_compilation_cache_dir).glob("*-cache"))


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def garbled(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage", [zeroed, garbled, lambda path: os.truncate(path, 30), lambda path: os.truncate(path, 0)]
)
def test_reliability_25_damaged_programs_are_compiled_again_with_one_warning(
    damage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = compiled(tmp_path)
    for path in kept:
        damage(path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        again = compiled(tmp_path)
    assert [str(w.message) for w in said] == []
    assert [record.getMessage().split(" in ")[0] for record in caplog.records] == [f"{len(kept)} damaged programs"]
    assert again == kept
    caplog.clear()
    assert compiled(tmp_path) == kept
    assert kept_programs.repair(tmp_path) == 0
    assert not caplog.records


def test_reliability_25_what_a_loss_of_power_leaves_is_noticed_though_size_and_time_are_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = tmp_path / "boot"
    boot.write_text("one")
    folder = tmp_path / "kept"
    folder.mkdir()
    paths = [entry(folder, name) for name in "ab"]
    states = {
        path.name: [*tuple(next(e for e in kept_programs.entries(folder) if e.path == path))[1:]] for path in paths
    }
    monkeypatch.setattr(kept_programs, "BOOT", boot)
    read = []
    monkeypatch.setattr(
        kept_programs, "_unpacks", lambda data, real=kept_programs._unpacks: read.append(1) or real(data)
    )
    assert kept_programs.repair(folder) == 0
    assert len(read) == 2
    zeroed(paths[0])

    def as_noted(folder: Path, real=kept_programs.entries) -> Iterator[kept_programs.Entry]:
        return (kept_programs.Entry(e.path, *states[e.path.name]) for e in real(folder))

    monkeypatch.setattr(kept_programs, "entries", as_noted)
    monkeypatch.setattr(kept_programs, "_unchanged", lambda entry: True)
    assert kept_programs.repair(folder) == 0  # the machine ran on: nothing can have happened, and nothing is read
    assert len(read) == 2
    boot.write_text("two")
    assert kept_programs.repair(folder) == 1
    assert [path.exists() for path in paths] == [False, True]


def test_reliability_25_an_entry_that_another_process_is_writing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = entry(tmp_path, "late")
    whole = path.read_bytes()
    path.write_bytes(whole[:9])
    monkeypatch.setattr(kept_programs.time, "sleep", lambda seconds: path.write_bytes(whole))
    assert kept_programs.repair(tmp_path) == 0
    assert path.read_bytes() == whole


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"a": [1]}', '{"a": 3}', '{"a": ["b", 1, 1, "", ""]}'])
def test_reliability_25_damaged_notes_are_written_anew(text: str, tmp_path: Path) -> None:
    entry(tmp_path, "a")
    (tmp_path / kept_programs.NOTES).write_text(text)
    assert kept_programs.repair(tmp_path) == 0
    assert set(kept_programs._notes(tmp_path)) == {f"jit_a-{KEY}-cache"}


def test_reliability_3_only_the_oldest_programs_go_and_nothing_that_others_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "KEPT_BYTES", 50)
    own = {"thesis.tex": b"x" * 1000, "notes-cache": b"y" * 1000, "sub/data": b"z" * 1000}
    for name, content in own.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    programs.use_cache(str(tmp_path))
    inside = Path(jax.config.jax_compilation_cache_dir)
    assert inside.parent == tmp_path
    for age, name in enumerate(("new", "middle", "old")):
        path = entry(inside, name, os.urandom(14))
        os.utime(path, (1000 - age, 1000 - age))
    mine = inside / "thesis.tex"
    mine.write_bytes(b"x" * 1000)
    (inside / f"folder-{KEY}-cache").mkdir()
    programs.use_cache(str(tmp_path))
    assert Path(jax.config.jax_compilation_cache_dir) == inside  # also with something else in it
    assert sorted(path.name for path in inside.glob("jit*")) == [f"jit_{n}-{KEY}-cache" for n in ("middle", "new")]
    assert mine.stat().st_size == 1000
    for name, content in own.items():
        assert (tmp_path / name).read_bytes() == content


def test_reliability_3_a_folder_of_an_earlier_version_is_used_on(tmp_path: Path) -> None:
    path = entry(tmp_path, "old")
    programs.use_cache(str(tmp_path))
    assert jax.config.jax_compilation_cache_dir == str(tmp_path)
    assert path.exists()


def test_reliability_3_entries_that_vanish_fail_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [entry(tmp_path, name) for name in "abc"]
    gone = iter(paths)

    def vanishing(path: Path, real=Path.read_bytes) -> bytes:  # before each is read
        next(gone).unlink()
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", vanishing)
    assert kept_programs.repair(tmp_path) == 0
    monkeypatch.undo()
    listed = [kept_programs.Entry(path, 100, 1, 1) for path in paths]
    monkeypatch.setattr(kept_programs, "entries", lambda folder: iter(listed))
    kept_programs.prune(tmp_path, 0)


def test_reliability_3_a_folder_that_cannot_be_written_fails_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(**options: object) -> None:
        raise PermissionError("read-only file system")

    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setattr(kept_programs.tempfile, "TemporaryFile", refused)
    programs.use_cache(str(tmp_path / "new"))
    (tmp_path / "file").touch()
    programs.use_cache(str(tmp_path / "file"))
    assert jax.config.jax_compilation_cache_dir is None
    assert [r.getMessage().split(":")[0] for r in caplog.records] == ["compiled programs are not kept"] * 2


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no users")
def test_reliability_19_a_folder_that_others_can_write_to_holds_no_programs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    jax.config.update("jax_compilation_cache_dir", None)
    tmp_path.chmod(0o777)
    programs.use_cache(str(tmp_path))
    assert jax.config.jax_compilation_cache_dir is None
    assert "must be this user's" in caplog.text
    tmp_path.chmod(0o775)
    programs.use_cache(str(tmp_path))
    private = Path(jax.config.jax_compilation_cache_dir)
    assert private.parent == tmp_path
    assert private.stat().st_mode & 0o777 == 0o700
    assert tmp_path.stat().st_mode & 0o777 == 0o775, "what this program did not make keeps its mode"
    monkeypatch.setattr(private_folder.os, "getuid", lambda: 12345)
    with pytest.raises(PermissionError, match="must be this user's"):
        private_folder.private(tmp_path)


def test_reliability_19_under_a_umask_of_002_every_folder_is_private(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        programs.use_cache(str(tmp_path / "cache" / "programs"))
        made = private_folder.private(tmp_path / "cache")
    finally:
        os.umask(before)
    for folder in (Path(jax.config.jax_compilation_cache_dir), made):
        assert folder.stat().st_mode & 0o022 == 0


CLAIM = """
import os, tempfile
from pathlib import Path
from dsnn.run import devices
folder = Path(tempfile.gettempdir()) / f"dsnn-devices-{os.getuid()}"
folder.mkdir()
folder.chmod(0o777)
try:
    devices.claim(1)
except ValueError as error:
    print(error)
"""


def test_reliability_19_what_jobs_hold_is_not_said_in_a_folder_that_others_can_write_to(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "CUDA_VISIBLE_DEVICES": "0"}
    done = subprocess.run([sys.executable, "-c", CLAIM], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("compute.devices_per_job needs a folder of its own: ")


def test_the_folder_says_to_backups_what_it_is(tmp_path: Path) -> None:
    programs.use_cache(str(tmp_path / "new"))
    assert (tmp_path / "new" / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")


def test_reliability_25_many_new_entries_are_shared_among_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [entry(tmp_path, name) for name in "abcd"]
    assert kept_programs.repair(tmp_path) == 0
    late = [entry(tmp_path, name) for name in "efgh"]
    for path in (paths[3], late[0], late[3]):
        zeroed(path)
    monkeypatch.setattr(kept_programs, "MOST_S", 0.5)
    ticks = iter(range(100))
    monkeypatch.setattr(kept_programs.time, "monotonic", lambda: next(ticks) * 0.3)  # time for one entry a call
    found = [kept_programs.repair(tmp_path) for _ in range(6)]
    assert found[0] == 1  # one that has changed is looked at before new ones
    assert sum(found) == 3
    assert found[5] == 0
    assert len(kept_programs._notes(tmp_path)) == 5
