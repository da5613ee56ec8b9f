"""Arithmetic: floating-point operations of the compiled ITDM-c step against those of two compiled plain steps.

KERAS_BACKEND=jax python benchmarks/arithmetic.py

They are counted by XLA's cost analysis of the executable, here that of the JAX backend for the machine at hand. Two
things to know about it. It takes the body of a loop as if it ran once: so what is measured against the bar has its
loops of fixed length, such as one that looks for a median, unrolled before it is compiled. And in a convolution it
leaves out what falls on the padding: so it finds less than the usual count, a multiplication and an addition for each
weight at each position, three times over for forward pass, gradients of features and gradients of weights. The table
has that too, as a sign that no convolution hides from the analysis, as it would in a library call.
"""

import math
import unittest.mock

import fit_step
import jax
import keras
import measure

from keras_itdm import ITDMModel


def flops(model, batch, unroll):
    """Floating-point operations of the compiled training step, with loops unrolled or not."""
    with unittest.mock.patch("jax.lax.fori_loop", _unrolled if unroll else jax.lax.fori_loop):
        return float(fit_step.jax_executable(model, batch).cost_analysis()["flops"])


def _unrolled(begin, end, body, value, **_):
    for step in range(begin, end):
        value = body(step, value)
    return value


def by_hand(network, batch_size):
    """Operations of a plain step on paper: those of convolutions and dense layers, which is nearly all."""
    total = 0
    for layer in network.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            positions = math.prod(layer.output.shape[1:-1])
            total += 2 * positions * math.prod(layer.kernel.shape)
    return 3.0 * batch_size * total


def main():
    parser = measure.parser(__doc__, repeats=1)
    parser.add_argument("--network", nargs="+", choices=fit_step.INPUT_SHAPES, default=["resnet18"], help="networks")
    parser.add_argument("--batch-size", type=int, default=150, help="m, samples a mini-batch (default: 150)")
    settings = parser.parse_args()
    rows = []
    for name in settings.network:
        shape = (settings.batch_size, *fit_step.INPUT_SHAPES[name])
        batch = jax.numpy.zeros(shape, "float32"), jax.numpy.zeros(shape[0], "int32")
        network = fit_step.network(name)
        plain = flops(network, batch, unroll=False)
        for unroll in (False, True):
            matched = flops(ITDMModel(fit_step.network(name), "features"), (batch, batch), unroll)
            rows.append(
                {
                    "network": name,
                    "loops": "unrolled" if unroll else "counted once",
                    "plain by hand, GFLOP": by_hand(network, settings.batch_size) / 1e9,
                    "plain, GFLOP": plain / 1e9,
                    "ITDM-c, GFLOP": matched / 1e9,
                    "ratio": matched / (2 * plain),
                    "bar": 1.02 if unroll else None,
                }
            )
    measure.report("Operations of an ITDM-c step / two plain steps", rows, settings, "ratio")


if __name__ == "__main__":
    if keras.backend.backend() != "jax":
        raise SystemExit("What is analysed is the step that JAX compiles: set KERAS_BACKEND=jax.")
    main()
