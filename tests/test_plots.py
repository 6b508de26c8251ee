"""Figures show the numbers they were given, look the same each time, and leave no trace in Matplotlib."""

import itertools
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_hex

from dsnn import plots


def texts(figure) -> str:
    return "\n".join(ElementTree.fromstring(plots.to_svg(figure)).itertext())


def opacity(axes) -> np.ndarray:
    return np.asarray(axes.images[0].get_array())[..., 3]


def history(epochs: int = 6) -> list[dict]:
    return [{"step": 10 * e, "epoch": e, "train/loss": 1 / e, "val/accuracy": 1 - 1 / e} for e in range(1, epochs + 1)]


RNG = np.random.default_rng(0)
NAN = np.nan
GRID = np.stack(np.meshgrid(np.linspace(-1, 1, 5), np.linspace(0, 2, 4)), -1)
SPIKES = {"hidden0": RNG.random((16, 128)) < 0.1, "conv": RNG.random((16, 4, 4, 2)) < 0.1}
MEMBRANES = {"a": RNG.normal(size=(16, 8)), "b": RNG.normal(size=(16, 1))}
COSTS = {"45nm": {"snn_nj": 12.0, "ungated_nj": 90.0, "rival/dense_nj": 50}, "x": {"snn_nj": 0.0}}
LABELS = {"snn_nj": "ours", "ungated_nj": "all sites", "rival/dense_nj": "dense", "rival/pruned_nj": "pruned"}
PRICED = [{"epoch": e, "svi/lam": 0.1 * e, "svi/energy_nj": 9.0 / e, "svi/budget_nj": 8.0 / e} for e in range(1, 5)]
SETTINGS = {"model.cell": ["LIF", "ALIF"], "lam": [0.1, 10.0], "same": [1, 1], "test/accuracy": [0.9, 0.8]}
FIGURES = {
    "raster": lambda: plots.raster(SPIKES, 6),
    "raster_long": lambda: plots.raster({"hidden0": RNG.random((300, 3)) < 0.1}),
    "membrane_traces": lambda: plots.membrane_traces(MEMBRANES, {"a": 1}, 4),
    "gate_map": lambda: plots.gate_map({"input": RNG.random(64), "hidden0": RNG.random(128)}, (8, 8, 1)),
    "gate_map_many": lambda: plots.gate_map({f"block{i}": RNG.random(1 + 7 * i) for i in range(7)}),
    "gate_map_large": lambda: plots.gate_map({"input": RNG.random(3 * 32 * 32)}, (32, 32, 3)),
    "gate_map_one": lambda: plots.gate_map({"hidden0": np.ones(1)}),
    "running_decision": lambda: plots.running_decision(RNG.normal(size=(16, 10)), 4, 3, picture=RNG.random((8, 8, 1))),
    "running_decision_two_classes": lambda: plots.running_decision(RNG.normal(size=(1, 2))),
    "running_decision_why": lambda: plots.running_decision(
        RNG.normal(size=(8, 10)), 3, 3, picture=RNG.random((8, 8, 1)), stopped=np.linspace(0.1, 1, 8), quantile=0.3
    ),
    "running_decision_extreme": lambda: plots.running_decision(
        RNG.normal(size=(8, 10)), 3, 3, stopped=np.append(np.geomspace(1e-30, 1e-3, 7), 1), quantile=3e-7
    ),
    "exit_curves": lambda: plots.exit_curves({"dt_snn": (np.array([2.0, 1.0]), np.array([0.9, 0.8]))}, 2, (1.5, 0.85)),
    "steps_histogram": lambda: plots.steps_histogram(np.array([1, 4, 4, 16]), 16),
    "reliability": lambda: plots.reliability(np.array([0.2, NAN, 0.9]), np.array([0.1, NAN, 1]), np.array([3, 0, 9])),
    "learning_curves": lambda: plots.learning_curves(history()),
    "learning_curves_one": lambda: plots.learning_curves(history(1)),
    "learning_curves_none": lambda: plots.learning_curves([{"step": 1}]),
    "overlaid_curves": lambda: plots.overlaid_curves({"a": history(), "b": history(2), "c": []}, "val/accuracy"),
    "uncertainty_histogram": lambda: plots.uncertainty_histogram(RNG.random(50), {"kmnist": RNG.random(40) + 1}),
    "risk_coverage": lambda: plots.risk_coverage(np.linspace(0.1, 1, 10), np.linspace(0, 0.3, 10)),
    "step_calibration": lambda: plots.step_calibration(
        np.array([0, 50]), np.array([0.4, 0.9]), np.array([0.6, 0.9]), 80
    ),
    "detection": lambda: plots.detection(*np.array([[0.9, 0.5], [NAN, 0.1], [1, 0.2], [np.inf, 3]]), [0.5]),
    "detection_without_onsets": lambda: plots.detection(np.array([0.9, 0.5]), np.zeros(2), *np.full((2, 2), NAN)),
    "believed_sequence": lambda: plots.believed_sequence(RNG.dirichlet(np.ones(3), 30), RNG.integers(-1, 3, 30), "abc"),
    "posterior": lambda: plots.posterior({f"p[{i}]": RNG.normal(size=50) for i in range(4)}, {"p[0]": np.arange(9.0)}),
    "posterior_of_a_point": lambda: plots.posterior({"p": np.ones(50)}, truth={"p": 1}),
    "uncertainty_map": lambda: plots.uncertainty_map(GRID, {"a": GRID[..., 0] ** 2}, RNG.normal(size=(9, 2))),
    "intervals": lambda: plots.intervals(np.zeros(1), np.zeros(1) - 1, np.ones(1), np.zeros(1)),
    "energy_bars": lambda: plots.energy_bars(COSTS, LABELS),
    "accuracy_energy": lambda: plots.accuracy_energy(np.array([3.0, 1, 200]), np.array([0.9, 0.8, 0.95]), list("abc")),
    "price_trace": lambda: plots.price_trace(PRICED),
    "price_trace_given": lambda: plots.price_trace([{**r, "svi/lam": 0.0, "svi/budget_nj": 0.0} for r in PRICED]),
    "parallel_coordinates": lambda: plots.parallel_coordinates(SETTINGS, "test/accuracy"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_draws_on_both_ways_out(name, tmp_path):
    figure = FIGURES[name]()
    png = plots.save_png(figure, tmp_path / "deep" / "figure.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    svg = ElementTree.fromstring(plots.to_svg(figure))
    assert svg.tag.endswith("svg")
    assert "width" not in svg.attrib
    assert "http" not in "".join(svg.itertext())
    assert figure.get_figwidth() < 9


def test_drawing_changes_no_global_setting_and_opens_no_pyplot():
    """In a process of its own, where nothing was drawn before."""
    code = """
import sys
import matplotlib
before = dict(matplotlib.rcParams)
import numpy as np
from dsnn import plots
plots.to_svg(plots.raster({"hidden0": np.eye(4) > 0}))
assert dict(matplotlib.rcParams) == before
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_same_figure_is_the_same_file(tmp_path):
    spikes = {"hidden0": np.eye(16, 20) > 0}
    assert plots.to_svg(plots.raster(spikes, 4)) == plots.to_svg(plots.raster(spikes, 4))


def test_text_is_escaped_in_svg():
    svg = plots.to_svg(plots.raster({"<script>alert(1)</script>": np.eye(4) > 0}))
    assert "<script" not in svg
    assert "&lt;script&gt;" in svg


def test_raster_draws_each_spike_in_its_row_and_step():
    spikes = RNG.random((100, 7)) < 0.3
    figure = plots.raster({"hidden0": spikes})
    assert np.array_equal(opacity(figure.axes[0]), spikes.T.astype(float))
    assert f"{100 * spikes.mean():.1f} % of steps spike" in texts(figure)


def test_raster_of_few_steps_leaves_a_gap_between_them():
    spikes = np.ones((3, 2), bool)
    drawn = opacity(plots.raster({"hidden0": spikes}).axes[0])
    assert drawn.reshape(2, 3, -1).max(axis=2).tolist() == [[1, 1, 1], [1, 1, 1]]
    assert drawn[0].tolist() == [0, 1, 1, 1, 1, 1, 1, 0] * 3


def test_gate_map_keeps_the_picture_and_counts_what_runs():
    gates = np.zeros((8, 8))
    gates[2:5, 3:6] = 0.9
    figure = plots.gate_map({"input": gates.ravel(), "hidden0": np.array([0.1, 0.9, 0.6, 0.2, 0.7])}, (8, 8))
    assert np.allclose(opacity(figure.axes[0]), gates)
    neurons = opacity(figure.axes[1])
    assert np.allclose(neurons, [[0.9, 0.7, 0.6], [0.2, 0.1, 0.0]])
    assert "9 of 64 run" in texts(figure)
    assert "3 of 5 run" in texts(figure)


def test_gate_map_takes_counts_of_the_deployed_network():
    assert "4 of 5 run" in texts(plots.gate_map({"hidden0": np.full(5, 0.4)}, kept={"hidden0": 4}))


@pytest.mark.parametrize("shape", [None, (700,), (8, 9), (64, 1), (100, 8, 64)])
def test_gate_map_of_an_input_that_is_no_picture_is_a_sorted_grid(shape):
    gates = RNG.random(64)
    drawn = opacity(plots.gate_map({"input": gates}, shape).axes[0])
    assert np.allclose(drawn.ravel(), np.sort(gates)[::-1])


def test_running_decision_says_answer_step_and_truth():
    logits = np.zeros((10, 3))
    logits[4:, 2] = 5.0
    assert "answers 2 after 6 of 10 steps (right)" in texts(plots.running_decision(logits, 6, 2))
    assert "answers 2 after 6 of 10 steps (wrong: it is 1)" in texts(plots.running_decision(logits, 6, 1))
    assert "answers cat after 10 of 10 steps" in texts(plots.running_decision(logits, class_names=("a", "b", "cat")))


def test_running_decision_draws_probabilities():
    logits = RNG.normal(size=(5, 3))
    figure = plots.running_decision(logits, label=0)
    drawn = np.sort([line.get_ydata()[2] for line in figure.axes[0].lines if len(line.get_ydata()) == 5])
    assert np.allclose(drawn, np.sort(np.exp(logits[2]) / np.exp(logits[2]).sum()))


def test_steps_histogram_counts_and_rounds():
    figure = plots.steps_histogram(np.array([1.0, 3.4, 2.6, 3.0, 4.0], np.float32), 4)
    assert [bar.get_height() for bar in figure.axes[0].patches] == pytest.approx([20, 0, 60, 20])
    assert "mean 2.8 of 4" in texts(figure)


def test_risk_coverage_stays_small_and_ends_at_the_error_of_all():
    figure = plots.risk_coverage(np.arange(1, 20001) / 20000, np.linspace(0, 0.25, 20000))
    assert len(plots.to_svg(figure)) < 80_000
    assert figure.axes[0].lines[0].get_xydata()[-1].tolist() == [100.0, 25.0]
    assert "all answered, 25.0 % wrong" in texts(figure)


def test_reliability_draws_filled_bins_only():
    figure = plots.reliability(np.array([0.2, np.nan, 0.9]), np.array([0.1, np.nan, 1.0]), np.array([1, 0, 3]), 0.05)
    assert figure.axes[0].collections[-1].get_offsets().tolist() == [[0.2, 0.1], [0.9, 1.0]]
    assert [bar.get_height() for bar in figure.axes[1].patches] == pytest.approx([25, 75])
    assert "expected calibration error 0.050" in texts(figure)


def test_learning_curves_leave_out_what_is_not_there_and_skip_gaps():
    records = [{"step": 1, "train/loss": 2.0}, {"step": 2, "train/loss": None}, {"step": 3, "train/loss": 1.0}]
    figure = plots.learning_curves(records)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss"]
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[1, 2.0], [3, 1.0]]
    assert figure.axes[0].get_xlabel() == "step"


def test_overlaid_curves_name_runs_while_they_can_be_told_apart():
    few = plots.overlaid_curves({"a": history(), "b": history()}, "val/accuracy")
    many = plots.overlaid_curves({str(i): history() for i in range(9)}, "val/accuracy")
    assert [text.get_text() for text in few.legends[0].get_texts()] == ["a", "b"]
    assert many.legends == []
    assert len(many.axes[0].lines) == 9


@pytest.mark.parametrize(
    ("nanojoules", "said"),
    [(12.34, "12.3 nJ"), (0.5, "500 pJ"), (1500, "1.5 µJ"), (2.5e6, "2.5 mJ"), (0.0, "0 pJ"), (999, "999 nJ")],
)
def test_energies_are_said_in_their_unit(nanojoules, said):
    assert plots.format_nj(nanojoules) == said


def test_energy_bars_are_as_long_as_the_energies():
    costs = {"snn_nj": 12.0, "rival/dense_nj": 50.0, "rival/pruned_nj": 3.0, "ratio": 0.24}
    figure = plots.energy_bars({"45nm": costs}, LABELS)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [12.0, 50.0, 3.0]
    assert "50 nJ" in texts(figure)
    colours = [to_hex(bar.get_facecolor()) for bar in figure.axes[0].patches]
    assert colours == [plots.ACCENT, plots.MUTED, plots.SERIES[1]], "a rival that is cheaper stands out"


def test_front_is_what_no_run_beats():
    energy, accuracy = RNG.integers(0, 12, 40).astype(float), RNG.integers(0, 12, 40).astype(float)
    front = plots.pareto_front(energy, accuracy)

    def beaten(i: int, j: int) -> bool:
        return bool(
            energy[j] <= energy[i]
            and accuracy[j] >= accuracy[i]
            and (energy[j], accuracy[j]) != (energy[i], accuracy[i])
        )

    unbeaten = {(energy[i], accuracy[i]) for i in range(40) if not any(beaten(i, j) for j in range(40))}
    assert {(energy[i], accuracy[i]) for i in front} == unbeaten
    assert all(energy[a] < energy[b] and accuracy[a] < accuracy[b] for a, b in itertools.pairwise(front))


def test_parallel_coordinates_place_runs_by_value():
    columns = {"cell": ["b", "a", "b"], "rate": [1e-4, 1e-2, 1e-3], "kept": [0.2, 0.4, 0.3], "same": [5.0, 5.0, 5.0]}
    figure = plots.parallel_coordinates(columns, "kept")
    lines = sorted(tuple(line.get_ydata()) for line in figure.axes[0].lines if len(line.get_ydata()) == 4)
    assert np.allclose(lines, [(0, 0, 0, 0.5), (0, 0.5, 0.5, 0.5), (1, 1, 1, 0.5)])


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of linear sRGB."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    f = np.cbrt(np.clip(rgb, 1e-4, 1) @ to_xyz.T / [0.9505, 1.0, 1.089])
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize(
    "missing_cone",
    [np.eye(3), [[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]], [[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]]],
    ids=["full", "deuteranope", "protanope"],
)
def test_first_four_colours_are_told_apart_under_colour_blindness(missing_cone):
    """Simulation of Vienot, Brettel & Mollon 1999; a difference of 20 in L*a*b* is seen at a glance."""
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    srgb = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in plots.SERIES[:4]])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = lab(linear @ (np.linalg.inv(to_lms) @ np.asarray(missing_cone) @ to_lms).T)
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 20


def test_a_posterior_is_a_density_beside_its_prior_and_the_truth():
    draws = RNG.normal(2.0, 0.1, 5000)
    figure = plots.posterior({"tau": draws}, {"tau": RNG.normal(0.0, 1.0, 5000)}, {"tau": 2.1})
    filled, outline = (patch.get_data() for patch in figure.axes[0].patches)
    for shape, held in ((filled, 1.0), (outline, 0.98)):
        assert abs(np.sum(shape.values * np.diff(shape.edges)) - held) < 0.015
    peak = filled.edges[np.argmax(filled.values)]
    assert abs(peak - 2.0) < 0.25
    assert figure.axes[0].lines[0].get_xdata()[0] == 2.1


def test_an_uncertainty_map_puts_values_where_they_belong():
    figure = plots.uncertainty_map(GRID, {"doubt": GRID[..., 1]}, np.array([[0.0, 1.0]]), np.array([1]))
    image = figure.axes[0].images[0]
    assert tuple(image.get_extent()) == (-1, 1, 0, 2)
    assert image.origin == "lower"
    assert np.array_equal(image.get_array(), GRID[..., 1])
    assert figure.axes[0].collections[0].get_offsets().tolist() == [[0.0, 1.0]]


def test_intervals_count_what_they_hold():
    targets = np.array([0.0, 5.0, 1.0, -1.0])
    figure = plots.intervals(np.zeros(4), np.full(4, -1.0), np.ones(4), targets, 0.9)
    assert "75.0 % of 4 inside, 90 % promised" in texts(figure)


def test_a_stopped_example_says_why():
    stopped = np.array([0.1, 0.4, 0.8, 1.0])
    assert "0.80 reaches 0.5" in texts(plots.running_decision(RNG.normal(size=(4, 3)), 3, stopped=stopped))
    late = texts(plots.running_decision(RNG.normal(size=(4, 3)), 4, stopped=stopped / 10))
    assert "time is over" in late


def test_exit_curves_draw_every_rule_and_the_deployed_point():
    curves = {name: (np.array([8.0, 1.0]), np.array([0.98, 0.9])) for name in ("variational", "dt_snn", "fixed")}
    figure = plots.exit_curves(curves, 8, (1.3, 0.975))
    axes = figure.axes[0]
    drawn = {line.get_label(): line for line in axes.lines}
    assert drawn["entropy (DT-SNN)"].get_xdata().tolist() == [1.0, 8.0]
    assert drawn["as deployed"].get_xdata() == [1.3]
