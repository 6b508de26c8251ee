"""`dsnn frontier`: who takes part, what trials see, and a whole frontier of small data, resumed."""

import json
import types

import numpy as np
import pytest

from dsnn import data, energy, evaluate, store
from dsnn.assembly.assemble import build
from dsnn.assembly.identity import identity
from dsnn.bayes.bit_posterior import input_range
from dsnn.deploy.exit_calibration import Calibrated
from dsnn.report import write_frontier_report
from dsnn.run import frontier, frontier_plan, frontier_words, schema, search, standings, sweep, trial
from dsnn.run.contenders import OURS, contenders, read_contender, who
from dsnn.run.judged import Judged, judged, right
from dsnn.tasks.steps import Steps

STATIC = ("binary", "linear", "relu", "relu_exit", "small", "spiking")


@pytest.fixture(autouse=True)
def _apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DSNN_CONFIG_DIR", raising=False)


def npz(path, shape=(6,), test_shift=0.0, count=240, integer=True):
    rng = np.random.default_rng(3)
    y = rng.integers(0, 3, count)
    x = rng.normal(size=(count, *shape)) + y.reshape(-1, *[1] * len(shape))
    x[200:] += test_shift
    y = y if integer else x.mean(tuple(range(1, x.ndim)))
    parts = {"x_train": x[:200], "y_train": y[:200], "x_test": x[200:], "y_test": y[200:]}
    np.savez(
        path, **{name: value.astype(np.float32) if value.dtype == float else value for name, value in parts.items()}
    )
    return f"data.path={path}"


def split_of(temporal=False, steps=False):
    x = np.zeros((4, 5, 3) if temporal else (4, 3), np.float32)
    part = data.Arrays(x, np.zeros((4, 5) if steps else 4, np.int32))
    return data.Split(part, part, part, 2, "mine", temporal=temporal)


def refused(*words):
    with pytest.raises(ValueError, match=r".") as error:
        frontier_plan.planned(list(words))
    return str(error.value)


def test_everybody_composes_and_static_ones_read_static_data():
    assert contenders()[0] == OURS
    taking, _ = who([], split_of())
    assert tuple(sorted(one.name for one in taking)) == STATIC
    names = [name for one in map(read_contender, contenders()) for name in one.machines]
    assert len(names) == len(set(names))
    for one in map(read_contender, contenders()):
        split = split_of(temporal=one.reads == "sequences")
        found = one.search(split, base=frontier_plan.BASE, given=["data=npz", "data.path=mine.npz"], trials=8, seed=0)
        assert len({str(found.fixed(number)[one.spread]) for number in range(8)}) == 8


def test_labels_at_every_step_leave_those_out_that_answer_once():
    taking, said = who([], split_of(temporal=True, steps=True))
    assert sorted(one.name for one in taking) == ["delta_gru", "gru", "spiking"]
    assert any("relu gives one answer, mine has a label at every step" in sentence for sentence in said)
    assert any("gru_exit gives one answer" in sentence for sentence in said)
    wanted = next(one for one in taking if one.name == "gru")
    mine = {"base": frontier_plan.BASE, "given": ["data=npz", "data.path=a"], "trials": 2, "seed": 0}
    found = wanted.search(split_of(temporal=True, steps=True), **mine)
    assert "model.architecture_options.answers=every" in found.overrides


def test_mistakes_get_a_sentence_before_any_work(tmp_path):
    mine = ["data=npz", npz(tmp_path / "mine.npz")]
    assert "contenders must be of" in refused(*mine, "contenders=spikingg")
    assert "trials must be a whole number of at least 1, got '0'" in refused(*mine, "trials=0")
    assert "seeds must differ, got 1,1" in refused(*mine, "seeds=1,1")
    assert "give seeds=3" in refused(*mine, "seed=3")
    assert "folds must be a whole number of at least 2, got '1'" in refused(*mine, "folds=1")
    assert "a frontier tests every fold, got data.folds=5; give folds=5" in refused(*mine, "data.folds=5")
    assert "tolerance must be a share in [0, 1), got '30'" in refused(*mine, "tolerance=30")
    assert "gru reads sequences, npz is static; leave it out" in refused(*mine, "contenders=gru")
    assert "nothing to spare, got gates.enabled=false" in refused(*mine, "contenders=relu", "relu.gates.enabled=false")
    assert "model.cell is what makes relu what it is (ReLU)" in refused(*mine, "contenders=relu", "model.cell=IF")
    given = ["svi.budget_fraction=0.1", "optimizer.learning_rate=0.01"]
    assert "linear has nothing to vary" in refused(*mine, "contenders=linear", *given)
    assert "compares accuracies of classes, npz holds regression" in refused(
        "data=npz", npz(tmp_path / "numbers.npz", integer=False), "data.options.task=regression", "contenders=linear"
    )
    assert not (tmp_path / "outputs").exists()


