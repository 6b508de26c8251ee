"""The two commands: what they install, when, and what they pass on. A stub stands for Python: no network is needed."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from dsnn.run import schema

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ["3.11", "3.12", "3.13"]
LOCKS = [f"requirements-{python}.lock" for python in PYTHONS]

# Plays every part of Python that the scripts call, and writes each call down.
STUB = r"""#!/usr/bin/env bash
echo "${0##*/} $*" >> "$STUB_LOG"
case "$1 $2 ${3:-}" in
    "-c import sys"*)
        [ "${0##*/}" != "${STUB_SHIM:-}" ] || [[ "$0" = */versions/* ]] || exit 127
        case "$0" in
            */python3.*) found="${0##*/python}" ;;
            */python3) found="${STUB_PYTHON3:-3.11}" ;;
            *) read -r _ _ found <"${0%/bin/*}/pyvenv.cfg" ;;
        esac
        echo "${STUB_OLD:-$found}" ;;
    "-c import pip"* | "-m ensurepip"*) exit "${STUB_NO_PIP:-0}" ;;
    "-m venv --clear")
        rm -rf "$4" && mkdir -p "$4/bin" && cp "$0" "$4/bin/python"
        echo "version = $("$0" -c "import sys")" >"$4/pyvenv.cfg"
        exit "${STUB_VENV:-0}" ;;
    "-m pip "*) [ "${STUB_PIP:-0}" = 0 ] || { echo "pip: no network" >&2; exit 1; } ;;
    "-m ruff check") exit "${STUB_RUFF:-0}" ;;
    "-m mypy "*) exit "${STUB_MYPY:-0}" ;;
    "-P -m dsnn")
        shift 4
        printf '<%s>' "$@"
        [ "${1:-}" != wait ] || exec sleep 60
        exit "${STUB_RUN:-0}" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout with the real scripts, in a folder whose name needs quoting, on a PATH where python3 is the stub."""
    root = tmp_path / "a checkout"
    (root / "scripts").mkdir(parents=True)
    for name in ("scripts/run.sh", "scripts/test.sh", "scripts/setup.sh", "pyproject.toml", *LOCKS):
        shutil.copy(ROOT / name, root / name)
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for tool in ("bash", "cat", "cksum", "cp", "dirname", "mkdir", "rm", "sleep"):
        (binaries / tool).symlink_to(shutil.which(tool))
    stub(binaries / "python3")
    return root


def stub(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(STUB)
    path.chmod(0o755)
    return path


def start(root, script, *arguments, **environment):
    return subprocess.Popen(
        ["bash", str(root / "scripts" / script), *arguments],
        env={
            "PATH": str(root.parent / "bin"),
            "HOME": str(root.parent),
            "STUB_LOG": str(root.parent / "log"),
            **environment,
        },
        cwd=root.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def call(root, script, *arguments, **environment):
    process = start(root, script, *arguments, **environment)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def calls(root):
    log = root.parent / "log"
    return log.read_text().splitlines() if log.exists() else []


def installations(root):
    return [line for line in calls(root) if "pip install" in line]


def test_first_call_installs_at_locked_versions_and_the_second_does_not(checkout):
    assert call(checkout, "run.sh")[0] == 0
    (line,) = installations(checkout)
    assert f"-c {checkout}/requirements-3.11.lock" in line
    assert f"-e {checkout}[sweep]" in line
    before = len(calls(checkout))
    assert call(checkout, "run.sh")[0] == 0
    assert calls(checkout)[before:] == ["python -P -m dsnn run"]


def test_second_call_adds_less_than_a_third_of_a_second(checkout):
    call(checkout, "run.sh")
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        call(checkout, "run.sh")
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.3


def test_arguments_arrive_as_given_and_the_exit_code_comes_back(checkout):
    arguments = ["experiment=digits", "data.path=my file.npz", "seed=0,1", "x='[1, 2]'", "*", ""]
    code, out, _ = call(checkout, "run.sh", *arguments, STUB_RUN="7")
    assert code == 7
    assert out == "".join(f"<{argument}>" for argument in arguments)


def test_a_signal_reaches_the_run_itself(checkout):
    call(checkout, "run.sh")
    process = start(checkout, "run.sh", "wait")
    while process.stdout.read(1) != ">":
        pass
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == -signal.SIGTERM
    process.communicate(timeout=10)  # nobody else holds the pipe


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements-3.11.lock", ".venv/pyvenv.cfg"])
def test_a_changed_requirement_installs_again(checkout, name):
    call(checkout, "run.sh")
    with (checkout / name).open("a") as file:
        file.write("# changed\n")
    call(checkout, "run.sh")
    assert len(installations(checkout)) == 2


def test_a_moved_checkout_installs_again(checkout):
    call(checkout, "run.sh")
    moved = checkout.rename(checkout.with_name("elsewhere"))
    assert call(moved, "run.sh")[0] == 0
    assert len(installations(moved)) == 2


def test_more_extras_are_installed_on_request(checkout):
    call(checkout, "run.sh")
    call(checkout, "run.sh", DSNN_EXTRAS="cuda,carbon")
    assert "[sweep,cuda,carbon]" in installations(checkout)[-1]


def test_a_failed_installation_says_so_and_is_tried_again(checkout):
    code, out, err = call(checkout, "run.sh", STUB_PIP="1")
    assert code != 0
    assert out == ""
    assert "pip: no network" in err
    assert "the installation failed" in err
    assert call(checkout, "run.sh")[0] == 0
    assert len(installations(checkout)) == 2


def test_an_environment_without_its_python_is_made_again(checkout):
    call(checkout, "run.sh")
    (checkout / ".venv/bin/python").unlink()
    (checkout / ".venv/bin/python").symlink_to("/nonexistent/python")
    assert call(checkout, "run.sh")[0] == 0
    assert sum("-m venv" in line for line in calls(checkout)) == 2


def test_an_environment_without_pip_is_made_again(checkout):
    def attempts():
        return [call.split()[2] for call in calls(checkout) if call.split()[2] in {"ensurepip", "venv"}]

    call(checkout, "run.sh")
    assert attempts() == ["venv"]
    (checkout / ".venv/dsnn-sweep.stamp").unlink()
    call(checkout, "run.sh")
    assert attempts() == ["venv"]
    (checkout / ".venv/dsnn-sweep.stamp").unlink()
    assert call(checkout, "run.sh", STUB_NO_PIP="1")[0] == 0
    assert attempts() == ["venv", "ensurepip", "venv"]


def test_without_a_recent_python_there_is_a_sentence(checkout):
    code, _, err = call(checkout, "run.sh", STUB_OLD="3.10")
    assert code != 0
    assert err.strip().startswith("dsnn: no Python 3.11 or newer was found; install one")


def test_without_the_venv_module_there_is_a_sentence(checkout):
    code, _, err = call(checkout, "run.sh", STUB_VENV="1")
    assert code != 0
    assert "install the package python3-venv" in err


def test_uv_is_used_when_installed_and_pip_when_uv_fails(checkout):
    uv = checkout.parent / "bin" / "uv"
    uv.write_text('#!/usr/bin/env bash\necho "uv $*" >> "$STUB_LOG"\nexit "${STUB_UV:-0}"\n')
    uv.chmod(0o755)
    assert call(checkout, "run.sh")[0] == 0
    assert [line.split()[0] for line in installations(checkout)] == ["uv"]
    assert f"--python {checkout}/.venv/bin/python -c {checkout}/requirements-3.11.lock" in installations(checkout)[0]
    with (checkout / "requirements-3.11.lock").open("a") as file:
        file.write("# changed\n")
    assert call(checkout, "run.sh", STUB_UV="1")[0] == 0
    assert [line.split()[0] for line in installations(checkout)] == ["uv", "uv", "python"]


def made(root):
    """Returns the interpreters that environments were made with, and where."""
    return [(line.split()[0], line.rsplit("/", 1)[1]) for line in calls(root) if "-m venv" in line]


@pytest.mark.parametrize("python", PYTHONS)
def test_each_python_takes_its_own_lock(checkout, python):
    assert call(checkout, "run.sh", STUB_PYTHON3=python)[0] == 0
    assert f"-c {checkout}/requirements-{python}.lock" in installations(checkout)[0]


def test_a_python_newer_than_every_lock_takes_the_newest_and_says_so(checkout):
    code, _, err = call(checkout, "run.sh", STUB_PYTHON3="3.19")
    assert code == 0
    assert f"-c {checkout}/requirements-3.13.lock" in installations(checkout)[0]
    assert "dsnn: Python 3.19 has no lock file yet; taking that of 3.13 (PYTHON=python3.13 is what was tried).\n" in err


def test_the_python_asked_for_makes_the_environment_anew_and_is_kept(checkout):
    stub(checkout.parent / "bin/python3.13")
    call(checkout, "run.sh")
    assert call(checkout, "run.sh", PYTHON="python3.13")[0] == 0
    assert made(checkout) == [("python3", ".venv"), ("python3.13", ".venv")]
    assert f"-c {checkout}/requirements-3.13.lock" in installations(checkout)[-1]
    before = len(calls(checkout))
    call(checkout, "run.sh")
    assert calls(checkout)[before:] == ["python -P -m dsnn run"]
    call(checkout, "run.sh", PYTHON=str(checkout.parent / "bin/python3.13"))
    assert len(installations(checkout)) == 2


def test_what_is_run_does_not_inherit_the_wish_for_a_python(checkout):
    call(checkout, "run.sh")
    python = checkout / ".venv/bin/python"
    python.write_text(STUB.replace("shift 4", 'echo "PYTHON=${PYTHON:-}"'))
    assert call(checkout, "run.sh", PYTHON="python3")[1].startswith("PYTHON=\n")


def test_the_python_asked_for_is_found_behind_a_shim_that_does_not_run(checkout):
    stub(checkout.parent / "bin/python3.12")
    stub(checkout.parent / ".pyenv/versions/3.12.1/bin/python3.12")
    assert call(checkout, "run.sh", PYTHON="python3.12", STUB_SHIM="python3.12")[0] == 0
    assert made(checkout) == [("python3.12", ".venv")]
    assert f"-c {checkout}/requirements-3.12.lock" in installations(checkout)[0]


@pytest.mark.parametrize("wish", ["python3.13", "/nonexistent/python"])
def test_a_python_that_does_not_run_is_refused_in_a_sentence(checkout, wish):
    code, out, err = call(checkout, "run.sh", PYTHON=wish)
    assert code != 0
    assert out == ""
    assert err == (
        f"dsnn: PYTHON must name a Python 3.11 or newer that runs, got {wish}; write PYTHON=python3.13, or its path.\n"
    )
    assert made(checkout) == []


def test_a_python3_without_a_lock_gives_way_to_the_newest_that_has_one(checkout):
    for name in ("python3.11", "python3.12"):
        stub(checkout.parent / "bin" / name)
    assert call(checkout, "run.sh", STUB_PYTHON3="3.19")[0] == 0
    assert made(checkout) == [("python3.12", ".venv")]


def test_the_checks_run_in_order_and_pytest_gets_the_arguments(checkout):
    code, _, _ = call(checkout, "test.sh", "-k", "some name", "tests/test_cells.py")
    assert code == 0
    assert "[dev,sweep,nir,data]" in installations(checkout)[0]
    done = [line for line in calls(checkout) if re.match(r"python -m (ruff|mypy|pytest)", line)]
    assert [line.split()[2:4] for line in done[:2]] == [["ruff", "check"], ["ruff", "format"]]
    assert done[2] == "python -m mypy"
    assert done[3].startswith("python -m pytest")
    assert done[3].endswith("-k some name tests/test_cells.py")


def test_a_failing_check_is_named_and_the_others_still_run(checkout):
    code, _, err = call(checkout, "test.sh", STUB_RUFF="1", STUB_MYPY="1")
    assert code != 0
    assert err.splitlines()[-1] == "dsnn: failed: ruff check, mypy."
    assert any(line.startswith("python -m pytest") for line in calls(checkout))


def passes_of_pytest(root):
    return [line for line in calls(root) if line.startswith("python -m pytest")]


def test_a_quick_part_runs_on_the_newest_python_in_an_environment_of_its_own(checkout):
    for version in ("3.9.1", "3.12.1", "3.13.0"):
        stub(checkout.parent / f".pyenv/versions/{version}/bin/python{version.rpartition('.')[0]}")
    assert call(checkout, "test.sh")[0] == 0
    assert made(checkout) == [("python3", ".venv"), ("python3.13", ".venv-3.13")]
    assert f"-c {checkout}/requirements-3.13.lock" in installations(checkout)[1]
    whole, quick = passes_of_pytest(checkout)
    files = re.findall(r"tests/test_\w+\.py", quick)
    assert "tests/test_imports.py" in files
    assert [name for name in files if not (ROOT / name).is_file()] == []
    assert "tests/test_" not in whole
    call(checkout, "test.sh", "-k", "lif")  # whoever asks for some tests gets those alone
    assert len(passes_of_pytest(checkout)) == 3


def test_a_newest_python_that_cannot_be_set_up_is_a_failed_check(checkout):
    call(checkout, "test.sh")
    stub(checkout.parent / "bin/python3.13")
    code, _, err = call(checkout, "test.sh", STUB_PIP="1")
    assert code != 0
    assert err.splitlines()[-1] == "dsnn: failed: pytest on Python 3.13."


def test_where_no_python_is_newer_one_line_says_so(checkout):
    stub(checkout.parent / "bin/python3.12")
    code, _, err = call(checkout, "test.sh", STUB_PYTHON3="3.13")
    assert code == 0
    assert err.splitlines()[-1] == "dsnn: no Python newer than 3.13 was found; the tests ran on that one alone."
    assert len(passes_of_pytest(checkout)) == 1


@pytest.mark.parametrize("present", [True, False])
def test_ci_calls_the_tests_and_names_the_data_that_lie_beside_the_checkout(checkout, present):
    text = (ROOT / ".ci/run").read_text()
    (relative,) = set(re.findall(r"\.\./[\w/]+", text))
    (checkout / ".ci").mkdir()
    (checkout / ".ci/run").write_text(text)
    (checkout / "scripts/test.sh").write_text('echo "data=${DSNN_DATA:-}"\n')
    if present:
        (checkout / relative).mkdir(parents=True)
    command = ["bash", str(checkout / ".ci/run")]
    environment = {"PATH": os.environ["PATH"]}
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    expected = str((checkout / relative).resolve()) if present else ""
    assert out == f"data={expected}\n"


# --- the locks


def lock(python) -> dict[str, Version]:
    lines = (ROOT / f"requirements-{python}.lock").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[A-Za-z0-9.]+", pin) for pin in pins), "name==version and nothing else"
    names = [pin.split("==")[0] for pin in pins]
    assert names == sorted(set(names))
    return {name: Version(pin.split("==")[1]) for name, pin in zip(names, pins, strict=True)}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_supported_python_has_a_lock_and_a_classifier():
    assert sorted(path.name for path in ROOT.glob("requirements*.lock")) == LOCKS
    known = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in project()["classifiers"]]
    assert [match[1] for match in known if match] == PYTHONS


@pytest.mark.parametrize("group", ["", "sweep", "dev", "nir", "data", "carbon", "docs"])
@pytest.mark.parametrize("python", PYTHONS)
def test_lock_satisfies_what_the_project_asks_for(python, group):
    pins = lock(python)
    wanted = project()["optional-dependencies"][group] if group else project()["dependencies"]
    for text in wanted:
        requirement = Requirement(text)
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, text


@pytest.mark.parametrize("python", PYTHONS)
def test_lock_names_everything_that_the_two_commands_install(python):
    """Follows the requirements of the installed distributions: one left out would be installed at any version."""
    pins = lock(python)
    environment = {**default_environment(), "python_version": python, "python_full_version": f"{python}.0"}
    extras = project()["optional-dependencies"]
    queue = [
        Requirement(text)
        for text in [*project()["dependencies"], *extras["sweep"], *extras["dev"], *extras["nir"], *extras["data"]]
    ]
    seen = set()
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        if (name, *requirement.extras) in seen:
            continue
        seen.add((name, *requirement.extras))
        assert name in pins, f"requirements-{python}.lock lacks {name}"
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # an extra that this environment was not given
        for child in map(Requirement, requires):
            markers = [{**environment, "extra": extra} for extra in ("", *requirement.extras)]
            if child.marker is None or any(child.marker.evaluate(marker) for marker in markers):
                queue.append(child)


def test_every_public_name_has_a_docstring() -> None:
    """What the documentation asks for, without building it."""
    spec = importlib.util.spec_from_file_location("docs", ROOT / "scripts" / "docs.py")
    assert spec is not None
    assert spec.loader is not None
    docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(docs)
    assert [f"{name}: {what}" for name, file in docs.modules() for what in docs.undocumented(file.read_text())] == []
    assert list(docs.undocumented('"""A module."""\nclass A:\n    """A class."""\n    def b(self): ...\n')) == ["A.b"]


def test_pods_of_the_job_are_the_processes_of_one_run() -> None:
    service, job = yaml.safe_load_all((ROOT / "scripts" / "kubernetes.yaml").read_text())
    spec, name = job["spec"], job["metadata"]["name"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    options = dict(word.split("=", 1) for word in container["args"])
    assert container["command"] == ["dsnn", "run"]
    assert spec["completionMode"] == "Indexed"
    assert options.pop("compute.process") == f"$({container['env'][0]['name']})"
    words = [f"{option}={value}" for option, value in options.items()]
    for process in range(spec["completions"]):
        compute = schema.compose([*words, f"compute.process={process}"]).compute
        assert spec["parallelism"] == spec["completions"] == compute.processes
        assert compute.coordinator == f"{name}-0.{service['metadata']['name']}:1234"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"].items() <= spec["template"]["metadata"]["labels"].items()
    assert service["spec"]["clusterIP"] == "None"
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert options["run.root"] == mounts[pod["volumes"][0]["name"]]
