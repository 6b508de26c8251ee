"""Gradients other than backpropagation through surrogate derivatives, and which one to take.

What stands in for the derivative of a spike is chosen with the neuron, or by calling a function of this package:

| estimator | how | bias | spread | take it |
|---|---|---|---|---|
| expected derivative | a noisy cell without ``surrogate`` | small, from step two on | low | first: no setting |
| surrogate | ``surrogate="atan"``, ... | by its shape and height | low | for a cell without noise |
| straight-through | ``surrogate="straight_through"`` | large | low | to compare with papers that use it |
| concrete, hard | ``noise=Concrete(Logistic(w), t)`` | falls with t | grows as t falls | to check a result for bias |
| concrete, relaxed | ``Concrete(..., hard=False)`` | falls with t | grows as t falls | if spikes may be fractions |
| score function | `score_gradient` | none | high, grows with the network | for losses that cannot be differentiated |
| enumeration | `exact_gradient` | none | none | as the oracle, up to 16 possible spikes |

`experiments/studies/gradient_estimators.md` measures bias and spread of each against enumeration.

Learning rules whose memory does not grow with time:

| rule | what it leaves out | take it |
|---|---|---|
| `truncated_gradient` | what a state owes to earlier windows | long sequences, credit within a window |
| `eprop_gradient` | the path over other neurons' spikes | one recurrent layer, online |
| `fptt` | as truncation, but pulled to a running average | an update every few steps of a long sequence |

Backpropagation through time with ``memory="sqrt"`` (see `dsnn.unroll`) is exact at a memory that grows as the root.
"""

from dsnn.learn.gradients.eprop import eprop_gradient
from dsnn.learn.gradients.exact import exact_gradient
from dsnn.learn.gradients.fptt import FPTT, FPTTState, fptt
from dsnn.learn.gradients.score import sample, score_gradient
from dsnn.learn.gradients.truncated import truncated_gradient
from dsnn.learn.gradients.windows import over_windows

__all__ = [
    "FPTT",
    "FPTTState",
    "eprop_gradient",
    "exact_gradient",
    "fptt",
    "over_windows",
    "sample",
    "score_gradient",
    "truncated_gradient",
]
