"""``dsnn run [experiment=NAME] [option=value ...]``, with ``-m`` to sweep values."""

import importlib.metadata
import os
import sys

import hydra

from dsnn import learn, store
from dsnn.run import launcher, peers, schema, signals, sweep_record, usage
from dsnn.run.console import console, sweep_table
from dsnn.run.task import COMMAND, SWEEP, failures, run, run_job, sentence, unrecorded
from dsnn.store import checkpoint, places

EXPECTED = (ValueError, store.RunDirError, checkpoint.CheckpointError, learn.TrainingError, OSError)


def main() -> int:
    """Runs or sweeps; returns the exit status."""
    return peers.left(_main())


@signals.heard()
def _main() -> int:
    from dsnn.run.job import Interrupted

    sweep, gave_up = None, False
    if "--version" in sys.argv[1:]:
        print(f"dsnn {importlib.metadata.version('dsnn')}, Hydra {hydra.__version__}")
        return 0
    try:
        if usage.wants_help():
            places.add(usage.read([a for a in sys.argv[1:] if a not in usage.HELP]).folders)
            usage.show_help()
            return 0
        words = usage.read(sys.argv[1:])
        places.add(words.folders)
        shows = any(flag in usage.SHOWING for flag in words.flags)
        overrides = words.overrides
        if "--hydra-help" in words.flags:  # of Hydra alone
            overrides = [override for override in overrides if override.startswith("hydra")]
        elif not {"-sc", "--shell-completion"} & {*words.flags}:  # whose words are none of ours
            usage.check(overrides)
            overrides = schema.completed(schema.last(overrides))
        path = schema.searchpath(words.packages)
        # flags before values, which Hydra's own parser insists on
        sys.argv[1:] = [*usage.for_hydra(words.flags), *(schema.appended(override) for override in overrides), *path]
        schema.register()
        if not shows and any(flag in ("-m", "--multirun") for flag in words.flags):
            sweep = sweep_record.record_file(schema.root(overrides), ["-m", *overrides])
            os.environ[SWEEP], os.environ[COMMAND] = str(sweep), sweep_record.begin(sweep)
        if not words.flags and not words.packages and not any(a.startswith("hydra") for a in overrides):
            run(schema.compose(overrides))
        else:
            gave_up = _launch()
        if failures:
            raise failures[0]
    except Interrupted as stop:
        console.print(str(stop))
        return stop.exit_code
    except KeyboardInterrupt:
        if failures and isinstance(failures[0], Interrupted):
            console.print(str(failures[0]))
            return failures[0].exit_code
        console.print("stopped at once; the last checkpoint stands, and the same command goes on from it.")
        return 130
    except EXPECTED as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        return 1
    if sweep is None:
        return 0
    if lost := sweep_record.damaged(sweep):
        console.print(f"{lost} damaged lines of {sweep} are passed over.", markup=False)
    jobs = sweep_record.jobs(sweep, os.environ[COMMAND])
    sweep_table(jobs)
    try:
        if front := sweep_record.draw_front(jobs, sweep.with_suffix(".png")):
            console.print(f"accuracy over energy: {front}", markup=False)
    except OSError as error:  # of the picture alone: the jobs are what they are
        console.print(f"accuracy over energy could not be drawn: {sentence(error)}", markup=False)
    failed = [job for job in jobs if job["status"] != "done"]
    console.print(f"{len(jobs) - len(failed)} of {len(jobs)} jobs are done; all of them are in {sweep}.")
    return int(bool(failed or unrecorded) or gave_up or not jobs)


def _launch() -> bool:
    """Gives the jobs to Hydra's launcher; returns whether it gave up, and the record then says what became of each."""
    launcher.install()
    try:
        hydra.main(config_path=str(places.CONF), config_name="config", version_base="1.3")(run_job)()
    except SystemExit as end:
        if SWEEP not in os.environ or not end.code:
            raise
        print("error: the launcher gave up; the same command goes on with what is left.", file=sys.stderr)
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
