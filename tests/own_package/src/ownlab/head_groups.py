"""A site kind of one's own, said in one file: heads that share a gate, in pairs or more."""

import numpy as np

from ownlab.graphs import Attention


class GroupedAttention(Attention):
    """Attention whose heads are opened and closed in groups of ``together``.

    Every head stays a wire of its own; which site it is, the wiring says, and all else follows from that.
    """

    def __init__(self, in_shape, classes, *, key, heads=4, width=2, together=2):
        super().__init__(in_shape, classes, key=key, heads=heads, width=width)
        self.together = together

    def wiring(self):
        heads = super().wiring()

        def grouped(axes):
            return tuple(a._replace(group="head groups", index=np.asarray(a.index) // self.together) for a in axes)

        def within(names):
            return tuple(f"head groups:{int(name.rpartition(':')[2]) // self.together}" for name in names)

        return heads._replace(
            groups={"head groups": heads.groups["heads"] // self.together},
            wires=tuple(
                wire._replace(pre=grouped(wire.pre), post=grouped(wire.post), within=within(wire.within))
                for wire in heads.wires
            ),
            neurons=tuple(
                group._replace(site=None if group.site is None else grouped((group.site,))[0])
                for group in heads.neurons
            ),
        )
