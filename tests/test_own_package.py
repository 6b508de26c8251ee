"""A user's package outside the repository: every piece of it by name, from the command line, in sweeps and searches."""

import html
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from dsnn import resolve, store
from dsnn.api import inference_data
from dsnn.report import write_report
from dsnn.run import schema
from dsnn.store import places

HERE = Path(__file__).parent / "own_package"
QUICK = ["track.tool=none", "run.report=false", "train.steps=3", "bayes.samples=2", "train.eval_every=1"]
CLOUDS = ["data=python", "data.source=ownlab.data:clouds", "data.options.n=64", "model.hidden=[8]", "train.epochs=2"]
PLAIN = [*CLOUDS, *QUICK, "baseline=none", "train.batch_size=16"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package and its configurations in a folder of their own, beside folders that are called like the house's."""
    root = tmp_path_factory.mktemp("lab")
    shutil.copytree(HERE / "src" / "ownlab", root / "ownlab")
    shutil.copytree(HERE / "conf", root / "own_conf")
    for name in ("experiments", "conf"):
        (root / name).mkdir()
        (root / name / "__init__.py").write_text("raise ImportError('this is the user\\'s own folder')\n")
    return root


def dsnn_run(place: Path, *words: str, code: int = 0, command: str = "run", **environment: str) -> str:
    """Runs the command in the user's folder, as an installed package would."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "dsnn", command, *words],
        cwd=place,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert "Traceback" not in said, said
    return said


def metrics(place: Path, name: str) -> dict:
    return json.loads((place / name / "metrics.json").read_text())


@pytest.fixture
def mine(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder as this process's own, whose names it may run."""
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    return place


LONGER = ["train.epochs=8", "optimizer.learning_rate=0.01"]

PIECES = {
    "cell": ["model.cell=ownlab.cells:QIF", "model.options.a=0.05"],
    "network": ["model.architecture=ownlab.nets:tapered", "model.architecture_options.width=12"],
    "norm": ["model.architecture=ownlab.norms:normed", *LONGER],
    "branches": ["model.architecture=ownlab.graphs:Branchy", *LONGER],
    "masked": ["model.architecture=ownlab.graphs:Masked", *LONGER],
    "unwired": ["model.architecture=ownlab.graphs:Unwired", *LONGER],
    "guide": ["bayes.guide=ownlab.guides:Shared", "bayes.options.width=0.05"],
    "numpyro": ["bayes.guide=AutoDiagonalNormal"],
    "gates": ["gates.family=ownlab.gates:SoftGates"],
    "learner": ["learner=ownlab.learn:SignDescent", "learner_options.rate=0.02", "model.noise=none"],
    "encoder": ["train.encoding=ownlab.data:repeated"],
    "transform": ["train.transform=ownlab.data:noisy"],
    "optimiser": ["optimizer.name=ownlab.learn:momentum", "optimizer.options.decay=0.5", "optimizer.accumulate=2"],
    "failing": ["metrics=[ownlab.watch:fails]"],
    "watched": ["metrics=[ownlab.watch:spikes_per_right_answer]", "callbacks=[ownlab.watch:never]"],
}


@pytest.mark.parametrize("piece", PIECES)
def test_every_piece_of_ones_own_runs_by_its_name(piece: str, mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dsnn.run import job

    config = schema.compose([*PLAIN, *PIECES[piece], f"run.dir={mine / piece}"])
    if piece == "failing":
        with pytest.raises(ValueError, match=r"ownlab\.watch:fails of metrics failed: KeyError: 'nothing'"):
            job.run(config)
        return
    directory, found = job.run(config)
    assert 0.4 <= found["test/accuracy"] <= 1
    assert store.is_done(directory)
    if piece == "cell":
        assert found["energy/priced_as_lif"] == "QIF"
        sentence = "Updates of QIF are priced as an LIF's"
        assert sentence in " ".join(capsys.readouterr().out.split())
        assert sentence in html.unescape(write_report(directory).read_text())
    if piece == "network":
        assert found["gates/wide/total"] == 12
        assert found["gates/narrow/total"] == 6
    if piece == "branches":
        assert found["gates/fast/total"] == found["gates/slow/total"] == 8
        assert found["compute/compaction_error"] == 0
        assert found["energy/45nm/snn_nj"] > 0
    if piece == "masked":
        sentence = "What is closed is masked, but stays in the network that runs, and its energy is counted with it"
        assert sentence in " ".join(capsys.readouterr().out.split())
        assert sentence in html.unescape(write_report(directory).read_text())
        assert found["compute/parameters_kept"] == found["compute/parameters"]
    if piece == "unwired":
        sentence = "Nothing is gated and no energy is counted: the network has no wiring()"
        said = " ".join(capsys.readouterr().out.split())
        assert "gates.enabled=false, since the network has no wiring()" in said
        assert sentence in said
        assert sentence in html.unescape(write_report(directory).read_text())
        assert not [name for name in found if name.startswith("gates/")]
    if piece == "watched":
        rate = found["compute/spike_rate"]
        assert found["own/spikes_per_right_answer"] == pytest.approx(rate / found["test/accuracy"])
        assert "own callback: 2 of 2" in capsys.readouterr().out


COUNTED = ["task=ownlab.tasks:Counts", "data=python", "data.source=ownlab.data:counts", *QUICK, "model.hidden=[8]"]
COUNTED += ["train.batch_size=16", "train.epochs=20", "optimizer.learning_rate=0.02"]


@pytest.mark.slow
def test_a_task_of_ones_own_runs_by_its_name(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ownlab.data import counts
    from ownlab.tasks import deviance

    from dsnn.run import job

    test = counts(None, 0, None).test.y
    constant = deviance(test.mean(), test)
    words = [*COUNTED, "baseline=full", "train.select=deviance", "train.eval_every=5", f"run.dir={mine / 'counted'}"]
    directory, found = job.run(schema.compose(words))
    assert store.is_done(directory)
    assert found["test/deviance"] < 0.6 * constant
    assert found["deployed/deviance"] < 0.75 * constant, "one pass at posterior means, sites closed"
    assert found["test/nll"] > 0
    assert found["deployed/steps_mean"] == found["compute/steps_total"] == 3
    assert found["gates/kept_fraction"] <= 1
    assert found["energy/45nm/snn_nj"] > 0
    assert not [name for name in found if name.startswith(("linear/", "twin/", "halting/", "conformal/"))]
    history = store.read_history(directory)
    assert found["selected/epoch"] == min(history, key=lambda record: record["val/deviance"])["step"]
    said = " ".join(capsys.readouterr().out.split())
    assert "task: ownlab.tasks:Counts runs all steps, without a temperature, a linear model, figures, " in said
    assert f"validation nll {history[-1]['val/nll']:.4g}" in said
    assert f"deviance {found['test/deviance']:.4g}" in said
    page = html.unescape(write_report(directory).read_text())
    assert "The scores are those of ownlab.tasks:Counts" in page
    assert ">deviance<" in page


@pytest.mark.slow
def test_the_barest_task_is_held_to_nothing_and_said_so(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dsnn.run import job

    words = [*COUNTED, "task=ownlab.tasks:Bare", "train.epochs=2", f"run.dir={mine / 'bare'}"]
    _, found = job.run(schema.compose(words))
    assert "test/deviance" in found
    assert not [name for name in found if name.startswith("deployed/") and name != "deployed/steps_mean"]
    said = " ".join(capsys.readouterr().out.split())
    assert "scores of the decided network (deployed), a choice of the epoch (best), an InferenceData (draw)." in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["task=ownlab.tasks:Conts"], "task names an attribute that ownlab.tasks has not, got 'Conts'; did you mean"),
        (["task=ownlab.cells:QIF"], "got a QIF without likelihood from ownlab.cells:QIF; see dsnn.protocols.Task"),
        (["task_options.mot=3"], "task=ownlab.tasks:Counts takes the options most, got 'mot'; did you mean 'most'?"),
        (["task_options.most=2"], "counts must be whole numbers from 0 to 2, got"),
        (
            ["train.select=nll"],
            "train.select must be one of last, deviance for targets of ownlab.tasks:Counts, got 'nll'",
        ),
        (["train.class_weight=balanced"], "balanced is for one class an example, counts has another task"),
        (["learner=fptt", "model.readout=last", "train.encoding=rate"], "are learned with learner=svi, map or nuts"),
        (["task=auto"], "need their task, got none"),
    ],
)
def test_what_is_no_task_of_these_counts_gets_a_sentence(words: list[str], sentence: str, mine: Path) -> None:
    from dsnn.assembly.assemble import build

    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence is looked for below
        build(schema.compose([*COUNTED, *words]))
    assert sentence in str(caught.value)


@pytest.mark.slow
def test_a_notebook_fits_a_task_of_its_own(mine: Path, tmp_path: Path) -> None:
    import numpy as np
    from ownlab.data import counts
    from ownlab.tasks import Counts, deviance

    import dsnn

    train, _, test = counts(None, 0, None)[:3]
    options = {"hidden": [8], "epochs": 20, "steps": 3, "learning_rate": 0.02}
    fitted = dsnn.fit(train.x, train.y, task="ownlab.tasks:Counts", patience=5, eval_every=4, **options)
    found = dsnn.predict(fitted, test.x, samples=4)
    assert Counts().scores(found, test.y)["deviance"] < 0.6 * deviance(test.y.mean(), test.y)
    assert fitted.linear is None
    fitted.save(tmp_path / "kept")
    np.testing.assert_array_equal(dsnn.predict(dsnn.load(tmp_path / "kept"), test.x, samples=4).rate, found.rate)
    one = dsnn.fit(train.x, train.y[:, 0], task=Counts(most=1e3), epochs=1, steps=3, hidden=[4])
    assert one.setup.task.task.most == 1e3
    with pytest.raises(ValueError, match="counts must be whole numbers from 0 to 1, got"):
        dsnn.fit(train.x, train.y, task=Counts, task_options={"most": 1}, **options)
    with pytest.raises(ValueError, match=r"uncertainty is split for one class an example, got targets of ownlab"):
        fitted.uncertainty(test.x)
    drawn, log_prob = inference_data.predicted(fitted.setup, fitted.params, "val", 5, jax.random.key(0))
    assert drawn.shape == (5, len(fitted.setup.split.val.y), 1)
    assert (drawn % 1 == 0).all()
    assert drawn.std() > 0
    assert (log_prob < 0).all()


def test_a_cell_that_says_what_it_costs_is_priced_by_it(mine: Path) -> None:
    from dsnn import energy
    from dsnn.assembly.assemble import build

    setup = build(schema.compose([*PLAIN, "model.cell=ownlab.cells:PricedQIF"]))
    cell = setup.bayesian.simulator.template.build(setup.bayesian.weights.initial).hidden0.cell
    kind = energy.priced_as(cell, "PricedQIF")
    assert energy.neuron_cost(kind) == (3, 1, 1, 1, True)
    assert kind in {group.kind for group in setup.sites.neurons}


def test_a_callback_ends_learning_and_all_is_assessed_and_kept(mine: Path) -> None:
    from dsnn.run import job

    words = [*PLAIN, "train.epochs=9", "callbacks=[ownlab.watch:after_two]", f"run.dir={mine / 'ended'}"]
    directory, found = job.run(schema.compose(words))
    assert store.is_done(directory)
    assert "test/accuracy" in found
    assert [record["step"] for record in store.read_history(directory)] == [1, 2]


def test_patience_ends_learning_where_nothing_gets_better(mine: Path) -> None:
    from dsnn.run import job

    words = [*PLAIN, "train.epochs=50", "train.patience=2", "train.select=nll", "optimizer.learning_rate=1e-9"]
    directory, _ = job.run(schema.compose([*words, f"run.dir={mine / 'patient'}"]))
    assert store.is_done(directory)
    assert len(store.read_history(directory)) < 50


@pytest.mark.slow
def test_from_the_command_line_beside_folders_of_the_repositorys_names(place: Path) -> None:
    dsnn_run(place, "--config-dir", "own_conf", "experiment=clouds", "run.dir=told", "--seed=3")
    found = metrics(place, "told")
    assert found["experiment"] == "clouds"
    assert found["seed"] == 3
    assert "energy/labchip/snn_nj" in found
    composed = dsnn_run(place, "--config-dir=own_conf", "--cfg", "job", "experiment=clouds")
    assert "cell: ownlab.cells:QIF" in composed
    assert "ours" in dsnn_run(place, "--help", command="reproduce", DSNN_CONFIG_DIR="own_conf")


@pytest.mark.slow
def test_in_a_sweep_of_two_workers_and_in_a_search(place: Path) -> None:
    parallel = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "run.root=swept"]
    said = dsnn_run(place, "--config-dir", "own_conf", "experiment=clouds", "seed=0,1", *parallel, command="sweep")
    assert "2 of 2 jobs are done" in said
    said = dsnn_run(place, "--config-dir", "own_conf", "search=rates", "root=searched", command="search")
    assert "2 done" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["model.cell=ownlab.cells:QIFF"],
            "an attribute that ownlab.cells has not, got 'QIFF'; did you mean 'QIF'?",
        ),
        (["model.cell=ownlab.cels:QIF"], "names a module that Python does not find, got 'ownlab.cels'"),
        (["model.cell=ownlab.cells:QIF", "model.options.b=1"], "takes the options a, leak, dt, peak, got 'b'"),
        (["model.cell=os:system"], "model.cell=os:system needs the options command"),
        (["model.cell=LIFF"], "model.cell must be one of"),
        (["model.architecture=ownlab.nets:taperd"], "did you mean 'tapered'?"),
        (
            ["model.architecture_options.width=3"],
            "architecture_options are for a network of the zoo or of one's own",
        ),
        (["gates.family=ownlab.cells:QIF"], "gates.family must have initial, posterior, base, decided"),
        (["learner=ownlab.learn:SignDescent", "learner_options.rat=1"], "did you mean 'rate'?"),
        (["data.options.m=3"], "takes the options n, features, got 'm'"),
        (["bayes.guide=ownlab.guides:Shared", "bayes.options.wide=1"], "did you mean 'width'?"),
        (["bayes.guide=ownlab.cells:QIF"], "bayes.guide must have prior, posterior, centre, constraints"),
        (["metrics=[nothing]"], "metrics must be package.module:attribute, got 'nothing'"),
    ],
)
def test_what_cannot_be_meant_gets_a_sentence(words: list[str], sentence: str, mine: Path) -> None:
    from dsnn.assembly.assemble import build

    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence is looked for below
        jax.eval_shape(build(schema.compose([*PLAIN, *words])).learner.init)
    assert sentence in str(caught.value)


