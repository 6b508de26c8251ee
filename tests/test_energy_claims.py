"""Published claims are recomputed within their tolerance, and the checker can say no."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
import yaml

from dsnn.run import reproduce
from dsnn.run.claims import FUNCTIONS, evaluate_claim
from dsnn.store import places

ROOT = Path(__file__).resolve().parents[1]
MINE = ["openai2018", "patterson2021", "strubell2019", "yan2024"]


@pytest.mark.parametrize("name", MINE)
def test_every_claim_of_the_paper_holds(name, capsys, tmp_path):
    assert reproduce.main([f"paper={name}", f"studies={tmp_path}"]) == 0
    assert "OUTSIDE" not in (tmp_path / f"{name}.md").read_text()
    shown = capsys.readouterr().out
    assert "OUTSIDE" not in shown
    assert "What the press got wrong" in shown


def test_acceptance_cells_are_among_the_claims():
    def targets(name):
        return [(c.target, c.tolerance) for c in reproduce.read_paper(places.file("paper", name)).claims]

    strubell = dict(targets("strubell2019"))
    for cell in (27, 201, 275, 1507, 656347, 26, 192, 262, 1438, 626155):
        assert strubell[cell] == 0.5  # half a unit of the printed figure
    assert {15.2, 3.2, 88, 18.7} <= {target for target, tolerance in targets("patterson2021") if tolerance == "1%"}
    yan = [target for target, tolerance in targets("yan2024") if tolerance == 0.005]
    assert yan == [7.50, 6.25, 5.36, 6.25, 5.56, 5.00, 5.99]


def write(tmp_path, monkeypatch, **claim):
    entry = {"claim": "one half", "target": 0.5, "tolerance": 0.01, "source": "nowhere"} | claim
    monkeypatch.setenv(places.VARIABLE, str(tmp_path))
    (tmp_path / "paper").mkdir(exist_ok=True)
    content = {"title": "A paper", "source": "A journal", "claims": [entry]}
    (tmp_path / "paper" / "made.yaml").write_text(yaml.safe_dump(content))


@pytest.mark.parametrize(("of", "status"), [(1.0, 0), (1.019, 0), (1.021, 1), (0.979, 1), (1e400, 1)])
def test_exit_status_says_whether_a_claim_fell_outside(tmp_path, monkeypatch, capsys, of, status):
    write(tmp_path, monkeypatch, compute={"function": "ratio", "of": of, "to": 2})
    assert reproduce.main(["paper=made", f"studies={tmp_path}"]) == status
    assert ("OUTSIDE" in capsys.readouterr().out) == bool(status)


def test_a_percentage_is_of_the_target():
    claim = reproduce.Claim("c", 200, "1%", "s", compute={"function": "ratio"})
    assert claim.allowed == 2
    assert claim.holds(198)
    assert not claim.holds(197.9)
    assert not claim.holds(float("nan"))


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({}, "must have either compute or run, got both or neither"),
        ({"compute": {"function": "ratio"}, "run": ["a=b"], "metric": "m"}, "got both or neither"),
        ({"run": ["experiment=digits"]}, "must name the metric of its run"),
        ({"compute": {"function": "eval", "of": 1}}, "got 'eval'; they are"),
        ({"compute": {"function": "ratios", "of": 1, "to": 2}}, "did you mean 'ratio'"),
        ({"compute": {"function": "ratio", "of": 1}}, "ratio takes of, to, but missing a required argument: 'to'"),
        ({"compute": {"function": "ratio", "of": 1, "to": 0}}, "ratio cannot be worked out"),
        ({"compute": {"function": "ratio", "of": 1, "to": 2}, "tolerance": "one"}, "tolerance must be a number"),
        ({"compute": {"function": "ratio", "of": 1, "to": 2}, "tolerance": -1}, "tolerance must be a number"),
        ({"compute": {"function": "ratio", "of": 1, "to": 2}, "target": "5"}, "target must be a finite number"),
        ({"compute": {"function": "ratio", "of": 1, "to": 2}, "colour": 1}, "unknown entry 'colour'"),
        ({"compute": {"function": "ratio", "of": 1, "to": 2}, "source": None}, ""),
    ],
)
def test_claims_that_cannot_be_meant_stop_with_a_sentence(tmp_path, monkeypatch, capsys, claim, message):
    write(tmp_path, monkeypatch, **claim)
    status = reproduce.main(["paper=made", f"studies={tmp_path}"])
    shown = capsys.readouterr().err
    if message:
        assert (status, message in shown, shown.count("\n")) == (2, True, 1), shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["paper=strubel2019"], "did you mean 'strubell2019'?"),
        ([], "paper must be one of"),
        (
            ["strubell2019"],
            "An option must be one of paper, root, seeds, fast, studies (name=value), got 'strubell2019'",
        ),
        (["papre=strubell2019"], "got 'papre=strubell2019'"),
        (["paper=strubell2019", "seeds=0"], "seeds must be a number from 1"),
    ],
)
def test_a_mistyped_call_stops_with_a_sentence(capsys, arguments, message):
    assert reproduce.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_nested_call_is_worked_out_first():
    nested = {
        "function": "ratio",
        "of": {"function": "mean", "values": [2, {"function": "ratio", "of": 8, "to": 2}]},
        "to": 2,
    }
    assert evaluate_claim(nested) == 1.5


def test_doubling_time_of_exact_doublings():
    points = [[f"20{12 + i}-01-01", 2.0**i * 7] for i in range(5)]  # doubling every year
    assert evaluate_claim({"function": "doubling_months", "points": points}) == pytest.approx(12.0, rel=1e-3)


def test_every_function_states_what_it_returns():
    assert all(function.__doc__ and function.__name__ == name for name, function in FUNCTIONS.items())


def test_a_claim_about_a_run_is_read_from_its_metrics(tmp_path, monkeypatch, capsys):
    """A stand-in for experiments.run that notes its call and writes metrics: the same run serves two claims."""
    package = tmp_path / "experiments"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "run.py").write_text(
        "import json, pathlib, sys\n"
        "with open('calls', 'a') as calls: calls.write(' '.join(sys.argv[1:]) + '\\n')\n"
        "folder = pathlib.Path(dict(a.split('=', 1) for a in sys.argv[1:])['run.dir'])\n"
        "folder.mkdir(parents=True, exist_ok=True)\n"
        "seed = int(next((a[5:] for a in sys.argv if a.startswith('seed=')), 0))\n"
        "(folder / 'metrics.json').write_text(json.dumps({'test/accuracy': 0.94 + seed / 100, 'test/nll': 0.1}))\n"
        "sys.exit(3 if 'experiment=broken' in sys.argv else 0)\n"
    )
    papers = tmp_path / "conf" / "paper"
    papers.mkdir(parents=True)
    monkeypatch.setattr(reproduce, "RUN", "experiments.run")
    monkeypatch.setenv(places.VARIABLE, str(papers.parent))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))

    def check(*claims, told=(), **top):
        entries = [{"target": 0.97, "tolerance": 0.005, "source": "s", "claim": "c"} | claim for claim in claims]
        (papers / "made.yaml").write_text(yaml.safe_dump({"title": "t", "source": "s", "claims": entries} | top))
        return reproduce.main(["paper=made", "root=runs", f"studies={tmp_path}", *told])

    run = {"run": ["experiment=digits", "seed=3"]}
    assert check(run | {"metric": "test/accuracy"}, run | {"metric": "test/nll", "target": 0.1}) == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 1
    assert re.fullmatch(r"experiment=digits seed=3 run\.dir=runs/[0-9a-f]{12}", calls[0])
    written = tmp_path / calls[0].split("run.dir=")[1] / "metrics.json"
    assert json.loads(written.read_text())["test/accuracy"] == 0.97

    assert check({"run": ["seed=4"], "metric": "test/acuracy"}) == 2
    assert "must write test/acuracy, got None; did you mean 'test/accuracy'?" in capsys.readouterr().err
    assert check({"run": ["experiment=broken"], "metric": "test/nll"}) == 2
    assert "must end well, got exit status 3" in capsys.readouterr().err

    (tmp_path / "calls").unlink()
    accuracy = {"run": ["experiment=digits", "seed=2"], "metric": "test/accuracy"}
    assert check(accuracy, told=["seeds=3"]) == 0  # 0.96, 0.97 and 0.98: the run of seed 3 is new, its words differ
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [re.search(r"seed=(\d)", call)[1] for call in calls] == ["2", "3", "4"]
    study = (tmp_path / "made.md").read_text()
    assert "0.970 ± 0.01" in study
    assert "`python -m experiments.reproduce paper=made seeds=3`" in study
    assert "1 of 1 claims within tolerance" in study

    (tmp_path / "made.md").unlink()
    assert check(accuracy, told=["fast=true"]) == 2
    assert "made.yaml has none; add them under fast" in capsys.readouterr().err
    assert check(accuracy | {"target": 0.5}, told=["fast=true"], fast=["train.epochs=1"]) == 0
    assert "train.epochs=1" in (tmp_path / "calls").read_text()
    assert not (tmp_path / "made.md").exists()
