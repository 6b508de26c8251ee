"""The field's networks by name: ``model.architecture=csnn``, ``dsnn.fit(network="csnn")``, ``zoo.csnn(...)``.

Each is a function ``(in_shape, classes, *, key, cell=None, **options)`` that gives an ordinary network: a `Stack`
where layers stand one after another, else a `Chain` of blocks. Shapes and numbers of parameters are the published ones.
"""

from dsnn.networks.zoo.csnn import csnn
from dsnn.networks.zoo.ms_resnet import ms_resnet18
from dsnn.networks.zoo.sdt import sdt_2_256
from dsnn.networks.zoo.sew_resnet import sew_resnet18, sew_resnet34
from dsnn.networks.zoo.spikformer import spikformer_4_256
from dsnn.networks.zoo.vgg import vgg11

__all__ = ["csnn", "ms_resnet18", "sdt_2_256", "sew_resnet18", "sew_resnet34", "spikformer_4_256", "vgg11"]
