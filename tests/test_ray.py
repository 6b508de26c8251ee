"""A sweep on a Ray cluster, one of whose workers is killed; in an environment with the extra ``ray``."""

import os
import sys
from pathlib import Path

import pytest
from sweeping import finished, ran
from test_mesh import POINTS

from dsnn.run import ray_launcher

KILLER = """
import os
from pathlib import Path

def once(progress):
    mark = Path(__file__).with_name("killed")
    if progress.epoch >= 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), 9)
"""


def test_a_missing_library_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"needs Ray, which is not installed; pip install 'dsnn\[ray\]'"):
        ray_launcher._ray()


@pytest.mark.slow
def test_six_jobs_are_done_though_a_worker_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    (tmp_path / "killer.py").write_text(KILLER)
    said = ran(
        *("-m", *POINTS, "baseline=none", "seed=0,1,2,3,4,5", f"run.root={tmp_path / 'runs'}"),
        *(f"hydra.sweep.dir={tmp_path / 'multirun'}", "hydra/launcher=ray", "hydra.launcher.n_jobs=2"),
        "callbacks=[killer:once]",
        PYTHONPATH=os.pathsep.join([str(Path(__file__).parents[1]), str(tmp_path)]),
        RAY_worker_niceness="0",
    )
    assert (tmp_path / "killed").exists()
    assert said.count("the job is run again") == 1
    assert "6 of 6 jobs are done" in said
    assert len(finished(tmp_path / "runs")) == 6