def test_nobody_has_what_another_has_not_or_is_judged_by_other_prices(tmp_path):
    mine = ["data=npz", npz(tmp_path / "mine.npz"), "contenders=spiking,small"]
    alike = "a frontier compares networks of the same inference"
    one_side = refused(*mine, "spiking.bits.enabled=true")
    assert f"{alike}, got bits.enabled=true for spiking and not for small; give it to everybody" in one_side
    assert f"{alike}, got svi.rate_penalty=0.1 for small and not for spiking" in refused(
        *mine, "small.svi.rate_penalty=0.1"
    )
    exits = refused(*mine[:2], "contenders=spiking,relu_exit,relu", "bits.enabled=true")
    assert "values of relu_exit have no bits, got bits.enabled=true for spiking in a frontier with it" in exits
    assert exits.endswith("or give contenders=spiking,relu.")
    priced = refused(*mine[:2], "contenders=linear,spiking", "svi.rate_penalty=0.1")
    assert "values of linear have no price by their number, got svi.rate_penalty=0.1" in priced
    alone = frontier_plan.planned([*mine[:2], "contenders=spiking", "svi.rate_penalty=0.1"])
    assert alone.entrants[OURS][1].ends[0].svi.rate_penalty == 0.1
    other = refused(*mine, "energy.profile=22nm", "energy.accounting=updates")
    assert "decided by energy.profile=45nm-int8 energy.accounting=memory, got energy.profile=22nm" in other
    assert "got energy.profile=45nm-int8 energy.accounting=updates" in refused(*mine, "small.energy.accounting=updates")


def test_everybody_may_have_bits_and_a_price_of_events_by_one_option(tmp_path):
    mine = ["data=npz", npz(tmp_path / "mine.npz"), "contenders=spiking,relu,small"]
    plain = frontier_plan.planned(mine).entrants
    for words in (["bits.enabled=true"], ["energy.events=differentiated"], ["bits.enabled=true", "bits.fixed=4"]):
        found = frontier_plan.planned([*mine, *words]).entrants
        ends = [end for _, one in found.values() for end in one.ends]
        assert all(end.bits.enabled or end.energy.events == "differentiated" for end in ends)
        for name in found:
            falls = {"svi.budget_fraction"} if name == "small" and "bits.fixed=4" not in words else set()
            assert set(found[name][1].space) == set(plain[name][1].space) | falls
    for _, searched in plain.values():  # and nobody has what was not given
        assert not any(end.bits.enabled or end.energy.events == "differentiated" for end in searched.ends)
        assert all("activations" not in identity(end)["bits"] for end in searched.ends)


def test_other_data_under_the_same_name_are_another_search(tmp_path):
    words = ["data=npz", npz(tmp_path / "mine.npz"), "contenders=small"]
    study = sweep.opened(tmp_path / "small", frontier_plan.planned(words).entrants["small"][1])
    sweep.opened(tmp_path / "small", frontier_plan.planned(words).entrants["small"][1])
    npz(tmp_path / "mine.npz", test_shift=1.0)
    for _ in range(2):
        with pytest.raises(ValueError, match="holds another search, it differs in the data and files that it reads"):
            sweep.opened(tmp_path / "small", frontier_plan.planned(words).entrants["small"][1])
        earlier = {name: value for name, value in study.user_attrs["search"].items() if name != "reads"}
        study.set_user_attr("search", earlier)  # as an earlier version wrote it


def test_what_is_given_is_not_varied(tmp_path):
    words = [
        "data=npz",
        npz(tmp_path / "mine.npz"),
        "contenders=relu",
        "model.hidden=[8]",
        "relu.svi.budget_fraction=0.3",
    ]
    found = frontier_plan.planned(words).entrants["relu"][1]
    assert set(found.space) == {"optimizer.learning_rate"}
    assert found.spread == ""
    assert schema.compose(found.overrides).svi.budget_fraction == 0.3


