"""Weights & Biases beside a run, never in its way.

Everything W&B does happens on one background thread fed by a queue: opening it takes a second or more, and a missing
network, a missing key, a crash or a full disk must cost a training run one sentence and nothing else. What is logged
also stands in the run directory's own files, so nothing is lost when W&B is. Nothing outside this
file touches W&B, which is why it holds all that is known of it.
"""

import contextlib
import importlib
import json
import netrc
import os
import queue
import secrets
import shlex
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from dsnn import store
from dsnn.store import offline, tensorboard, untrusted

__all__ = ["MODES", "TOOLS", "Track", "open_track", "settle"]

TOOLS = ("wandb", "tensorboard", "none")
MODES = ("auto", "offline", "online", "disabled")
PROJECT = "dsnn"
"""W&B project where neither the configuration nor the environment names one."""

OPENED, COMPLETE = "opened.json", "complete"
"""Files of the run directory's ``wandb/``: how the run was opened, and that its end has been told."""

_Job = Callable[[Any], None]


class Track:
    """A W&B run that accepts what it is given and returns at once.

    Attributes:
        run_id: The W&B run id, the same each time the run directory is opened; empty when tracking is disabled.
        warnings: The sentences this track has printed, in order.
        complete: Whether it has been told the end of a run that ended well, and has closed.
    """

    def __init__(
        self, directory: Path, run_id: str, open_run: Callable[[Callable[[str], None]], Any] | None, tool: str = "W&B"
    ) -> None:
        self.directory = directory
        self.run_id = run_id
        self.tool = tool
        self.warnings: list[str] = []
        self.complete = self._summed = self._failed = False
        self._jobs: queue.SimpleQueue[_Job | int] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if open_run is not None:
            self._thread = threading.Thread(target=self._work, args=(open_run,), name="dsnn-track", daemon=True)
            self._thread.start()

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Logs numbers at a training step; steps increase."""
        values = dict(metrics)
        self._put(lambda run: run.log(values, step=step))

    def summary(self, metrics: Mapping[str, Any]) -> None:
        """Sets the run's final numbers, such as those of ``metrics.json``."""
        values = dict(metrics)
        self._summed = True
        self._put(lambda run: run.summary(values))

    def figure(self, name: str, path: str | Path) -> None:
        """Logs a picture file; it is read when its turn comes, so it must stay where it is until `finish`."""
        self._put(lambda run: run.figure(name, path))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Logs a table, such as the bins of a reliability diagram."""
        columns, data = list(columns), [list(row) for row in rows]
        self._put(lambda run: run.table(name, columns, data))

    def artifact(self, name: str, path: str | Path, kind: str = "checkpoint") -> None:
        """Adds a file or folder as a versioned artifact."""
        self._put(lambda run: run.artifact(name, path, kind))

    def finish(self, exit_code: int = 0, timeout_s: float | int = 60) -> None:
        """Closes the W&B run as finished (0) or failed (anything else), waiting at most `timeout_s`. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._jobs.put(exit_code)
        thread.join(timeout_s)
        if thread.is_alive():
            self._warn(
                f"{self.tool} has not finished after {timeout_s:g} s and is left behind; send the rest with: "
                f"wandb sync --include-online {self._parts('*run')}"
            )
        elif not exit_code and self._summed and not self._failed and self.run_id:
            self.complete = True
            with contextlib.suppress(OSError):  # it is told once more then
                _store(self.directory, COMPLETE, self.run_id)

    @property
    def sync_hint(self) -> str:
        """The command that sends what was tracked offline; empty when nothing waits to be sent."""
        waiting = any(self.directory.glob(f"wandb/offline-run-*-{self.run_id}"))
        return f"wandb sync {self._parts('offline-run')}" if waiting else ""

    def _parts(self, kind: str) -> str:
        # A resumed run has one folder per start; the shell finds them all, and W&B sends them in order.
        return f"{shlex.quote(str(self.directory))}/wandb/{kind}-*-{self.run_id}"

    def _put(self, job: _Job) -> None:
        if self._thread is not None and self._thread.is_alive():
            self._jobs.put(job)

    def _warn(self, sentence: str) -> None:
        self.warnings.append(sentence)
        print(sentence, file=sys.stderr)

    def _work(self, open_run: Callable[[Callable[[str], None]], Any]) -> None:
        """Opens the run and works through the queue until told the exit code, or until W&B fails."""
        run = None
        with _using_wandb():
            try:
                _point_folders(self.directory / "wandb")
                run = open_run(self._warn)
                while not isinstance(job := self._jobs.get(), int):
                    job(run)
                run.finish(exit_code=job)
            except Exception as error:  # whatever W&B raises, training goes on
                self._failed = True
                here = f"the run goes on, and its files stay in {self.directory}"
                self._warn(f"{self.tool} tracking stopped ({_sentence(error)}); {here}.")
                if run is not None:
                    with contextlib.suppress(Exception):
                        run.finish(exit_code=1)


