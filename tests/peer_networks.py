"""Networks and parts of SpikingJelly, run by its own code; called by test_spikingjelly_peers.py in its interpreter.

Usage: python peer_networks.py REQUEST.json OUTPUT.npz. The request is a list of {"name", "make", "options"}; "make" is
a function of this file that returns a module and the shape of one input, channels first. Weights and statistics of
norms are random; "drive" is the deviation of currents, "watch" names modules inside, and "training" asks for training.
The output has "<name>/xs" and "<name>/ys" [time, batch, ...], "<name>/state/<tensor>" before the run, the same
"<name>/after/..." and "<name>/gradient/..." of the sum of squared means over time in training, and for each module
watched "<name>/<module>/xs" and "/ys". The state of each is written as OUTPUT_<name>.safetensors too, where that
library is.
"""

import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import torch
from torch import nn

# the package of models imports what its programs for big data sets need, and nothing here calls
MISSING = {
    "torchvision": "",
    "torchvision.models": "",
    "torchvision.models.utils": "load_state_dict_from_url",
    "h5py": "",
}
for name, attribute in MISSING.items():
    sys.modules[name] = types.ModuleType(name)
    if attribute:
        setattr(sys.modules[name], attribute, None)

from spikingjelly.activation_based import functional, layer, neuron  # noqa: E402
from spikingjelly.activation_based.model import (  # noqa: E402
    ms_resnet,
    sew_resnet,
    spike_driven_transformer,
    spikformer,
    spiking_vgg,
)

STEPS, BATCH = 4, 2


def sew_net(blocks, connect, neurons, classes, stem, places):
    kind, options = neurons
    net = sew_resnet.SEWResNet(
        sew_resnet.BasicBlock, blocks, classes, cnf=connect, spiking_neuron=getattr(neuron, kind), **options
    )
    if stem == "cifar":  # as their users do with small images
        net.conv1 = layer.Conv2d(3, 64, 3, padding=1, bias=False)
        net.maxpool = nn.Identity()
    return net, (3, places, places)


def ms_net(blocks, base_channels, classes, places):
    net = ms_resnet.MSResNet(layers=tuple(blocks), base_channels=base_channels, num_classes=classes)
    # theirs gives the mean over time, and what is compared is each step
    net.forward = lambda x: net.head(net.avgpool(net.head_lif(stages_of(net, x))).flatten(2))
    return net, (3, places, places)


def stages_of(net, x):
    x = net.layer3(net.layer2(net.layer1(net.stem(x))))
    return x if net.layer4 is None else net.layer4(x)


