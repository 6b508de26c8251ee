"""A network that takes inputs as they come: the scaling that learning saw, folded into its first weights."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.data.scaling import Scaling
from dsnn.networks.layers import Dense
from dsnn.networks.rounded import Rounded
from dsnn.networks.whole import Runnable, Whole


def fold_scaling(model: Runnable, scaling: Scaling) -> Runnable:
    """Returns the network that does with raw inputs what ``model`` does with scaled ones.

    W ((x - shift) / scale) + b = (W / scale) x + b - (W / scale) shift, up to rounding.

    Args:
        model: the network, whose first layer has not been told of raw inputs.
        scaling: of `dsnn.data.scaling`; convolutions have no shift, since what they pad with is zero.

    Raises:
        ValueError: inputs that are rounded; a shift, and a first layer that has no bias to hold it, or is a
            convolution.
    """
    if isinstance(model, Whole):
        return model.scaled(scaling.shift, scaling.scale)
    folded = nnx.clone(model)
    name, layer = next(iter(folded.layers()))
    if any(isinstance(module, Rounded) for module in layer.before):
        raise ValueError(
            "an integer network rounds its inputs once they are scaled, and has its weights on their grid, got a "
            "scaling to fold into them; set data.standardise=none."
        )
    synapse, dense = layer.synapse, isinstance(layer.synapse, Dense)
    shifted = bool(np.any(np.asarray(scaling.shift)))
    if shifted and (not dense or synapse.bias is None):
        raise ValueError(
            f"a shift of the inputs needs a dense first layer with a bias to go into, got {name}; set "
            "data.standardise=none, or model.bias=true."
        )
    shape = layer.before[0].in_shape if layer.before else synapse.in_shape
    shift, scale = (np.broadcast_to(np.asarray(part, np.float64), shape).reshape(-1) for part in scaling)
    if not dense:
        synapse.kernel[...] = synapse.kernel[...] / jnp.asarray(scale.reshape(-1)[0], jnp.float32)
        return folded
    if layer.before:
        keep = np.asarray(layer.before[0].keep[...])
        shift, scale = shift[keep], scale[keep]
    kernel = np.asarray(synapse.kernel[...], np.float64) / scale[:, None]
    synapse.kernel[...] = jnp.asarray(kernel, jnp.float32)
    if shifted:
        synapse.bias[...] = jnp.asarray(np.asarray(synapse.bias[...], np.float64) - shift @ kernel, jnp.float32)
    return folded