class WandbRun:
    """A W&B run as `Track` speaks to it.

    A process that is killed takes along what W&B had not written yet. The run's own history has it, and it is logged
    again before anything else is; what W&B has is not logged twice.
    """

    def __init__(self, run: Any, directory: Path, logged: Collection[int] = ()) -> None:
        self._run, self._directory = run, directory
        self._logged = set(logged) if run.offline else set()
        self._begins = 0 if run.offline else int(run.step)  # the server's next step
        self._caught_up = False

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Logs numbers by name at a step."""
        self._catch_up(step)
        if step >= self._begins and step not in self._logged:
            self._run.log(values, step=step)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Sets what the run ends with."""
        self._catch_up(None)
        self._run.summary.update(values)

    def _catch_up(self, before: int | None) -> None:
        if self._caught_up:
            return
        self._caught_up = True
        with contextlib.suppress(store.RunDirError):  # whoever goes on with the run says what is damaged
            for record in store.read_history(self._directory):
                step = int(record["step"])
                if before is None or step < before:
                    self.log(
                        {name: value for name, value in record.items() if value is not None and name != "step"}, step
                    )

    def figure(self, name: str, path: str | Path) -> None:
        """Logs the image in a file."""
        self._run.log({name: _wandb().Image(str(path))})

    def table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
        """Logs a table."""
        self._run.log({name: _wandb().Table(columns=columns, data=rows)})

    def artifact(self, name: str, path: str | Path, kind: str) -> None:
        """Keeps a file or a folder with the run, as it is now."""
        artifact = _wandb().Artifact(name, type=kind)
        add = artifact.add_dir if Path(path).is_dir() else artifact.add_file
        add(str(path), policy="immutable", skip_cache=True)
        self._run.log_artifact(artifact)

    def finish(self, exit_code: int) -> None:
        """Ends the run; a code other than 0 marks it as failed."""
        self._run.finish(exit_code=exit_code)


