"""The door: ``python -m experiments.run [experiment=NAME] [option=value ...]``, with ``-m`` to sweep values."""

import os
import sys
from pathlib import Path

import hydra

from dsnn import checkpoint, rundir, train
from experiments import door, schema, sweeps
from experiments.console import console, sweep_table
from experiments.task import SWEEP, failures, run_job, sentence

EXPECTED = (ValueError, rundir.RunDirError, checkpoint.CheckpointError, train.TrainingError, OSError)


def main() -> int:
    """Runs or sweeps; returns the exit status."""
    from experiments.job import Interrupted

    if door.wants_help():
        door.show_help()
        return 0
    sweep, gave_up = None, False
    try:
        # options before values, which Hydra's own parser insists on
        sys.argv[1:] = sorted(sys.argv[1:], key=lambda a: not a.startswith("-"))
        door.check(sys.argv[1:])
        sys.argv[1:] = [schema.appended(argument) for argument in schema.completed(sys.argv[1:])]
        schema.register()
        if any(a in ("-m", "--multirun") for a in sys.argv[1:]):
            sweep = sweeps.record_file(Path(_option("run.root", "outputs")).absolute(), sys.argv[1:])
            sweep.parent.mkdir(parents=True, exist_ok=True)
            os.environ[SWEEP] = str(sweep)
        if all(not a.startswith(("-", "hydra")) for a in sys.argv[1:]):
            from experiments import job

            job.run(schema.compose(sys.argv[1:]))
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
    jobs = sweeps.jobs(sweep)
    sweep_table(jobs)
    if front := sweeps.draw_front(jobs, sweep.with_suffix(".png")):
        console.print(f"accuracy over energy: {front}", markup=False)
    failed = [job for job in jobs if job["status"] != "done"]
    console.print(f"{len(jobs) - len(failed)} of {len(jobs)} jobs are done; all of them are in {sweep}.")
    return int(bool(failed) or gave_up or not jobs)


def _launch() -> bool:
    """Gives the jobs to Hydra's launcher; returns whether it gave up, and the record then says what became of each."""
    try:
        hydra.main(config_path=str(schema.CONF), config_name="config", version_base="1.3")(run_job)()
    except SystemExit as end:
        if SWEEP not in os.environ or not end.code:
            raise
        print("error: the launcher gave up; the same command goes on with what is left.", file=sys.stderr)
        return True
    return False


def _option(name: str, default: str) -> str:
    return next((a.split("=", 1)[1] for a in sys.argv[1:] if a.startswith(f"{name}=")), default)


if __name__ == "__main__":
    sys.exit(main())
