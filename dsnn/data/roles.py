"""The two roles of held-out examples besides testing: some select, others certify, and none does both.

Whatever chooses between networks, epochs, temperatures, stopping rules or thresholds looks at *select* alone
(`Split.val`); whatever is promised of the choice, a risk or the coverage of a set, is measured on *certify*
(`Split.certify`). A bound that is read off examples that chose something is void.
"""

import numpy as np

from dsnn.data.split import Arrays, Split, hold_out, size

MOST_CERTIFY = 2500
"""More examples make no bound that is worth their loss: a risk of 0.1 % can be certified with 2302 at 90 %."""


def assign_roles(split: Split, seed: int) -> Split:
    """Returns the split with its validation part divided: one half selects, the other certifies.

    Classes are dealt out in proportion. A split whose roles are assigned is returned as it is.

    Args:
        split: a data set; without a validation part nothing selects and nothing certifies.
        seed: the same seed divides alike.
    """
    if split.certify is not None:
        return split
    count = size(split.val)
    y = np.asarray(split.val.y)
    labels = y if y.ndim == 1 and np.issubdtype(y.dtype, np.integer) else np.zeros(count, int)
    held = min(count // 2, MOST_CERTIFY)
    mask = hold_out(labels, held, np.random.default_rng([seed, 1])) if held else np.zeros(count, bool)
    select, certify = (Arrays(split.val.x[rows], split.val.y[rows]) for rows in (~mask, mask))
    extra = dict(split.extra)
    for name in [name for name in extra if name.startswith("val/")]:
        whole = np.asarray(extra[name])
        extra |= {name: whole[~mask], f"certify/{name[4:]}": whole[mask]}
    return split._replace(val=select, certify=certify, extra=extra)
