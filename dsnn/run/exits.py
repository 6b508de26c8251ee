"""Stopping rules compared on finished runs: ``python -m experiments.exits run=DIR[,DIR] [json=FILE] [figure=FILE]``.

For each run, on its own network and test part: the variational rule fitted on the examples that select at a range
of prices (the λ curve) and swept over its quantile, DT-SNN's entropy rule, SEENN-I's confidence rule and fixed
stopping; differences to DT-SNN with intervals over resampled test examples; the certified risk over resampled splits;
and, where the data have a planted difficulty, its rank correlation with the step at which the rule stops.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from dsnn import evaluate, store
from dsnn.bayes import halting
from dsnn.deploy import exit_calibration
from dsnn.deploy.decided import deploy, running
from dsnn.deploy.refit import Refit, refit
from dsnn.run import exit_rule
from dsnn.run.finished import Finished, finished, options
from dsnn.simulate.early_exit import normalised_entropy

KNOWN = {"run": "", "json": "", "figure": "", "feature": "", "entropy": "", "splits": "100", "trust": "false"}
PRICES = np.geomspace(3e-4, 0.1, 12)
RISKS = (0.002, 0.005, 0.01)
DELTA = 0.1
Rule = tuple[np.ndarray, np.ndarray]


def compared(run: Finished, feature: str, entropy: float | None, splits: int) -> dict[str, Any]:
    """Returns everything that is compared on one run."""
    setup, params = run.setup, run.settled.params
    deployed = deploy(setup.bayesian, params)
    select, certify, test = setup.split.val, setup.split.certify, setup.split.test
    assert certify is not None, "a setup has assigned them"
    held, late, seen = (running(setup.bayesian, deployed, part.x, setup.root) for part in (select, certify, test))
    right = seen.argmax(-1) == np.asarray(test.y)
    fits = fitted(held, np.asarray(select.y), feature, entropy)
    curves, points = _curves(setup, params, seen, right, fits, feature)
    table: dict[str, Any] = {
        "run": run.directory.name,
        "steps_total": len(seen),
        "feature": feature,
        "entropy": entropy,
        "prices": PRICES.tolist(),
        "accuracy_by_step": right.mean(1).tolist(),
        "lambda_curve": [[float(steps), float(accuracy)] for steps, accuracy in points],
        "curves": {name: [column.tolist() for column in curve] for name, curve in curves.items()},
        "within": {name: _cheapest(curve, right[-1].mean() - 0.001) for name, curve in curves.items()},
        "differences": _differences(seen, right, fits, feature),
    }
    chosen = _selected(late, np.asarray(certify.y), fits, feature)
    table["selected"] = {
        "price": float(PRICES[chosen]),
        "steps": float(points[chosen][0]),
        "accuracy": float(points[chosen][1]),
        "accuracy_all_steps": float(right[-1].mean()),
    }
    # the price was chosen on the examples that certify, so the bound is tried on splits of the test part
    found = _odds(fits, chosen, feature)
    odds, thresholds = found(seen), exit_calibration.candidates(found(held))
    table["certified"] = [_certified(odds, right, thresholds, len(certify.y), risk, splits) for risk in RISKS]
    if (hard := setup.split.truth.get("test/difficulty")) is not None:
        stops = [halting.stop_step(_hazards(fits, k, feature)(seen)) for k in range(len(PRICES))]
        table["spearman"] = [_spearman(np.asarray(stop), hard) for stop in stops]
        table["spearman_selected"] = table["spearman"][chosen]
        own = exit_rule.scores(setup, params, seen)["variational"]
        table["spearman_of_run"] = _spearman(evaluate.exit_steps(own, run.settled.threshold), hard)
    return table


def fitted(logits: np.ndarray, labels: np.ndarray, feature: str, entropy: float | None) -> Refit:
    """Returns the heads of all prices, stacked; one program."""

    def every(logits: Any, labels: Any, prices: Any) -> Refit:
        return jax.lax.map(lambda price: refit(logits, labels, price, feature=feature, entropy=entropy), prices)

    return jax.jit(every)(jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(PRICES))


def _hazards(fits: Refit, k: int, feature: str) -> Any:
    head = jax.tree.map(lambda a: a[k], fits.head)
    return jax.jit(lambda logits: halting.hazard_logits(head, logits, feature))


def _odds(fits: Refit, k: int, feature: str) -> Any:
    hazards = _hazards(fits, k, feature)
    return lambda logits: np.asarray(halting.log_odds_stopped(hazards(jnp.asarray(logits))), float)


def _taken(stop: np.ndarray, right: np.ndarray) -> Rule:
    return stop, np.take_along_axis(right, stop[None] - 1, 0)[0]


def _curves(
    setup: Any, params: Any, logits: np.ndarray, right: np.ndarray, fits: Refit, feature: str
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], list[tuple[float, float]]]:
    """Returns (steps, accuracy) of every rule, and the points of the λ curve."""
    points = []
    for k in range(len(PRICES)):
        stop, ok = _taken(np.asarray(halting.stop_step(_hazards(fits, k, feature)(logits))), right)
        points.append((stop.mean(), ok.mean()))
    by_price = np.array(points)
    curves = {"variational_price": (by_price[:, 0], by_price[:, 1])}
    every = exit_rule.scores(setup, params, logits)
    every["variational"] = _odds(fits, len(PRICES) // 2, feature)(logits)
    for name, score in every.items():
        curve = evaluate.exit_curve(score, right)
        curves[name] = (curve.steps, curve.accuracy)
    return curves, points


def _cheapest(curve: tuple[np.ndarray, np.ndarray], accuracy: float) -> float:
    """Returns the fewest mean steps at which a curve reaches an accuracy."""
    steps, reached = curve
    return float(steps[reached >= accuracy].min(initial=np.inf))


def _differences(logits: np.ndarray, right: np.ndarray, fits: Refit, feature: str) -> list[dict[str, float]]:
    """Returns, for every price, the variational rule less DT-SNN at the same mean steps, with a 95 % interval.

    The estimate and its interval are of one quantity: DT-SNN's curve at the rule's mean steps, the curve and the mean
    steps both drawn anew with the examples.
    """
    entropy = -np.asarray(normalised_entropy(jnp.asarray(logits)), float)
    count = right.shape[1]
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=200) / count
    curve = evaluate.exit_curve(entropy, right, 400)
    rivals = [_taken(evaluate.exit_steps(entropy, threshold), right) for threshold in curve.threshold]
    steps, accuracy = (np.stack(column) @ drawn.T for column in zip(*rivals, strict=True))
    out = []
    for k, price in enumerate(PRICES):
        stop, ok = _taken(np.asarray(halting.stop_step(_hazards(fits, k, feature)(logits))), right)
        spread = [
            ok @ own - evaluate.accuracy_at(evaluate.ExitCurve(curve.threshold, steps[:, i], accuracy[:, i]),
                                            np.array([stop @ own]))[0]
            for i, own in enumerate(drawn)
        ]  # fmt: skip
        low, high = np.quantile(spread, [0.025, 0.975])
        exact = evaluate.accuracy_at(curve, np.array([stop.mean()]))[0]
        out.append({"price": float(price), "steps": float(stop.mean()), "accuracy": float(ok.mean()),
                    "dt_snn_interpolated": float(exact),
                    "difference": float(ok.mean() - exact), "low": float(low), "high": float(high)})  # fmt: skip
    return out


def _selected(logits: np.ndarray, labels: np.ndarray, fits: Refit, feature: str) -> int:
    """Returns the dearest price whose accuracy on the examples that certify is within 0.05 points of all steps."""
    right = logits.argmax(-1) == labels
    for k in reversed(range(len(PRICES))):
        _, ok = _taken(np.asarray(halting.stop_step(_hazards(fits, k, feature)(logits))), right)
        if ok.mean() >= right[-1].mean() - 0.0005:
            return k
    return 0


def _certified(
    odds: np.ndarray, right: np.ndarray, thresholds: np.ndarray, count: int, risk: float, splits: int
) -> dict[str, float]:
    """Returns how often the certified rule broke its bound, and what it saved.

    Twice: on splits of the examples into calibration and rest, and with calibration examples drawn with replacement, so
    that the examples are the whole population and the true risk is known. A split's rest is finite and lacks what was
    drawn, so there the bound looks broken somewhat more often than it is.
    """
    rng = np.random.default_rng(0)
    examples = odds.shape[1]
    broke, broke_drawn, steps, extra, lost = 0, 0, [], [], []
    for _ in range(splits):
        order = rng.permutation(examples)
        cal, rest = order[:count], order[count:]
        best = evaluate.certified_threshold(odds[:, cal], right[:, cal], thresholds, risk, DELTA)
        share = evaluate.extra_errors(odds[:, rest], right[:, rest], best).mean()
        stop, ok = _taken(evaluate.exit_steps(odds[:, rest], best), right[:, rest])
        broke += share > risk
        steps.append(stop.mean())
        extra.append(share)
        lost.append(right[-1, rest].mean() - ok.mean())
        drawn = rng.integers(examples, size=count)
        best = evaluate.certified_threshold(odds[:, drawn], right[:, drawn], thresholds, risk, DELTA)
        broke_drawn += evaluate.extra_errors(odds, right, best).mean() > risk
    return {
        "risk": risk,
        "delta": DELTA,
        "splits": splits,
        "calibrated_on": count,
        "broken": int(broke),
        "broken_drawn": int(broke_drawn),
        "steps": float(np.mean(steps)),
        "extra_errors": float(np.mean(extra)),
        "worst_extra_errors": float(np.max(extra)),
        "lost_accuracy": float(np.mean(lost)),
    }


def _spearman(stop: np.ndarray, hard: np.ndarray) -> float:
    """Returns the rank correlation; 0 where all stop at one step."""
    return 0.0 if len(set(stop.tolist())) == 1 else float(stats.spearmanr(stop, hard).statistic)


def markdown(table: dict[str, Any]) -> str:
    """Returns the comparison of one run in words and tables."""
    total, chosen = table["steps_total"], table["selected"]
    by_step = " ".join(f"{100 * a:.2f}" for a in table["accuracy_by_step"])
    lines = [
        f"### {table['run']}: T = {total}, feature {table['feature']}", "",
        f"Accuracy of stopping all at step 1, 2, ...: {by_step} %.", "",
        f"Selected on validation: price {chosen['price']:.2g}, {chosen['steps']:.2f} steps "
        f"({100 * chosen['steps'] / total:.0f} %), {100 * chosen['accuracy']:.2f} % against "
        f"{100 * chosen['accuracy_all_steps']:.2f} % at all steps.", "",
        "Fewest mean steps within 0.1 point of all steps: "
        + ", ".join(f"{name} {steps:.2f}" for name, steps in table["within"].items()) + ".", "",
        "| price | steps | variational | DT-SNN at the same steps | difference, points (95 %) |", "|" + " --- |" * 5,
    ]  # fmt: skip
    lines += [
        f"| {row['price']:.4f} | {row['steps']:.2f} | {100 * row['accuracy']:.2f} | "
        f"{100 * row['dt_snn_interpolated']:.2f} | {100 * row['difference']:+.2f} "
        f"({100 * row['low']:+.2f} to {100 * row['high']:+.2f}) |"
        for row in table["differences"]
    ]
    lines += [
        "",
        "| risk | broken on splits | on draws | mean steps | extra errors, mean and worst | accuracy lost |",
        "|" + " --- |" * 6,
    ]
    for row in table["certified"]:
        lines.append(
            f"| {row['risk']} | {row['broken']} of {row['splits']} | {row['broken_drawn']} | {row['steps']:.2f} | "
            f"{row['extra_errors']:.4f}, {row['worst_extra_errors']:.4f} | {row['lost_accuracy']:.4f} |"
        )
    if "spearman" in table:
        best, own = max(table["spearman"]), table["spearman_of_run"]
        lines += ["", "Spearman correlation of step and difficulty:"]
        lines += [f"{table['spearman_selected']:.3f} at the selected price, {best:.3f} at best, {own:.3f} of the run."]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Prints the comparison of every run; returns 2 when the call cannot be meant."""
    try:
        chosen = options(sys.argv[1:] if arguments is None else arguments, KNOWN)
        tables = []
        for directory in chosen["run"].split(","):
            run = finished(directory)
            if run.setup.bayesian.halting is None or not len(run.setup.split.val.x):
                raise ValueError(
                    f"rules are compared on runs with halting and validation examples, {directory} has not."
                )
            feature = chosen["feature"] or "learned"
            entropy = float(chosen["entropy"]) if chosen["entropy"] else None
            tables.append(compared(run, feature, entropy, int(chosen["splits"])))
            print(markdown(tables[-1]), end="\n\n", flush=True)
    except (ValueError, store.RunDirError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if chosen["figure"]:
        from dsnn import plots

        curves = {name: (np.array(steps), np.array(a)) for name, (steps, a) in tables[0]["curves"].items()}
        plots.save_png(plots.exit_curves(curves, tables[0]["steps_total"]), chosen["figure"])
    if chosen["json"]:
        Path(chosen["json"]).write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