def test_what_is_spread_covers_its_range_whatever_the_number_of_trials():
    wanted = search.Range(low=0.01, high=1.0, log=True)
    shares = [search._inverse(number) for number in range(6)]
    assert shares == [0.0, 1.0, 0.5, 0.25, 0.75, 0.125]
    assert [wanted.at(share, False) for share in shares[:3]] == pytest.approx([0.01, 1.0, 0.1])
    assert search.Range(choices=[[2], [4], [8, 8]]).at(1.0, False) == "[8,8]"


def test_sequences_are_summed_or_read_as_a_whole():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 4, 3, 2)).astype(np.float32)
    part = data.Arrays(x, np.zeros(5, np.int32))
    split = data.Split(part, part, part, 2, "mine", temporal=True)
    np.testing.assert_allclose(data.viewed(split, "summed").train.x, x[:, 0] + x[:, 1] + x[:, 2] + x[:, 3], rtol=1e-5)
    whole = data.viewed(split, "whole")
    assert whole.test.x.shape == (5, 4, 1, 6)
    assert not whole.temporal
    np.testing.assert_array_equal(whole.val.x[2, 3, 0], x[2, 3].ravel())
    assert data.viewed(split, "steps") is split
    with pytest.raises(data.DataError, match="is static"):
        data.viewed(whole, "summed")
    with pytest.raises(data.DataError, match="label at every step"):
        data.viewed(split_of(temporal=True, steps=True), "whole")


def point(name, accuracy, spent, seeds=2, blocks=4):
    def one(shift):
        right = (np.arange(100) < round(100 * accuracy)).astype(float)
        keys = [f"events/{key}" for key in standings.columns()]
        spends = {key: np.full(blocks, spent + shift) for key in keys}
        return Judged(right, np.full(blocks, 25), 1.0, spends, {key: {"acs": spent + shift} for key in keys})

    both = [one(0.01 * seed) for seed in range(seeds)]
    return standings.Point(name, "events", {}, both, both)


def test_ours_meets_the_cheapest_rival_that_is_as_accurate():
    points = {
        OURS: [point(OURS, 0.98, 4.0), point(OURS, 0.95, 1.0)],
        "near": [point("near", 0.98, 8.0)],
        "cheap": [point("cheap", 0.94, 0.5)],
    }
    high, _, _, low = standings.meetings(points, 0.01)
    assert (high["best_rival"], high["verdict"]) == ("near", "win")
    assert high["rivals"]["near"]["ratio"]["value"] == pytest.approx(4.005 / 8.005)
    assert "cheap" not in high["rivals"]
    assert low["level"] == pytest.approx(0.94)
    assert (low["best_rival"], low["verdict"]) == ("cheap", "loss")
    assert low["rivals"]["cheap"]["ratio"]["value"] == pytest.approx(1.005 / 0.505)
    assert not high["rivals"]["near"]["fragile"]


def result_of(met, seeds=(0, 1), failures=(), folds=0):
    contenders = {OURS: {"failures": list(failures)}}
    return {"ours": OURS, "meetings": met, "seeds": list(seeds), "folds": folds, "contenders": contenders}


def test_who_spends_nothing_is_there_and_accuracy_decides():
    closed = {OURS: [point(OURS, 0.98, 4.0, seeds=1)], "closed": [point("closed", 0.98, 0.0, seeds=1)]}
    closed["dear"] = [point("dear", 0.98, 9.0, seeds=1)]
    first = standings.meetings(closed, 0.01)[0]
    assert (first["best_rival"], first["verdict"]) == ("closed", "loss")
    assert first["rivals"]["closed"]["ratio"] is None
    assert set(first["rivals"]["closed"]["ratios"].values()) == {None}
    assert first["rivals"]["dear"]["verdict"] == "win"
    assert "At the highest closed spends nothing." in frontier_words.lead(result_of([first]))
    free = {OURS: [point(OURS, 0.98, 0.0, seeds=1)], "dear": closed["dear"]}
    assert standings.meetings(free, 0.01)[0]["verdict"] == "win"
    assert standings.meetings({**free, OURS: [point(OURS, 0.96, 0.0, seeds=1)]}, 0.01)[1]["verdict"] == "tie"