def open_track(
    directory: str | Path,
    *,
    tool: str = "wandb",
    mode: str = "auto",
    project: str = "",
    group: str | None = None,
    usual_group: str | None = None,
    name: str | None = None,
    tags: Sequence[str] = (),
    job_type: str | None = None,
    config: Mapping[str, Any] | None = None,
    run_id: str | None = None,
    system_metrics: bool = False,
) -> Track:
    """A track for the run in `directory`, usable at once; W&B opens behind it.

    The run id is kept in the run directory, so a resumed run continues the same W&B run. W&B's environment variables
    hold where the arguments are silent: WANDB_MODE, WANDB_PROJECT, WANDB_RUN_GROUP, WANDB_TAGS, WANDB_NAME, and, as an
    agent of a W&B sweep sets it, WANDB_RUN_ID.

    Args:
        directory: The run directory; W&B's files live in its ``wandb/``.
        tool: "wandb" (default), "tensorboard" (event files in the run directory's ``tensorboard/``) or "none".
        mode: W&B's: "offline" writes files for a later ``wandb sync``; "online" sends them and falls back to offline
            without a key or a network; "disabled" does nothing; "auto" (default) is the environment's, online for an
            agent of a sweep, and else offline.
        project: W&B project; empty is the environment's, else "dsnn".
        group: Runs that belong together, such as the jobs of a sweep.
        usual_group: Their group where nobody names one.
        name: Displayed name.
        tags: W&B tags.
        job_type: Such as "train" or "eval".
        config: The resolved configuration; the recorded environment is added to it.
        run_id: Overrides the stored or random id.
        system_metrics: Let W&B sample processor and accelerator use.
    """
    directory = Path(directory).absolute()
    if mode not in MODES:
        raise ValueError(f"track.wandb must be one of {', '.join(MODES)}, got {mode!r}.")
    if tool not in TOOLS:
        raise ValueError(f"track.tool must be one of {', '.join(TOOLS)}, got {tool!r}.")
    mode = _mode(mode)
    if tool == "none" or (tool == "wandb" and mode == "disabled"):
        return Track(directory, "", None)
    if tool == "tensorboard":
        return Track(directory, "", lambda warn: tensorboard.EventFiles(directory / "tensorboard"), "TensorBoard")
    here = os.environ
    run_id = run_id or _stored_id(directory) or here.get("WANDB_RUN_ID") or secrets.token_hex(4)
    group = group or here.get("WANDB_RUN_GROUP") or usual_group
    told = [tag.strip() for tag in here.get("WANDB_TAGS", "").split(",") if tag.strip()]
    config = {**(config or {}), "environment": store.read_environment(directory)}
    arguments: dict[str, Any] = {
        "project": project or here.get("WANDB_PROJECT") or PROJECT, "group": group,
        "name": here.get("WANDB_NAME") or name, "tags": [*tags, *told], "job_type": job_type,
        "config": config, "id": run_id, "dir": str(directory), "resume": "allow",
    }  # fmt: skip

    return Track(directory, run_id, _opening(directory, mode, arguments, system_metrics))


def _opening(
    directory: Path, mode: str, arguments: dict[str, Any], system_metrics: bool
) -> Callable[[Callable[[str], None]], WandbRun]:
    """Returns what opens a W&B run, and leaves in the run directory how that was done."""

    def open_run(warn: Callable[[str], None]) -> WandbRun:
        (directory / "wandb" / COMPLETE).unlink(missing_ok=True)
        _store(directory, ID, arguments["id"] + "\n")
        opened = {name: value for name, value in arguments.items() if name != "dir"}
        _store(directory, OPENED, json.dumps(opened | {"system_metrics": system_metrics}, default=str))
        run = _open(mode, arguments, system_metrics, warn)
        parts = directory.glob(f"wandb/*run-*-{arguments['id']}/*.wandb") if run.offline else ()
        logged = {step for part in parts for step in logged_steps(part)}
        return WandbRun(run, directory, logged)

    return open_run


def logged_steps(path: Path) -> set[int]:
    """Returns the steps at which a ``.wandb`` file holds history; none where it cannot be read."""
    # An optional library, whose messages are made while it is imported
    messages = importlib.import_module("wandb.proto.wandb_internal_pb2")
    unreadable = importlib.import_module("google.protobuf.message").DecodeError
    steps = set()
    with contextlib.suppress(unreadable):  # what was read so far was written
        for content in offline.records(path):
            record = messages.Record.FromString(content)
            if record.HasField("history"):
                steps.add(int(record.history.step.num))
    return steps


def settle(directory: str | Path, *, tool: str = "wandb", mode: str = "auto") -> Track | None:
    """Tells W&B the end of a finished run whose process was killed before it could; the track has ended.

    Args:
        directory: The run directory.
        tool: As of `open_track`.
        mode: As of `open_track`.

    Returns:
        The track, or None where W&B has been told, or never was to be, or another process is at it.
    """
    directory = Path(directory).absolute()
    folder = directory / "wandb"
    mode = _mode(mode)
    if tool != "wandb" or mode == "disabled" or not store.is_done(directory) or (folder / COMPLETE).exists():
        return None
    try:
        arguments = untrusted.json_object(folder / OPENED)
        with store.lock(directory):
            system_metrics = bool(arguments.pop("system_metrics", False))
            run_id = str(arguments["id"])
            opening = _opening(directory, mode, {**arguments, "dir": str(directory)}, system_metrics)
            track = Track(directory, run_id, opening)
            track.summary(store.read_metrics(directory))
            for figure in sorted((directory / "figures").glob("*.png")):
                track.figure(figure.stem, figure)
            track.finish()
            return track
    except (FileNotFoundError, KeyError, untrusted.UntrustedError, store.RunDirError):
        return None


