"""What the benchmarks of the loss share: it and its gradient, compiled, on random features; and its peers."""

import functools
import unittest.mock

import keras
import numpy as np
import torch
from keras import ops

from keras_itdm import _mmd


def features(batch_size, size, labels, seed=0):
    """H1, the labels of S1, H2 and the labels of S2. Features of one class lie about a point of its own."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(labels) + 1, size))
    classes = rng.permutation(labels), rng.permutation(labels)
    h1, h2 = ((rng.normal(size=(batch_size, size)) + centres[y]).astype("float32") for y in classes)
    return h1, classes[0], h2, classes[1]


def balanced(batch_size, num_classes):
    return np.arange(batch_size) % num_classes


def random(batch_size, num_classes, seed=0):
    return np.random.default_rng(seed).integers(num_classes, size=batch_size)


def value_and_gradients(loss, arguments):
    """A function without arguments: the loss and its gradients in H1 and H2, under XLA, or as PyTorch runs it."""
    backend = keras.backend.backend()
    h1, y1, h2, y2 = (ops.convert_to_tensor(argument) for argument in arguments)
    if backend == "jax":
        import jax

        function = jax.jit(jax.value_and_grad(loss, argnums=(0, 2)))
        return functools.partial(function, h1, y1, h2, y2)
    if backend == "tensorflow":
        import tensorflow as tf

        @tf.function(jit_compile=True)
        def function(h1, y1, h2, y2):
            with tf.GradientTape() as tape:
                tape.watch((h1, h2))
                value = loss(h1, y1, h2, y2)
            return value, tape.gradient(value, (h1, h2))

        return functools.partial(function, h1, y1, h2, y2)
    return _differentiated_by_torch(loss, h1, y1, h2, y2)


def _differentiated_by_torch(loss, h1, y1, h2, y2):
    h1, h2 = (h.requires_grad_() for h in (h1, h2))

    def function():
        value = loss(h1, y1, h2, y2)
        return value.detach(), torch.autograd.grad(value, (h1, h2))

    return function


def torch_loop(arguments, num_classes, dtype=torch.float32):
    """The peer: what one writes in PyTorch, a loop over the classes with `torch.median`.

    In float64 it is the reference, and takes the midpoint of the middle two of an even number of distances, as the loss
    does, where `torch.median` takes the lower one.
    """

    def loss(h1, y1, h2, y2):
        total = 0.0
        for k in range(num_classes):
            x, y = h1[y1 == k], h2[y2 == k]
            n = len(x)
            if n == 0 or len(y) == 0:
                continue
            pooled = torch.cat([x, y])
            norms = (pooled**2).sum(dim=1)
            distances = (norms[:, None] + norms[None, :] - 2 * pooled @ pooled.T).clamp(min=0)
            pairs = torch.triu_indices(len(pooled), len(pooled), offset=1, device=pooled.device)
            distinct = distances.detach()[pairs[0], pairs[1]]
            sigma = distinct.quantile(0.5) if dtype == torch.float64 else distinct.median()
            kernel = sum(torch.exp(-distances / (c * sigma)) for c in (1, 2, 4, 8, 16)) / 5
            squared = kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()
            total = total + squared.clamp(min=1e-12).sqrt()
        return total / num_classes

    device = "cuda" if torch.cuda.is_available() else "cpu"
    h1, y1, h2, y2 = (torch.as_tensor(argument, device=device) for argument in arguments)
    function = _differentiated_by_torch(loss, h1.to(dtype), y1, h2.to(dtype), y2)

    def read_back():  # from a GPU, which NumPy and other backends do not read
        value, gradients = function()
        return value.cpu(), [gradient.cpu() for gradient in gradients]

    return read_back


def with_sorted_median(function):
    """The peer that finds the median by sorting: calls a function, which traces a loss in blocks, with that in
    place."""

    def median(over_pairs, layout, counts, *_, **__):
        (distances,) = over_pairs(lambda distances, _: [distances], layout.of_class(counts))
        in_order = ops.sort(ops.reshape(distances, (distances.shape[0], -1)), axis=1)
        pairs = counts * (counts - 1) / 2  # each stands there twice, after the zeros of the diagonal
        place = counts + 2 * ops.ceil(pairs / 2) - 1
        return ops.take_along_axis(in_order, ops.cast(place, "int32")[:, None], axis=1)

    with unittest.mock.patch.object(_mmd, "narrowed_median", median):
        return function()


def error(function, reference):
    """How far value and gradients are off, at most, as a share of the value and of the largest number in the
    gradients."""
    (value, gradients), (expected, expected_gradients) = function(), reference()
    value, *gradients = (ops.convert_to_numpy(result).astype("float64") for result in (value, *gradients))
    expected, *expected_gradients = (result.numpy() for result in (expected, *expected_gradients))
    largest = max(np.abs(gradient).max() for gradient in expected_gradients)
    errors = [np.abs(a - b).max() / largest for a, b in zip(gradients, expected_gradients, strict=True)]
    return float(max(abs(value - expected) / abs(expected), *errors))