def test_what_only_a_rival_reaches_has_a_row():
    points = {OURS: [point(OURS, 0.95, 4.0)], "better": [point("better", 0.98, 9.0), point("better", 0.95, 8.0)]}
    met = standings.meetings(points, 0.01)
    assert [row["level"] for row in met] == pytest.approx([0.98, 0.95, 0.94, 0.93, 0.91])
    assert (met[0]["best_rival"], met[0]["verdict"]) == ("better", "ours does not reach it")
    assert [row["verdict"] for row in met[1:]] == ["win"] * 4
    said = frontier_words.lead(result_of(met))
    assert said.startswith("better reaches an accuracy of 98.00 % on the part that selects, which the spiking network")
    assert "At 4 levels" in said
    assert "4 win, 0 tie, 0 loss" in said
    near = standings.meetings({**points, "better": [point("better", 0.96, 9.0)]}, 0.01)
    assert near[0]["level"] == pytest.approx(0.95)  # within the tolerance


def test_nobody_at_a_level_is_nobody_there_nobody_left_or_nobody_as_accurate():
    ours = {OURS: [point(OURS, 0.9, 1.0)]}
    for others, broken, said in (
        ({}, {}, "no rival took part"),
        ({}, {"relu": "ValueError: out of units."}, "every trial of the rivals failed (ValueError: out of units)"),
        ({"low": [point("low", 0.5, 1.0)]}, {}, "no rival is as accurate"),
    ):
        met = standings.meetings(ours | others, 0.01, broken)
        assert {row["verdict"] for row in met} == {said}
        assert frontier_words.lead(result_of(met)) == f"N{said[1:]}." if said[0] == "n" else f"E{said[1:]}."
    assert "(out of memory), so that nothing" in frontier_words.lead(result_of([], failures=["out of memory"]))
    assert "No spiking network took part" in frontier_words.lead(result_of([]))


def test_verdicts_of_one_seed_say_so():
    points = {OURS: [point(OURS, 0.9, 1.0, seeds=1)], "other": [point("other", 0.9, 2.0, seeds=1)]}
    one = frontier_words.worded(result_of(standings.meetings(points, 0.01), seeds=[0]))
    assert {row["said"] for row in one["meetings"]} == {"win, one seed: of these networks alone"}
    assert one["lead"].endswith("One seed: of these networks alone.")
    two = frontier_words.worded(result_of(standings.meetings(points, 0.01)))
    assert {row["rivals"]["other"]["said"] for row in two["meetings"]} == {"win"}


def test_judgements_are_kept_as_arrays():
    made = point(OURS, 0.9, 2.0).select[0]
    back = Judged.of(made.arrays())
    assert back.accuracy == made.accuracy
    assert back.parts == made.parts
    assert back.mean_nj(trial.primary("events")) == 2.0


EXITS = {"gru_exit", "gru_exit_skipping", "delta_gru_exit"}
QUICK = ["train.epochs=3", "train.batch_size=32", "bayes.samples=2", "svi.ungated_fraction=0", "train.steps=3"]


def test_what_has_bits_is_judged_with_its_widths(tmp_path):
    words = [*frontier_plan.BASE, "data=npz", npz(tmp_path / "mine.npz"), "model.architecture=mlp", "model.hidden=[8]"]
    words += [*QUICK, "bits.enabled=true", "bits.fixed=4", "bits.membrane=16", "gates.enabled=false"]
    setup = build(schema.compose([*words, "halting.enabled=false"]))
    params = setup.params(setup.learner.init()) | input_range(setup.split.train.x)
    made = judged(setup, Calibrated(params, np.inf, {}), "val", trial.profiles()[:1])
    states = made.parts[trial.primary("events")]["states"]
    assert states == pytest.approx(1e-3 * 2 * 3 * (8 + 3) * 16 * 0.3125)  # read and written, at each step


