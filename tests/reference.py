"""Float64 NumPy reference of the matching losses, written from the paper's formulas alone, and backend-free
gradients."""

import functools

import keras
import numpy as np


def gaussian_mixture(x, y, sigma, multipliers=(1, 2, 4, 8, 16)):
    """Section 3.3, with the limit σ → 0 where all samples coincide."""
    distances = ((x[:, None, :] - y[None, :, :]) ** 2).sum(axis=-1)
    if sigma == 0:
        return (distances == 0).astype("float64")
    return np.mean([np.exp(-distances / (c * sigma)) for c in multipliers], axis=0)


def median_bandwidth(x, y):
    pooled = np.concatenate([x, y])
    distances = ((pooled[:, None, :] - pooled[None, :, :]) ** 2).sum(axis=-1)
    pairs = distances[np.triu_indices(len(pooled), k=1)]
    return np.median(pairs) if len(pairs) else 1.0


def squared_mmd(x, y, sigma=None, unbiased=False):
    """Section 3.1; the U-statistic of Gretton et al. (2012) if `unbiased`."""
    x, y = (np.asarray(a, "float64").reshape(len(a), -1) for a in (x, y))
    n, m = len(x), len(y)
    least = 2 if unbiased else 1
    if n < least or m < least:
        return 0.0
    sigma = median_bandwidth(x, y) if sigma is None else sigma
    xx, yy, xy = (gaussian_mixture(a, b, sigma) for a, b in ((x, x), (y, y), (x, y)))
    if unbiased:
        return (xx.sum() - n) / (n * (n - 1)) + (yy.sum() - m) / (m * (m - 1)) - 2 * xy.mean()
    return xx.mean() + yy.mean() - 2 * xy.mean()


def joint(h1, h2, sigma=None, squared=False, unbiased=False):
    """Eq. 3."""
    value = squared_mmd(h1, h2, sigma, unbiased)
    return value if squared else np.sqrt(max(value, 0.0))


def class_conditional(h1, y1, h2, y2, num_classes, sigmas=None, squared=False, unbiased=False):
    """Eq. 5. `sigmas` holds the bandwidth of each class, where it is not to be estimated."""
    sigmas = sigmas or [None] * num_classes
    terms = [
        joint(h1[y1 == k], h2[y2 == k], sigmas[k], squared, unbiased) if (y1 == k).any() and (y2 == k).any() else 0.0
        for k in range(num_classes)
    ]
    return np.mean(terms)


def class_conditional_gradients(h1, y1, h2, y2, num_classes, squared=False, unbiased=False):
    """Gradients of Eq. 5 in `h1` and `h2`, each bandwidth held: pair by pair, from the derivative of the
    exponential."""
    h1, h2 = h1.astype("float64"), h2.astype("float64")
    gradients = np.zeros_like(h1), np.zeros_like(h2)
    for k in range(num_classes):
        masks = y1 == k, y2 == k
        x, y = h1[masks[0]], h2[masks[1]]
        n, m = len(x), len(y)
        if min(n, m) < (2 if unbiased else 1):
            continue
        sigma = median_bandwidth(x, y)

        def pull(a, b, sigma=sigma):
            difference = a[:, None] - b[None, :]
            distances = (difference**2).sum(axis=-1, keepdims=True)
            slopes = np.mean([-np.exp(-distances / (c * sigma)) / (c * sigma) for c in (1, 2, 4, 8, 16)], axis=0)
            return (slopes * 2 * difference).sum(axis=1)

        within = [(n * (n - 1), m * (m - 1)), (n * n, m * m)][not unbiased]
        slope_of_root = 1.0 if squared else 0.5 / np.sqrt(squared_mmd(x, y))
        for gradient, mask, a, b, size in zip(gradients, masks, (x, y), (y, x), within, strict=True):
            gradient[mask] = slope_of_root * 2 * (pull(a, a) / size - pull(a, b) / (n * m)) / num_classes
    return gradients


def bandwidths(h1, y1, h2, y2, num_classes):
    return [median_bandwidth(h1[y1 == k].astype("float64"), h2[y2 == k].astype("float64")) for k in range(num_classes)]


@functools.cache
def _compiled(function):
    """On JAX, where every operation on a new shape is compiled by itself otherwise: the function as a whole."""
    if keras.backend.backend() != "jax":
        return function
    import jax

    return jax.jit(function)


def value(function, *arguments):
    """The value of a `MatchingLoss` or another function of tensors, a float."""
    return float(_compiled(function)(*arguments))


@functools.cache
def _differentiated(loss):
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 2)))
    if backend == "torch":
        import torch

        def with_gradients(h1, y1, h2, y2):
            h1, h2 = (torch.tensor(h, requires_grad=True) for h in (h1, h2))
            result = loss(h1, y1, h2, y2)
            return result, torch.autograd.grad(result, (h1, h2), allow_unused=True, materialize_grads=True)

        return with_gradients
    import tensorflow as tf

    def with_gradients(h1, y1, h2, y2):
        h1, h2 = tf.constant(h1), tf.constant(h2)
        with tf.GradientTape() as tape:
            tape.watch((h1, h2))
            result = loss(h1, y1, h2, y2)
        return result, tape.gradient(result, (h1, h2), unconnected_gradients="zero")

    return with_gradients


def value_and_gradients(loss, h1, y1, h2, y2):
    """The value of a `MatchingLoss` and its gradients in `h1` and `h2`, as NumPy, on whatever backend runs."""
    result, gradients = _differentiated(loss)(h1.astype("float32"), y1, h2.astype("float32"), y2)
    return float(keras.ops.convert_to_numpy(result)), [keras.ops.convert_to_numpy(g) for g in gradients]
