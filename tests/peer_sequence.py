"""Adaptive recurrent networks learned by truncated backpropagation in PyTorch, from the equations of Yin et al. 2021.

An implementation of its own to hold `dsnn.learn.online.tbptt_learner` against; run by test_online.py in PyTorch's
interpreter: python peer_sequence.py REQUEST.npz OUTPUT.npz. The request has the initial parameters under our names,
xs [batch, time, example, input] of zeros and ones, ys [batch, example], window and rate; the output holds the loss at
the end of each sequence, the share of right answers, and the parameters afterwards.
"""

import math
import sys
import time

import numpy as np
import torch


class Spike(torch.autograd.Function):
    """Fires above zero; the derivative is a Gaussian with two wide negative side lobes (Yin et al. 2021, eq. 9)."""

    @staticmethod
    def forward(ctx, over):
        ctx.save_for_backward(over)
        return (over > 0).float()

    @staticmethod
    def backward(ctx, change):
        (over,) = ctx.saved_tensors

        def density(mean, width):
            return torch.exp(-0.5 * ((over - mean) / width) ** 2) / (width * math.sqrt(2 * math.pi))

        return change * 0.5 * (1.15 * density(0.0, 0.5) - 0.15 * (density(0.5, 3.0) + density(-0.5, 3.0)))


def neuron(state, current, parameters, name):
    """One step: the threshold follows the last spikes, and resets take off the threshold of this step."""
    membrane, adaptation, spikes = state
    decay, slow = (torch.exp(-1 / parameters[f"{name}.cell.{tau}"]) for tau in ("tau", "tau_adp"))
    adaptation = slow * adaptation + (1 - slow) * spikes
    threshold = 0.01 + 1.8 * adaptation
    membrane = decay * membrane + (1 - decay) * current - threshold * spikes
    return membrane, adaptation, Spike.apply(membrane - threshold)


def sequences(request, names):
    """Yields, batch by batch, the loss and the share of right answers at the end, learning on the way."""
    parameters = {n: torch.from_numpy(request[n]).requires_grad_() for n in request if n.startswith(names)}
    factors = {"cell.tau": 2.0, "cell.tau_adp": 3.0}
    rate, window = float(request["rate"]), int(request["window"])

    def factor(name):  # a recurrent layer has two biases there, which is one that learns twice as fast
        twice = name.endswith("synapse.bias") and f"{name.split('.')[0]}.recurrent" in parameters
        return 2.0 if twice else factors.get(name.split(".", 1)[1], 1.0)

    groups = [{"params": [value], "lr": rate * factor(name)} for name, value in parameters.items()]
    optimizer = torch.optim.Adamax(groups, lr=rate)
    for xs, ys in zip(request["xs"], request["ys"], strict=True):
        xs, ys = torch.from_numpy(xs).float(), torch.from_numpy(ys).long()
        states = {}
        for name in names:
            zeros = torch.zeros(xs.shape[1], len(parameters[f"{name}.synapse.bias"]))
            states[name] = (zeros, zeros, zeros)
        total = torch.zeros_like(states[names[-1]][0])
        for start in range(0, len(xs), window):
            for x in xs[start : start + window]:
                signal = x
                for name in names:
                    current = signal @ parameters[f"{name}.synapse.kernel"] + parameters[f"{name}.synapse.bias"]
                    if (back := parameters.get(f"{name}.recurrent")) is not None:
                        current = current + states[name][2] @ back
                    states[name] = neuron(states[name], current, parameters, name)
                    signal = states[name][2]
                total = total + signal
            loss = torch.nn.functional.cross_entropy(total, ys)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            states = {name: tuple(part.detach() for part in state) for name, state in states.items()}
            total = total.detach()
        right = (total.argmax(1) == ys).float().mean()
        yield float(loss.detach()), float(right), {n: v.detach().numpy().copy() for n, v in parameters.items()}


def main(source, target):
    torch.set_num_threads(1)
    request = dict(np.load(source))
    names = tuple(dict.fromkeys(name.split(".")[0] for name in request if "." in name))
    losses, rights, begun = [], [], time.time()
    for loss, right, parameters in sequences(request, names):
        losses.append(loss)
        rights.append(right)
        print(f"batch {len(losses)}: loss {loss:.4f}, right {right:.3f}, {time.time() - begun:.0f} s", flush=True)
        np.savez(target, losses=losses, rights=rights, **parameters)


if __name__ == "__main__":
    main(*sys.argv[1:])