def test_values_of_few_bits_are_judged_with_their_widths_on_both_machines(tmp_path):
    words = [*frontier_plan.BASE, "data=npz", npz(tmp_path / "mine.npz"), "model.architecture=mlp", "model.hidden=[8]"]
    words += [*QUICK, "train.steps=1", "model.cell=ReLU", "bits.enabled=true", "bits.fixed=4", "bits.activations=2"]
    setup = build(schema.compose([*words, "gates.enabled=false", "halting.enabled=false"]))
    params = setup.params(setup.learner.init()) | input_range(setup.split.train.x)
    made = judged(setup, Calibrated(params, np.inf, {}), "val", trial.profiles()[:1])
    parts = {machine: made.parts[trial.primary(machine)] for machine in energy.MACHINES}
    # int8 at 45 nm: add 0.03, multiply 0.2 pJ at 8 bits; six inputs of 8 bits at eight units, eight of 2 at three
    first = 6 * 8 * (0.2 * 4 * 8 / 64 + 0.03 * (4 + 3 + 8) / 8)
    second = 8 * 3 * (0.2 * 4 * 2 / 64 + 0.03 * (4 + 3 + 2) / 8)
    assert parts["dense"]["macs"] == pytest.approx(1e-3 * (first + second))
    assert parts["dense"]["weights"] == pytest.approx(1e-3 * (48 + 24) * 4 * 1.5625)
    assert parts["dense"]["activations"] == pytest.approx(1e-3 * (6 * 8 + 8 * 2) * 0.15625)
    assert parts["dense"]["states"] == 0
    assert parts["dense"]["addresses"] == 0
    assert parts["events"]["macs"] < parts["dense"]["macs"]
    assert parts["events"]["addresses"] > 0


def test_a_trial_does_not_see_the_test_part(tmp_path, monkeypatch):
    found, seen, judged = [], [], trial.judged

    def watched(setup, *rest):
        seen.append(len(setup.split.test.x))
        return judged(setup, *rest)

    monkeypatch.setattr(trial, "judged", watched)
    for shift in (0.0, 50.0):
        where = npz(tmp_path / f"shift{shift:.0f}.npz", test_shift=shift)
        words = [*frontier_plan.BASE, "data=npz", where, "model.architecture=mlp", "model.hidden=[8]", *QUICK, "seed=1"]
        directory = trial.learned(schema.compose([*words, f"run.root={tmp_path / 'runs'}"]))
        found.append((directory, store.read_metrics(directory), store.read_arrays(directory, "parameters.npz")))
    (first, metrics, params), (second, others, same) = found
    assert first != second
    assert metrics == others
    assert all(np.array_equal(params[name], same[name]) for name in params)
    near, far = (trial.on_test(directory, tmp_path / "test") for directory in (first, second))
    assert len(near.right) == len(far.right) == 40
    assert seen == [20, 20, 40, 40]  # the half of a fifth that selects stands where the test part was
    assert near.accuracy != far.accuracy


@pytest.mark.parametrize("shape", [(6,), pytest.param((5, 4), marks=pytest.mark.slow)])
def test_a_frontier_of_data_of_ones_own(tmp_path, shape, capsys):
    words = ["data=npz", npz(tmp_path / "mine.npz", shape), "trials=1", "seeds=0,1", f"root={tmp_path / 'out'}"]
    words += ["train.epochs=2", "train.batch_size=32", "bayes.samples=2"]
    words += (
        ["contenders=spiking,small"]
        if len(shape) == 1
        else ["contenders=spiking,gru_exit,delta_gru_exit", "data.temporal=true"]
    )
    assert frontier.main(words) == 0
    result = json.loads((tmp_path / "out" / "frontier.json").read_text())
    assert result["data"] == "mine"
    small = {"small", "small_skipping"}
    assert set(result["contenders"]) == {"spiking"} | (small if len(shape) == 1 else EXITS)
    assert "One seed" not in result["lead"]
    for one in result["contenders"].values():
        assert len(one["tried"]) == len(one["core_s"]) == len(one["best_of"]) == 1
        assert one["core_s"][0] > 0
        (chosen,) = one["points"]
        assert len(chosen["test"]["accuracy_by_seed"]) == 2
        assert chosen["test"]["nj"]["45nm-int8/memory"] > chosen["test"]["nj"]["45nm-int8/updates"] > 0
        assert sum(chosen["test"]["parts_nj"].values()) == pytest.approx(chosen["test"]["nj"]["45nm-int8/memory"])
    levels = [row for row in result["meetings"] if row["verdict"] != standings.UNREACHED]
    assert len(levels) == len(evaluate.contest.BELOW)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "could not be drawn" not in page
    assert page.count("<svg") == len(trial.PROFILES) + 1
    before = {name: value for name, value in result.items() if name != "folds"}  # of a file that knew no folds
    assert write_frontier_report(tmp_path / "before", before).read_text() == page
    runs = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.npz")}
    capsys.readouterr()
    assert frontier.main(words) == 0
    assert "learning" not in capsys.readouterr().out
    assert runs == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.npz")}
    assert json.loads((tmp_path / "out" / "frontier.json").read_text()) == result