def test_a_stored_name_is_not_run_without_trust(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "_trusted", set())
    with pytest.raises(ValueError, match="was not told to run, got 'os:system' from a stored configuration"):
        resolve.piece("model.cell", "os:system")
    resolve.trust("ownlab.cells:QIF")
    assert resolve.piece("model.cell", "ownlab.cells:QIF").__name__ == "QIF"


@pytest.mark.slow
def test_a_finished_run_names_pieces_that_need_trust_in_another_process(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dsnn.run import job
    from dsnn.run.finished import finished, options

    directory, _ = job.run(schema.compose([*PLAIN, "model.cell=ownlab.cells:QIF", f"run.dir={mine / 'stored'}"]))
    monkeypatch.setattr(resolve, "_trusted", set())
    monkeypatch.setattr(resolve, "_told", [])
    with pytest.raises(ValueError, match=r"was not told to run, got 'ownlab\.\w+:\w+'"):
        finished(directory)
    options([f"run={directory}", "trust=true"], {"run": "", "trust": "false"})
    setup = finished(directory).setup
    cell = setup.bayesian.simulator.template.build(setup.bayesian.weights.initial).hidden0.cell
    assert type(cell).__name__ == "QIF"


def test_a_name_of_ones_own_may_not_hide_one_of_dsnns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "digits.yaml").write_text("# @package _global_\n")
    monkeypatch.setenv(places.VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match="must be that of one file, got 'digits'"):
        places.files("experiment")
    monkeypatch.setenv(places.VARIABLE, str(tmp_path / "none"))
    with pytest.raises(ValueError, match="a configuration folder must exist"):
        places.own()


