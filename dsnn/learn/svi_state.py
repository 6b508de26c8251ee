"""What variational inference carries from step to step."""

from typing import NamedTuple

import optax
from numpyro.infer.svi import SVIState
from numpyro.optim import optax_to_numpyro

from dsnn.bayes.bayesian import Bayesian
from dsnn.learn.duals import Duals
from dsnn.parameters import Params
from dsnn.types import Array, Float, Int


class SviState(NamedTuple):
    """What variational inference carries from step to step.

    Attributes:
        svi: NumPyro's own state (unconstrained parameters and optimiser).
        step: updates done.
        duals: prices of energy and of sites.
        events: running average of the events per wire.
        mean_steps: running average of the stopping time.
        statistics: of norms, by their names behind `dsnn.parameters.STATISTICS`; empty without norms.
        ungated_events: running average of the events per wire when every site runs, which a share of the whole
            network's energy is a share of; empty where nothing asks for it.
    """

    svi: SVIState
    step: Int[Array, ""]
    duals: Duals
    events: dict[str, Array]
    mean_steps: Float[Array, ""]
    statistics: Params = {}  # noqa: RUF012 - never changed
    ungated_events: dict[str, Array] = {}  # noqa: RUF012 - never changed

    @property
    def whole_events(self) -> dict[str, Array]:
        """Events per wire that the whole network's energy is counted with."""
        return self.ungated_events or self.events


def svi_params(bayesian: Bayesian, state: SviState) -> Params:
    """Returns the guide's parameters in their natural spaces, and normalisation statistics beside them."""
    learned = bayesian.constrain(optax_to_numpyro(optax.identity()).get_params(state.svi.optim_state))
    return learned | state.statistics
