"""What one update of a neuron costs, by kind, in operations that a profile can price.

An update is one time step of one neuron: decay and addition of the current (the bias included), comparison with the
threshold. The subtraction at a spike is priced per spike. These are counts of arithmetic on scalars, from the
recurrences; a chip that publishes joules per update replaces them (`Profile.update_pj`).
"""

from typing import Any, NamedTuple

__all__ = ["NEURONS", "NeuronCost", "has_cost", "neuron_cost", "priced_as"]

UNKNOWN = "LIF"
"""As what a neuron is priced that does not say what it costs."""


class NeuronCost(NamedTuple):
    """Operations of one neuron update, and the state variables it reads and writes.

    Args:
        macs: Multiply-accumulates.
        acs: Additions.
        compares: Comparisons with a threshold (for a ReLU, with zero).
        states: State variables that must be read and written back.
        fires: Whether its output is spikes, which NeuroBench's activation sparsity counts.
    """

    macs: int
    acs: int
    compares: int
    states: int
    fires: bool = True


NEURONS = {
    "IF": NeuronCost(macs=0, acs=1, compares=1, states=1),
    "LIF": NeuronCost(macs=1, acs=0, compares=1, states=1),
    # Two comparisons with the membrane; what was sent is a state that changes with spikes (Li, Ma & Furber 2022).
    "SignedIF": NeuronCost(macs=0, acs=1, compares=2, states=2),
    "CuBaLIF": NeuronCost(macs=2, acs=0, compares=1, states=2),
    # Yin, Corradi & Bohte 2021 (arXiv 2103.12593) charge an adaptive neuron 3 MAC a step, its comparison not counted.
    "ALIF": NeuronCost(macs=3, acs=0, compares=0, states=2),
    "LI": NeuronCost(macs=1, acs=0, compares=0, states=1, fires=False),
    # u + dt (b u - w v + I), v + dt (w u + b v): four products (Izhikevich 2001; Higuchi et al. 2024, eq. 2).
    "RF": NeuronCost(macs=4, acs=0, compares=1, states=2),
    # RF, and q' = gamma q + z and the divergence bound b = p(w) - b' - q (Higuchi et al. 2024, eqs. 6 to 9).
    "BRF": NeuronCost(macs=5, acs=2, compares=1, states=3),
    # a = s + rho (a - s), u = u + k (I - u), theta + strength a (Yin, Corradi & Bohte 2023). The dense products and the
    # sigmoids behind rho and k are not in here: each is recorded as a synapse of twice the width to the width.
    "LTC": NeuronCost(macs=3, acs=2, compares=1, states=2),
    # Leak, slope, exponential's scale and resistance; coupling and decay of w (Brette & Gerstner 2005). The exponential
    # itself is not counted.
    "AdEx": NeuronCost(macs=6, acs=3, compares=1, states=2),
    # (0.04 v + 5) v and its step, with 140 - r + I, twice; a (b v - r) (Izhikevich 2003, his program).
    "Izhikevich": NeuronCost(macs=8, acs=6, compares=1, states=2),
    # One comparison: of a firing phase without input, or of a search among cumulative sums.
    "compare": NeuronCost(macs=0, acs=0, compares=1, states=0, fires=False),
    "ReLU": NeuronCost(macs=0, acs=0, compares=1, states=0, fires=False),
    "Linear": NeuronCost(macs=0, acs=0, compares=0, states=0, fires=False),
    "tanh": NeuronCost(macs=0, acs=0, compares=0, states=1, fires=False),
    # f*c + i*g and o*tanh(c); the sigmoids are not counted (NeuroBench, metrics/utils/layers/macs.py).
    "LSTM": NeuronCost(macs=3, acs=0, compares=0, states=2, fires=False),
    # r*h, (1-z)*n + z*h; the sigmoids are not counted (NeuroBench, same file).
    "GRU": NeuronCost(macs=3, acs=0, compares=0, states=1, fires=False),
}


_stated: dict[str, NeuronCost] = {}
"""What cells of one's own say that an update costs, by kind; the kind holds the cost, so that none has two."""


def priced_as(cell: Any, kind: str) -> str:
    """The kind under which the updates of a cell are priced: its own, or "LIF" where nobody says what it costs.

    Args:
        cell: The neuron; one that is not of `NEURONS` may have ``cost() -> NeuronCost``.
        kind: What it is called.

    Raises:
        ValueError: Its cost is no `NeuronCost` of numbers that are not negative.
    """
    if kind in NEURONS:
        return kind
    state = getattr(cell, "cost", None)
    if not callable(state):
        return UNKNOWN
    cost = state()
    if not isinstance(cost, NeuronCost) or min(cost[:4]) < 0:
        raise ValueError(
            f"cost() of a cell must give a dsnn.energy.NeuronCost of numbers from 0, got {cost!r} from {kind}; see "
            "dsnn.energy.NEURONS for examples."
        )
    name = f"{kind} ({cost.macs} MAC, {cost.acs} AC, {cost.compares} compare, {cost.states} state)"
    _stated[name] = cost
    return name


def has_cost(cell: Any, kind: str) -> bool:
    """Whether somebody says what an update of a cell costs; otherwise it is priced as an LIF."""
    return kind in NEURONS or callable(getattr(cell, "cost", None))


def neuron_cost(kind: str) -> NeuronCost:
    """The operations of one update of a neuron of this kind.

    Raises:
        ValueError: No such kind.
    """
    if kind in _stated:
        return _stated[kind]
    if kind not in NEURONS:
        raise ValueError(f"A neuron's kind must be one of {', '.join(NEURONS)}, got {kind!r}; add it to NEURONS.")
    return NEURONS[kind]
