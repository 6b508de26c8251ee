"""Inference in a notebook: ``fit`` arrays, ``predict`` others, and see ``where`` the network computes.

    fitted = dsnn.fit(x, y, hidden=[64], epochs=50)
    probs = dsnn.predict(fitted, x_new).probs
    dsnn.where(fitted)
    fitted.save("kept"); dsnn.load("kept")

The same parts as a run of ``dsnn run``, without its directory.
"""

from dsnn.api.fitted import Fitted, predict, summary, where
from dsnn.api.fitting import fit, load, more

__all__ = ["Fitted", "fit", "load", "more", "predict", "summary", "where"]