def test_what_is_not_found_says_where_ones_own_would_be(mine: Path) -> None:
    from dsnn.run import usage

    with pytest.raises(usage.UsageError, match="got 'qqq'; --config-dir DIR adds experiments of your own"):
        usage.check(["experiment=qqq"])
    with pytest.raises(usage.UsageError, match=r"data=python data.source=package.module:function"):
        usage.check(["data=ownlab.data:clouds"])


def test_a_notebooks_network_is_fitted_saved_and_put_to_use(mine: Path, tmp_path: Path) -> None:
    import numpy as np

    import dsnn

    y = np.arange(90) % 3
    x = (np.random.default_rng(0).normal(size=(90, 3, 4)) + y[:, None, None]).astype(np.float32)
    fitted = dsnn.fit(x, y, network="ownlab.graphs:Attention", baseline="none", epochs=2, steps=3)
    assert set(fitted.gates) == {"heads"}
    probs = dsnn.predict(fitted, x[:5]).probs
    fitted.save(tmp_path / "kept")
    loaded = dsnn.load(tmp_path / "kept", trust=True)
    np.testing.assert_array_equal(dsnn.predict(loaded, x[:5]).probs, probs)
    # for inputs as they come: the scaling is inside
    small, scaling = fitted.network(), fitted.scaling
    assert scaling is not None
    raw = dsnn.unroll(small, jax.numpy.asarray(x[:5]), steps=3)[0]
    bare = small.scaled(0.0, 1.0)
    np.testing.assert_allclose(raw, dsnn.unroll(bare, jax.numpy.asarray(scaling(x[:5])), steps=3)[0], atol=1e-3)


@pytest.mark.slow
def test_blocks_beside_a_shortcut_learn_are_gated_and_shrunk(mine: Path) -> None:
    import numpy as np

    import dsnn

    y = np.arange(60) % 3
    x = (np.random.default_rng(0).normal(size=(60, 4, 4, 2)) + y[:, None, None, None]).astype(np.float32)
    fitted = dsnn.fit(x, y, network="ownlab.graphs:widening", baseline="none", epochs=2, steps=3)
    assert {name: len(p) for name, p in fitted.gates.items()} == {
        "input": 2, "stem": 3, "block": 6, "block.body.first": 6, "residual": 1
    }  # fmt: skip
    assert "residual 1 of 1" in str(fitted)
    assert dsnn.predict(fitted, x[:4]).probs.shape == (4, 3)