def test_folds_are_pooled_and_their_ratio_is_drawn_by_fold():
    def one(nj, right, blocks):
        energy = {"m/p/a": np.full(blocks, nj)}
        return Judged(np.asarray(right, float), np.full(blocks, 5), 2.0, energy, {"m/p/a": {"adds": nj}})

    found = Judged.pooled([one(2.0, [1, 1, 0], 2), one(8.0, [0], 4)])
    assert found.accuracy == 0.5
    assert found.sizes.tolist() == [10, 20]
    assert found.energy["m/p/a"].tolist() == [2.0, 8.0]
    assert found.mean_nj("m/p/a") == found.parts["m/p/a"]["adds"] == 6.0
    assert Judged.pooled([first := one(2.0, [1], 2)]) is first


@pytest.mark.slow
def test_a_frontier_tests_every_example_once_in_folds(tmp_path):
    words = [
        "data=npz",
        npz(tmp_path / "mine.npz"),
        "trials=1",
        "folds=3",
        f"root={tmp_path / 'out'}",
        "train.epochs=2",
    ]
    assert frontier.main([*words, "train.batch_size=32", "bayes.samples=2", "contenders=spiking,small"]) == 0
    result = json.loads((tmp_path / "out" / "frontier.json").read_text())
    assert (result["test_examples"], result["folds"]) == (240, 3)
    assert "One seed" not in result["lead"]
    kept = [store.read_arrays(tmp_path / "out" / "test", path.name) for path in (tmp_path / "out" / "test").iterdir()]
    assert sorted(len(one["right"]) for one in kept) == [80] * 6
    assert "3 folds; 240 test examples" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
def test_a_frontier_of_bits_and_prices_on_both_sides(tmp_path):
    words = ["data=npz", npz(tmp_path / "mine.npz"), "trials=1", f"root={tmp_path / 'out'}", "train.epochs=2"]
    words += ["train.batch_size=32", "bayes.samples=2", "contenders=spiking,relu,small"]
    assert frontier.main([*words, "bits.enabled=true", "energy.events=differentiated"]) == 0
    result = json.loads((tmp_path / "out" / "frontier.json").read_text())
    assert {one for one, row in result["contenders"].items() if row["points"]} == {
        "spiking", "relu", "relu_skipping", "small", "small_skipping",
    }  # fmt: skip


def test_a_frontier_whose_trials_all_failed_says_why(tmp_path, monkeypatch, capsys):
    def broken(config):
        raise RuntimeError("out of units")

    monkeypatch.setattr(trial, "learned", broken)
    words = ["data=npz", npz(tmp_path / "mine.npz"), "trials=1", "contenders=spiking,small", f"root={tmp_path / 'out'}"]
    assert frontier.main(words) == 1
    page, shown = (tmp_path / "out" / "report.html").read_text(), " ".join(capsys.readouterr().out.split())
    assert "could not be drawn" not in page
    assert "every trial failed: RuntimeError: out of units" in page
    for said in (page, shown):
        assert "Every trial of the spiking network failed (RuntimeError: out of units)" in said


def test_energies_are_of_named_machines():
    assert {m for one in map(read_contender, contenders()) for m in one.machines.values()} == set(energy.MACHINES)


def test_steps_without_a_label_count_nowhere():
    """The data set of the ECG says class 0 where nobody gave a label."""
    y = np.array([[0, 1, 0, 2]])
    arrays = data.Arrays(np.zeros((1, 4, 1), np.float32), y)
    split = data.Split(arrays, arrays, arrays, 3, "made", temporal=True)
    split = split._replace(extra={"test/labelled": np.array([[True, True, False, True]])})
    logits = np.eye(3)[[1, 1, 0, 2]][:, None]  # right at the second and the fourth, and by chance at the third
    setup = types.SimpleNamespace(task=Steps(skip=0), split=split)
    np.testing.assert_allclose(right(setup, logits, "test", np.array([4])), [2 / 3])
    setup = types.SimpleNamespace(task=Steps(skip=1), split=split)
    np.testing.assert_allclose(right(setup, logits, "test", np.array([4])), [1.0])
