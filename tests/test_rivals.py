"""Rivals: priced by hand, beside every saving, under one set of names; two networks never share a row."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from dsnn import energy, plots, store
from dsnn.assembly.assemble import build
from dsnn.config import EnergyConfig
from dsnn.deploy.decided import deploy
from dsnn.plots import wording
from dsnn.report import runs as runs_page
from dsnn.report import write_report, write_runs_report
from dsnn.run import assess_activity, assess_energy, console, sweep_record
from dsnn.run.schema import compose

NAMES = ("dense", "dense_skipping", "pruned", "quantised", "pruned_quantised")
OLD = ("ann_nj", "ann_compact_nj", "quantised_nj", "lstm_nj", "gru_nj", "ratio", "break_even_rate")


def network(n_in: int, hidden: int, events: float, steps: float = 4.0) -> list[energy.Record]:
    """Records of n_in - hidden - 2, held inputs, of which every one has so many events; hidden neurons fire once."""
    return [
        energy.SynapseRecord("hidden0", "dense", (n_in,), (hidden,), np.full(n_in, events), 1.0, source="analog"),
        energy.NeuronRecord("hidden0", "LIF", (hidden,), steps, float(hidden)),
        energy.SynapseRecord("readout", "dense", (hidden,), (2,), np.ones(hidden), steps),
        energy.NeuronRecord("readout", "LI", (2,), steps),
    ]


WHOLE, PRUNED = network(6, 4, 0.5), network(3, 2, 0.5)


def test_c1_every_rival_by_hand() -> None:
    """Horowitz 2014: a multiply-accumulate 4.6 pJ; in 3 bits its multiplication falls with the square of the width."""
    nonzero = {"hidden0": np.array([1.0, 1, 0, 0, 0, 0.5])}
    row = energy.compare(PRUNED, energy.profile("45nm"), 4, whole=WHOLE, nonzero=nonzero)[0]
    macs = {"dense": 6 * 4 + 4 * 2, "pruned": 3 * 2 + 2 * 2}
    assert row.accounting == "arithmetic"
    assert set(row.rivals) == set(NAMES)
    for name, number in macs.items():
        assert row.rivals[name].total_nj == pytest.approx(4.6e-3 * number)
    # 2.5 of 6 inputs are nonzero, each meets 4 weights; half of 4 ReLUs are taken as nonzero, each meets 2
    assert row.rivals["dense_skipping"].total_nj == pytest.approx(4.6e-3 * (2.5 * 4 + 2 * 2))
    narrow = 1e-3 * (3.7 * (3 / 32) ** 2 + 0.9 * 3 / 32)
    assert energy.quantised_bits(4) == 3
    assert row.rivals["quantised"].total_nj == pytest.approx(narrow * macs["dense"])
    assert row.rivals["pruned_quantised"].total_nj == pytest.approx(narrow * macs["pruned"])
    # ours: half of three inputs at two weights are multiplied, two spikes at two weights added
    ours = 4.6e-3 * 1.5 * 2 + 0.9e-3 * 2 * 2
    assert row.snn.total_nj == pytest.approx(ours)
    assert row.ratios["pruned"] == pytest.approx(4.6e-3 * 10 / ours)
    assert row.ungated.total_nj == pytest.approx(4.6e-3 * 3 * 4 + 0.9e-3 * 4 * 2)


def test_c1_skipping_reads_fewer_weights_and_values_in_memory() -> None:
    dense = energy.count(energy.ann_twin(WHOLE)).total
    some = energy.count(energy.skip_zeros(energy.ann_twin(WHOLE), {"hidden0": np.full(6, 0.25)})).total
    assert (some.weight_reads, some.analog_reads) == (6 + 4, 1.5 + 2)
    assert (dense.weight_reads, dense.analog_reads) == (24 + 8, 6 + 4)


def test_c1_tanh_units_are_never_zero() -> None:
    loop = energy.SynapseRecord("hidden0.recurrent", "recurrent", (4,), (4,), np.ones(4), 4.0)
    held = energy.ann_twin([*WHOLE[:2], loop, *WHOLE[2:]])
    skipped = energy.count(energy.skip_zeros(held, {"hidden0": np.zeros(6)})).total
    assert skipped.effective_macs == 4 * (4 * 4 + 4 * 2)


def test_c1_shares_of_other_inputs_are_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"must be one for each of its 6 inputs, got shape \(5,\)"):
        energy.skip_zeros(energy.ann_twin(WHOLE), {"hidden0": np.ones(5)})


def test_c1_break_even_is_the_rate_at_which_the_named_rival_costs_the_same() -> None:
    table = energy.compare(PRUNED, energy.profile("45nm"), 4, whole=WHOLE)
    row = next(row for row in table if row.accounting == "memory")
    rate, measured = row.break_even["pruned"].break_even, row.break_even["pruned"].measured
    assert 0 < rate != measured
    scaled = [*PRUNED[:1], energy.NeuronRecord("hidden0", "LIF", (2,), 4, 2 * rate / measured)]
    grown = np.ones(2) * rate / measured
    scaled += [energy.SynapseRecord("readout", "dense", (2,), (2,), grown, max(4.0, grown[0])), PRUNED[3]]
    priced = energy.price(energy.count(scaled), energy.profile("45nm"), "memory").total_nj
    assert priced == pytest.approx(row.rivals["pruned"].total_nj)


def test_c1_metrics_have_the_names_of_the_contract_and_none_of_the_old() -> None:
    metrics = assess_energy.costs(EnergyConfig(also=["45nm-int8"]), PRUNED, WHOLE, 4, {"hidden0": np.full(6, 0.5)})
    for profile in ("45nm", "45nm-int8"):
        for accounting in ("", "arithmetic/", "updates/", "memory/"):
            prefix = f"energy/{profile}/{accounting}"
            assert metrics[f"{prefix}snn_nj"] < metrics[f"{prefix}ungated_nj"]
            assert all(metrics[f"{prefix}rival/{name}_nj"] > 0 for name in NAMES)
            assert f"{prefix}rival/pruned_break_even_rate" in metrics
            assert not any(f"{prefix}{old}" in metrics for old in OLD)
    assert [metrics[f"rival/{name}/trained"] for name in NAMES] == [0] * 5
    assert not any(name.endswith("/accuracy") for name in metrics)
    assert metrics["rival/quantised/bits"] == 3
    assert metrics["rival/dense_skipping/nonzero_inputs"] == 0.5
    assert metrics["rival/dense_skipping/nonzero_hidden_assumed"] == energy.NONZERO_RELU
    assert np.isfinite([*metrics.values()]).all()


@pytest.mark.parametrize("ours", [network(0, 0, 0.0), network(3, 0, 0.0)])
def test_c1_a_network_that_spends_nothing_has_no_ratio(ours: list[energy.Record]) -> None:
    silent = [r for r in ours if isinstance(r, energy.SynapseRecord)]
    rows = energy.compare(silent, energy.profile("45nm"), 4, whole=WHOLE)
    assert rows[0].snn.total_nj == 0
    assert rows[0].ratios == {}
    metrics = assess_energy.costs(EnergyConfig(), silent, WHOLE, 4, {"hidden0": np.ones(6)})
    assert np.isfinite([*metrics.values()]).all()
    assert "energy/45nm/rival/pruned_break_even_rate" not in metrics


def test_c1_a_profile_without_memory_has_the_other_accountings(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "about: arithmetic alone\nbits: 8\nmac_pj: {value: 0.2, source: here}\nac_pj: {value: 0.1, source: here}\n"
    )
    rows = energy.compare(PRUNED, energy.profile(str(own)), 4, whole=WHOLE)
    assert [row.accounting for row in rows] == ["arithmetic", "updates"]


@pytest.mark.parametrize("encoding", ["direct", "rate"])
def test_c1_zeros_of_the_input_are_those_of_the_data(encoding: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = (
        (rng.random((60, 6)) * (rng.random((60, 6)) < [1, 0.7, 0.5, 0.2, 0.0, 1])).astype(np.float32),
        np.arange(60) % 3,
    )
    np.savez(tmp_path / "d.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    setup = build(compose([
        "data=npz", f"data.path={tmp_path / 'd.npz'}", "model.hidden=[4]", "train.steps=3", "train.batch_size=8",
        f"train.encoding={encoding}", "halting.enabled=false",
    ]))  # fmt: skip
    params = setup.params(jax.jit(setup.learner.init)())
    inputs, deployed = assess_activity.inputs_of(setup), deploy(setup.bayesian, params)
    metrics, _ = assess_energy.modelled(setup, assess_activity.Measured(deployed, inputs, deployed.run(inputs)))
    assert metrics["rival/dense_skipping/nonzero_inputs"] == pytest.approx((x[40:] != 0).mean())


# --- What is printed and shown

CONFIG = {"experiment": "tiny", "learner": "svi", "seed": 0, "bayes": {"guide": "mean_field", "samples": 8}}
TWO = {
    "experiment": "tiny", "test/accuracy": 0.91, "test/nll": 0.31, "test/ece": 0.021, "test/brier": 0.12,
    "compute/steps_mean": 2.25, "compute/steps_total": 4.0, "compute/spike_rate": 0.4, "gates/kept_fraction": 0.5,
    "deployed/accuracy": 0.83, "deployed/nll": 0.47, "deployed/ece": 0.062, "deployed/steps_mean": 1.75,
    "compute/speedup_realised": 2.5,
}  # fmt: skip


def a_run(directory: Path, kl_weight: float = 1.0, seed: int = 0, **more: object) -> Path:
    """A finished run directory of the network above."""
    config = CONFIG | {"seed": seed, "svi": {"kl_weight": kl_weight, "lam": more.pop("lam", 0.1)}}
    store.claim(directory, config | {"learner": more.pop("learner", "svi")})
    costs = assess_energy.costs(EnergyConfig(), PRUNED, WHOLE, 4, {"hidden0": np.full(6, 0.5)})
    store.write_metrics(directory, {**TWO, "seed": seed, **costs, **more})
    store.mark_done(directory)
    return directory


def text(page: Path) -> str:
    """What a page says, without figures, style and tags."""
    html = re.sub(r"<(svg|style|script).*?</\1>", " ", page.read_text(), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", html).split()).replace("\u202f", " ")


def rows(page: Path) -> list[str]:
    html = re.sub(r"<svg.*?</svg>", " ", page.read_text(), flags=re.DOTALL)
    found = re.findall(r"<tr>.*?</tr>|<ul.*?</ul>", html, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()).replace("\u202f", " ") for row in found]


def printed(capsys: pytest.CaptureFixture[str], directory: Path) -> str:
    console.final_table(store.read_metrics(directory), directory, None, "45nm")
    return capsys.readouterr().out


def test_c1_the_table_shows_every_rival_in_both_accountings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = a_run(tmp_path / "run")
    metrics, out = store.read_metrics(directory), printed(capsys, directory)
    for name in NAMES:
        (line,) = [line for line in out.splitlines() if line.startswith(f"│ {wording.rival(name, metrics)} ")]
        ours, theirs = (
            {accounting: metrics[f"energy/45nm/{accounting}/{key}"] for accounting in ("updates", "memory")}
            for key in ("snn_nj", f"rival/{name}_nj")
        )
        for accounting in ours:
            assert f"{theirs[accounting]:.4g} ({theirs[accounting] / ours[accounting]:.3g} x)" in line
        assert "priced, not trained" in line
    cheaper = [
        wording.rival(name, metrics)
        for name in NAMES
        if metrics[f"energy/45nm/memory/rival/{name}_nj"] < ours["memory"]
    ]
    assert cheaper
    assert f"cheaper than this network (memory): {'; '.join(cheaper)}" in out
    assert "of hidden ReLU activations 50 %, as assumed" in out
    assert "In memory it would break even" in out
    assert "dense, pruned alike" in out.split("break even")[1]


def test_c1_the_page_shows_every_rival_and_says_which_are_cheaper(tmp_path: Path) -> None:
    page = write_report(a_run(tmp_path / "run"))
    metrics, said = store.read_metrics(page.parent), text(page)
    for name in NAMES:
        (row,) = [row for row in rows(page) if row.startswith(f"{wording.rival(name, metrics)} ") and "trained" in row]
        for accounting in ("updates", "memory"):
            theirs, ours = (metrics[f"energy/45nm/{accounting}/{key}"] for key in (f"rival/{name}_nj", "snn_nj"))
            assert f"{plots.format_nj(theirs)} {theirs / ours:.3g} ×{', cheaper' if theirs < ours else ''}" in row
        assert row.endswith("priced, not trained")
    assert "Cheaper than this network in memory: dense, pruned alike" in said
    assert "of hidden ReLU activations 50 %, as assumed" in said
    assert "ANN" not in said


def test_c1_a_trained_rival_has_its_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = a_run(tmp_path / "run", **{"rival/quantised/trained": 1, "rival/quantised/accuracy": 0.8125})
    (line,) = [line for line in printed(capsys, directory).splitlines() if line.startswith("│ dense, 3 bits ")]
    assert "0.8125" in line
    (row,) = [
        row
        for row in rows(write_report(directory))
        if (row.startswith("dense, 3 bits ") and "nJ" in row) or ("pJ" in row and row.startswith("dense, 3 bits "))
    ]
    assert row.endswith("81.2 %")


def test_c1_a_network_that_spends_nothing_is_shown_without_ratios(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zero = {f"energy/45nm/{name}snn_nj": 0.0 for name in ("", "updates/", "memory/")}
    directory = a_run(tmp_path / "run", **zero)
    assert " x)" not in printed(capsys, directory)
    write_report(directory)


def test_c3_the_predictive_and_the_deployed_network_never_share_a_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = a_run(tmp_path / "run")
    out = printed(capsys, directory)
    block = " ".join(line.strip("│┃ ") for line in out.splitlines()[:12])
    predictive, deployed = block.index("posterior predictive"), block.index("deployed network")
    assert predictive < block.index("0.9100") < deployed < block.index("0.8300")
    assert predictive < block.index("2.25 of 4") < deployed < block.index("1.75 of 4")
    assert block.index("nJ (modelled)") > deployed
    assert "8 draws" in out
    page = write_report(directory)
    write_runs_report(tmp_path)
    for path in (page, tmp_path / "report.html"):
        for row in rows(path):
            of_predictive = [
                word for word in ("91.0 %", "0.31", "0.021", "2.25") if re.search(rf"(?<![\d.]){word}(?!\d)", row)
            ]
            of_deployed = [word for word in ("83.0 %", "0.47", "0.062", "1.75", "2.5×", "nJ", "pJ") if word in row]
            assert not (of_predictive and of_deployed), row
    assert "83.0 %" in text(page)
    assert "91.0 %" in text(page)


def test_c3_a_sweep_has_a_table_for_each_of_the_two_networks(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = TWO | assess_energy.costs(EnergyConfig(), PRUNED, WHOLE, 4, {"hidden0": np.full(6, 0.5)})
    job = {"overrides": "seed=0", "dir": "runs/x", "status": "done", "metrics": metrics}
    console.sweep_table([job, job | {"overrides": "seed=1", "status": "failed: no luck"}])
    predictives, deployed = capsys.readouterr().out.split("deployed networks")
    assert "0.91" in predictives
    assert "0.83" not in predictives
    assert "0.83" in deployed
    assert "0.91" not in deployed
    least = min(metrics[f"energy/45nm/rival/{name}_nj"] for name in NAMES)
    assert f"{least:.4g}" in deployed
    assert "seed=1 failed: no luck" in deployed


@pytest.mark.parametrize(
    ("config", "noun", "predictive"),
    [
        ({"learner": "svi", "svi": {"kl_weight": 1.0}}, "posterior", "posterior predictive, 8 draws"),
        ({"learner": "svi", "svi": {"kl_weight": 0.01}}, "tempered posterior",
         "tempered posterior predictive, KL weight 0.01, 8 draws"),
        ({"learner": "map", "svi": {"kl_weight": 0.01}}, "trained weights",
         "predictive of the trained weights, 8 draws"),
        ({"learner": "convert"}, "converted network", "converted network"),
    ],
)  # fmt: skip
def test_c5_a_posterior_with_another_kl_weight_is_called_tempered(config: dict, noun: str, predictive: str) -> None:
    belief = wording.belief({"bayes": {"guide": "mean_field", "samples": 8}, **config}, {})
    assert (belief.noun, belief.predictive) == (noun, predictive)


def test_c5_pages_and_tables_never_leave_the_word_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = {"posterior/beta": np.linspace(0, 1, 50), "prior/beta": np.linspace(-1, 1, 50)}
    probs = {"test/probs": np.full((6, 2), 0.5), "test/y": np.zeros(6, int)}
    for weight, told in ((0.01, True), (1.0, False)):
        directory = a_run(tmp_path / f"{weight}", weight, **{"placement/hidden0/p_events": 0.5} | {
            f"placement/hidden0/{key}": 0.1
            for key in ("rate", "rate_low", "rate_high", "break_even_rate", "events_nj", "dense_nj")
        })  # fmt: skip
        store.write_arrays(directory, "records.npz", drawn | probs)
        store.mark_done(directory)
        page = write_report(directory)
        shown = text(page).split("How it was made")[0] + " ".join(re.findall(r"<text[^>]*>([^<]*)", page.read_text()))
        for said in (printed(capsys, directory), shown):
            count = len(re.findall(r"\bposterior\b", said, re.IGNORECASE))
            assert count
            assert len(re.findall(r"\btempered posterior\b", said, re.IGNORECASE)) == (count if told else 0)
            assert bool(re.search(r"KL[^.]*?weight 0\.01", said)) == told


# --- Pages over runs


def test_means_stand_in_the_unit_of_the_table_and_without_a_spread_of_zero() -> None:
    runs = [
        runs_page.Run(
            f"r{seed}", "done", {"seed": seed}, {"deployed/accuracy": 0.2 + 0.1 * seed, "deployed/steps_mean": 1.0}, []
        )
        for seed in (0, 1)
    ]
    table = runs_page.over_seeds(runs, ["seed"], ["deployed/accuracy", "deployed/steps_mean"])
    assert [[cell.replace("\u202f", " ") for cell in row] for row in table["rows"]] == [["2", "25.0 ± 7.1 %", "1"]]


def test_a_front_joins_configurations_and_not_their_seeds() -> None:
    spent, right = np.array([1.0, 3.0, 5.0, 7.0]), np.array([0.6, 0.8, 0.85, 0.95])
    axes = plots.accuracy_energy(spent, right, ["a", "a", "b", "b"]).axes[0]
    (line,) = [line for line in axes.lines if str(line.get_label()).startswith("front")]
    np.testing.assert_allclose(line.get_xydata(), [[2, 70], [6, 90]])
    assert len(axes.collections[0].get_offsets()) == 4


def test_a_page_of_runs_groups_what_differs_in_the_seed_alone(tmp_path: Path) -> None:
    for lam in (0.1, 0.2):
        for seed in (0, 1):
            a_run(tmp_path / f"{lam}-{seed}", seed=seed, lam=lam)
    runs = runs_page.read_runs(tmp_path)
    named = runs_page.configurations(runs, runs_page.varying(runs))
    assert named == ["lam 0.1", "lam 0.1", "lam 0.2", "lam 0.2"]
    assert runs_page.configurations(runs[1:], runs_page.varying(runs))[0] == "0.1-1"


def test_a_sweeps_front_joins_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(plots, "accuracy_energy", lambda *given: seen.update(given=given) or plots.front(
        np.ones(1), np.ones(1), np.ones(1, bool), ("a", "b")))  # fmt: skip
    jobs = [
        {"overrides": f"experiment=digits seed={seed} svi.lam={lam}",
         "metrics": {"deployed/accuracy": 0.5, "test/accuracy": 0.9, "energy/45nm/snn_nj": lam + seed}}
        for lam in (1, 2) for seed in (0, 1)
    ]  # fmt: skip
    assert sweep_record.draw_front(jobs, tmp_path / "front.png")
    assert seen["given"][2] == ["svi.lam=1", "svi.lam=1", "svi.lam=2", "svi.lam=2"]
    assert seen["given"][1].tolist() == [0.5] * 4


def test_a_failed_run_says_why_in_its_row(tmp_path: Path) -> None:
    a_run(tmp_path / "good")
    store.claim(tmp_path / "bad", CONFIG | {"seed": 3})
    store.write_text(tmp_path / "bad", "FAILED", "the loss must stay finite, got nan at step 2\n\nTraceback ...\n")
    (row, *_) = [row for row in rows(write_runs_report(tmp_path)) if row.startswith("bad")]
    assert "failed: the loss must stay finite, got nan at step 2" in row
    assert "Traceback" not in row


# --- Figures that keep inside


def test_an_energy_that_hardly_moves_is_not_cut_away() -> None:
    history = [{"epoch": e, "svi/lam": 0.03, "svi/energy_nj": 43.9 - 0.01 * e, "svi/budget_nj": 0.0} for e in (10, 15)]
    above = plots.price_trace(history).axes[0]
    low, high = above.get_ylim()
    assert low == 0
    assert high > 43.8 * 1.05


HISTORY = [{"epoch": 1, "val/nll": 1.0}, {"epoch": 9, "val/nll": 0.5}]


@pytest.mark.parametrize(
    "figure",
    [
        lambda: plots.overlaid_curves(dict.fromkeys(("a" * 80, "b", "c"), HISTORY), "val/nll"),
        lambda: plots.accuracy_energy(np.arange(1.0, 4), np.linspace(0.5, 0.9, 3), ["a", "a", "b"], "45nm"),
        lambda: plots.exit_curves({n: (np.array([1.0, 8]), np.array([0.2, 0.9])) for n in ("variational", "fixed")}, 8),
    ],
)  # fmt: skip
def test_legends_lie_beside_the_axes_and_inside_the_figure(figure) -> None:
    drawn = figure()
    drawn.canvas.draw()
    (legend,) = drawn.legends
    box, whole = legend.get_window_extent(), drawn.bbox
    assert whole.x0 - 1 <= box.x0
    assert box.x1 <= whole.x1 + 1
    for axes in drawn.axes:
        assert not box.overlaps(axes.get_tightbbox())


def test_every_table_of_a_page_scrolls_in_its_card(tmp_path: Path) -> None:
    html = write_report(a_run(tmp_path / "run")).read_text()
    assert len(re.findall(r"<table", html)) == len(re.findall(r'<div class="scroll"[^>]*>\s*<table', html)) > 3