def _mode(mode: str) -> str:
    """The mode that holds: the configuration's, else the environment's, else online for an agent and offline."""
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes"):
        return "disabled"
    said = {"dryrun": "offline", "run": "online", "shared": "online"}
    wanted = os.environ.get("WANDB_MODE", "")
    wanted = said.get(wanted, wanted)
    return wanted if wanted in MODES and wanted != "auto" else "online" if "WANDB_SWEEP_ID" in os.environ else "offline"


def _open(mode: str, arguments: dict[str, Any], system_metrics: bool, warn: Callable[[str], None]) -> Any:
    wandb = _wandb()

    def init(mode: str) -> Any:
        settings = wandb.Settings(
            silent=True, console="off", init_timeout=20.0, reinit="create_new", save_code=False, disable_git=True,
            x_disable_stats=not system_metrics, x_graphql_retry_max=3, x_graphql_timeout_seconds=10.0,
            x_file_stream_retry_max=5, x_file_transfer_retry_max=3,
        )  # fmt: skip
        return wandb.init(mode=mode, settings=settings, **arguments)

    kept = "the run is tracked offline, and its end says how to send it"
    if mode == "online" and not _has_key(wandb):
        warn(f"W&B has no API key (set one with: wandb login); {kept}.")
        return init("offline")
    if mode == "online" and (trouble := _unreachable(wandb.setup().settings.base_url)):
        warn(f"W&B cannot be reached ({trouble}); {kept}.")
        return init("offline")
    try:
        return init(mode)
    except Exception as error:
        if mode == "offline":
            raise
        if _users > 1:
            raise
        wandb.teardown()  # its service still holds the run id
        warn(f"W&B refused the run ({_sentence(error)}); {kept}.")
        return init("offline")


_service = threading.Lock()
_users = 0


@contextlib.contextmanager
def _using_wandb() -> Iterator[None]:
    """Counts the runs that W&B's service process works for, and ends it with the last one.

    Closing a run does not wait until its records are on the disk; ending the service does. A run of the same process
    that opens later starts a new one, which also serves where the old one has died.
    """
    global _users
    with _service:
        _users += 1
    try:
        yield
    finally:
        with _service:
            _users -= 1
            if _users == 0 and "wandb" in sys.modules:
                with contextlib.suppress(Exception):
                    _wandb().teardown()


def _wandb() -> Any:
    """The wandb package, imported where a run is opened: a disabled track need not spend the half second."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    return wandb


def _has_key(wandb: Any) -> bool:
    """Whether W&B would find credentials; without them it would ask on the terminal, under a running progress bar."""
    settings = wandb.setup().settings
    if settings.api_key or os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(settings.base_url).hostname or ""
    files = [Path(os.environ[name]) for name in ("NETRC",) if name in os.environ]
    for path in files or [Path.home() / ".netrc", Path.home() / "_netrc"]:
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            if netrc.netrc(str(path)).authenticators(host):
                return True
    return False


def _unreachable(base_url: str) -> str:
    """Why nothing answers at `base_url`; empty when something does. Asked first, because W&B itself waits 20 s."""
    try:
        with urllib.request.urlopen(base_url, timeout=8):
            return ""
    except urllib.error.HTTPError:
        return ""
    except (OSError, ValueError) as error:
        return _sentence(error.reason if isinstance(error, urllib.error.URLError) else error)


def _sentence(error: object) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:120]


ID = "run_id"


def _stored_id(directory: Path) -> str | None:
    try:
        return (directory / "wandb" / ID).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def _store(directory: Path, name: str, text: str) -> None:
    path = directory / "wandb" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{name}.tmp")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


_pointed: dict[str, str] = {}


def _point_folders(folder: Path) -> None:
    """Points W&B's cache and staging folders below the newest run directory, unless the user chose others.

    W&B takes these from the environment of the process alone. They are left as they are at the end of a run: another
    run of this process may still be using them.
    """
    for variable, name in (("WANDB_CACHE_DIR", "cache"), ("WANDB_DATA_DIR", "data")):
        if os.environ.get(variable) == _pointed.get(variable):
            _pointed[variable] = os.environ[variable] = str(folder / name)
