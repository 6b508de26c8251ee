"""Gradients other than backpropagation through surrogate derivatives.

What stands in for the derivative of a spike is chosen with the neuron:

* ``surrogate="atan"``, ... on a cell: a named pseudo-derivative (biased; low variance; the usual choice);
* no surrogate on a noisy cell: the density of its noise, i.e. the derivative of the expected spike (biased from the
  second layer or step on; no hyper-parameter);
* ``surrogate="straight_through"``: derivative one (biased);
* `dsnn.escape.Concrete`: a pathwise gradient through the drawn noise (bias falls and variance rises with temperature).

Here are the others: `score_gradient` (unbiased, high variance), `exact_gradient` (the oracle of the rest, for tiny
networks), and learning rules whose memory does not grow with time: `truncated_gradient`, `eprop_gradient` and `fptt`.
`experiments/studies/gradients.md` measures bias and variance of each.
"""

from dsnn.gradients.eprop import eprop_gradient
from dsnn.gradients.exact import exact_gradient
from dsnn.gradients.fptt import FPTT, FPTTState, fptt
from dsnn.gradients.score import sample, score_gradient
from dsnn.gradients.truncated import truncated_gradient

__all__ = [
    "FPTT",
    "FPTTState",
    "eprop_gradient",
    "exact_gradient",
    "fptt",
    "sample",
    "score_gradient",
    "truncated_gradient",
]