class CSNN(nn.Module):
    """Their example's network (examples/conv_fashion_mnist.py) for images of other sizes, answering at each step."""

    def __init__(self, channels, places, classes):
        super().__init__()
        conv = {"kernel_size": 3, "padding": 1, "bias": False}
        self.conv_fc = nn.Sequential(
            layer.Conv2d(1, channels, **conv), layer.BatchNorm2d(channels), neuron.IFNode(), layer.MaxPool2d(2, 2),
            layer.Conv2d(channels, channels, **conv), layer.BatchNorm2d(channels), neuron.IFNode(),
            layer.MaxPool2d(2, 2), layer.Flatten(),
            layer.Linear(channels * (places // 4) ** 2, channels * 16, bias=False), neuron.IFNode(),
            layer.Linear(channels * 16, classes, bias=False), neuron.IFNode(),
        )  # fmt: skip

    def forward(self, x):
        return self.conv_fc(x)


def csnn(channels, places, classes):
    return CSNN(channels, places, classes), (1, places, places)


class VGG(nn.Module):
    """Their convolutions, and their classifier for images of other sizes than 224 x 224."""

    def __init__(self, width, hidden, classes, places, batch_norm):
        super().__init__()
        channels = [c if c == "M" else c // 64 * width for c in spiking_vgg.cfgs["A"]]
        self.features = spiking_vgg.SpikingVGG.make_layers(channels, batch_norm, neuron=neuron.IFNode)
        self.classifier = nn.Sequential(
            layer.Linear(8 * width * (places // 32) ** 2, hidden), neuron.IFNode(), layer.Dropout(),
            layer.Linear(hidden, hidden), neuron.IFNode(), layer.Dropout(), layer.Linear(hidden, classes),
        )  # fmt: skip

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 2))


def vgg(width, hidden, classes, places, batch_norm):
    return VGG(width, hidden, classes, places, batch_norm), (3, places, places)


def spikformer_net(width, heads, mlp_ratio, depth, classes, places):
    net = spikformer.Spikformer(
        T=STEPS, img_size_h=places, img_size_w=places, patch_size=4, num_classes=classes, embed_dims=width,
        num_heads=heads, mlp_ratio=mlp_ratio, depths=depth,
    )  # fmt: skip
    return net, (3, places, places)


def sdt_net(width, heads, mlp_ratio, depth, classes, places, pooling):
    net = spike_driven_transformer.SpikeDrivenTransformer(
        T=STEPS, num_classes=classes, embed_dims=width, num_heads=heads, depths=depth, mlp_ratio=mlp_ratio,
        pooling_stat=pooling,
    )  # fmt: skip

    def each_step(x):
        x = net.patch_embed(x)
        for block in net.blocks:
            x = block(x)
        return net.head(net.head_lif(x.flatten(3).mean(-1)))

    net.forward = each_step
    return net, (3, places, places)


def tdbn(alpha, threshold, channels, places):
    return layer.ThresholdDependentBatchNorm2d(alpha, threshold, channels), (channels, places, places)


def scramble(net, drive):
    """Gives all kernels and norms random numbers, and currents a deviation of about ``drive``."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5 * drive, 1.5 * drive)
            nn.init.uniform_(module.bias, 0.0, 0.5)
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight, 0, 2.0 / module.weight[0].numel() ** 0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0, 0.2)


def tebn(steps, channels, places):
    norm = layer.TemporalEffectiveBatchNorm2d(steps, channels)
    nn.init.uniform_(norm.scale, 0.5, 1.5)
    return norm, (channels, places, places)


def watched(net, names, found, prefix):
    """Keeps what modules read and give."""

    def keep(name):
        def hook(module, inputs, output):
            found[f"{prefix}/{name}/xs"] = inputs[0].detach().numpy()
            found[f"{prefix}/{name}/ys"] = output.detach().numpy()

        return hook

    for name in names:
        net.get_submodule(name).register_forward_hook(keep(name))


def numbers(state):
    return {name: value.detach().numpy().copy() for name, value in state.items()}


def main(request, output):
    found = {}
    for number, asked in enumerate(json.loads(Path(request).read_text())):
        torch.manual_seed(number)
        prefix, training = asked["name"], asked.get("training", False)
        net, shape = globals()[asked["make"]](**asked["options"])
        net.train(training)
        functional.set_step_mode(net, "m")
        scramble(net, asked.get("drive", 1.0))
        state = numbers(net.state_dict())
        watched(net, asked.get("watch", []), found, prefix)
        xs = torch.randn(STEPS, BATCH, *shape)
        ys = net(xs)
        parts = {"state": state}
        if training:
            ys.mean(0).square().sum().backward()
            gradients = {name: value.grad for name, value in net.named_parameters()}
            parts |= {"after": numbers(net.state_dict()), "gradient": numbers(gradients)}
        found |= {f"{prefix}/xs": xs.numpy(), f"{prefix}/ys": ys.detach().numpy()}
        found |= {f"{prefix}/{kind}/{name}": one for kind, of in parts.items() for name, one in of.items()}
        if importlib.util.find_spec("safetensors"):
            from safetensors.numpy import save_file

            save_file(state, f"{output.removesuffix('.npz')}_{prefix}.safetensors")
    np.savez(output, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
