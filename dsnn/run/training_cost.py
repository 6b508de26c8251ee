"""What learning cost, beside what an inference costs: operations and modelled energy, of the network as it shrank."""

import numpy as np

from dsnn import data, energy, store
from dsnn.run.loop import SHRUNK, Member

__all__ = ["training_cost"]


def training_cost(member: Member, macs: float, passes: float) -> dict[str, float]:
    """Returns what learning cost, by the names of metrics.

    Backward passes count as two forward ones (Amodei & Hernandez 2018, method 1). The energy is that of the
    multiply-accumulates alone, on the run's profile, as a dense machine does them.

    Args:
        member: a run that has learned.
        macs: multiply-accumulates of a forward pass of one example through the whole network.
        passes: epochs, each a pass over the training examples where `train.updates_per_epoch` says nothing else.
    """
    kept = store.read_arrays(member.directory, SHRUNK)
    phases = np.concatenate([[[0.0, macs]], kept["phases"]]) if kept else np.asarray([[0.0, macs]])
    lasted = np.diff(np.append(np.minimum(phases[:, 0], passes), passes))
    each = float((lasted * phases[:, 1]).sum() / passes) if passes else macs
    setup = member.setup
    operations = energy.training_operations(each, data.size(setup.split.train), passes * setup.passes)
    profile = energy.profile(setup.config.energy.profile)
    return {
        "training/operations": operations,
        "training/energy_j": operations / 2 * profile.mac_pj * 1e-12,
        "training/macs_share": each / macs if macs else 1.0,
    }
