"""A metric and callbacks."""

import numpy as np

import dsnn


def spikes_per_right_answer(finished):
    rate = finished.metrics["compute/spike_rate"]
    probs = dsnn.predict(finished.fitted, np.asarray(finished.split.train.x[:8]), samples=2).probs
    return {"own/spikes_per_right_answer": rate / max(finished.metrics["test/accuracy"], 1e-9), "own/rows": len(probs)}


def fails(finished):
    return {"own/nothing": finished.metrics["nothing"]}


def after_two(progress):
    assert progress.fitted.losses
    return progress.epoch >= 2


def never(progress):
    print(f"own callback: {progress.epoch} of {progress.epochs}, {progress.metrics['val/accuracy']:.2f}")
