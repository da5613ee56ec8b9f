"""The pool: the batches around S1, which S2 is drawn from where data are read but once.

Data are read a few batches ahead of training, and what has been read is kept for a while. S2 is as many samples as S1
has, at random out of some batches of the pool; where samples of different batches do not fit together, such as
sequences that are padded to different lengths, it is one of the other batches as a whole. The pool holds references:
what it takes is the memory of its batches, once.
"""

import collections
import itertools

import numpy as np
from keras import tree

MAX_BATCHES = 64
MAX_BYTES = 2**30
NUM_AHEAD = 8  # batches that are read before the first step
NUM_MIXED = 8  # batches that the samples of one S2 come from
SHORT_EPOCH = 2 * NUM_AHEAD  # batches: an epoch that is read as a whole before its first step


def pool_size(num_batches, batch_bytes):
    """How many batches a pool holds, and how many of them are read ahead of S1.

    Args:
        num_batches: Number of batches in an epoch, or `None` if it is not known.
        batch_bytes: Size of a batch.
    """
    size = max(3, min(MAX_BATCHES, MAX_BYTES // max(batch_bytes, 1)))
    if num_batches is not None and num_batches <= min(size, SHORT_EPOCH):
        return num_batches, num_batches - 1
    return size, min(NUM_AHEAD, size // 2)


def pairs_out_of_pool(batches, num_batches, seed):
    """Each batch of an iterable, and a second one out of the pool, as tuples.

    Args:
        batches: Iterable of nested arrays or tensors of NumPy, PyTorch or JAX, samples first.
        num_batches: How many there are, or `None` if it is not known.
        seed: Of the draws.

    Raises:
        ValueError: if there is one batch alone, and that was not known before.
    """
    generator = np.random.default_rng(seed)
    batches = iter(batches)
    first = next(batches, None)
    if first is None:
        return
    size, num_ahead = pool_size(num_batches, sum(_num_bytes(values) for values in _leaves(first)))
    pool = collections.deque([first, *itertools.islice(batches, num_ahead)], maxlen=size)
    upcoming = collections.deque(pool)
    if len(pool) == 1 and num_batches is None:
        raise ValueError("The data should hold at least two batches, to match one with the other. Received one")
    while upcoming:
        batch = upcoming.popleft()
        yield batch, _draw(pool, batch, generator)
        for following in itertools.islice(batches, 1):
            pool.append(following)
            upcoming.append(following)


def _draw(pool, batch, generator):
    chosen = [pool[index] for index in generator.permutation(len(pool))[:NUM_MIXED]]
    if len({_sample_shapes(each) for each in chosen}) > 1:
        others = [each for each in chosen if each is not batch]
        return others[0]
    ends = np.cumsum([_num_samples(each) for each in chosen])
    order = generator.permutation(ends[-1])[: _num_samples(batch)]
    rows = [order[(order < end) & (order >= begin)] - begin for begin, end in itertools.pairwise([0, *ends])]
    return tree.map_structure(
        lambda *parts: None if parts[0] is None else _concatenated([p[i] for p, i in zip(parts, rows, strict=True)]),
        *chosen,
    )


def _leaves(batch):
    return [values for values in tree.flatten(batch) if values is not None]


def _num_samples(batch):
    return _leaves(batch)[0].shape[0]


def _sample_shapes(batch):
    return tuple(tuple(values.shape[1:]) for values in _leaves(batch))


def _num_bytes(values):
    return getattr(values, "nbytes", 1)


def _concatenated(parts):
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    if type(parts[0]).__module__.startswith("scipy"):
        import scipy.sparse

        return scipy.sparse.vstack(parts)
    if type(parts[0]).__module__.startswith("torch"):
        import torch

        return torch.cat(parts)
    import jax

    return jax.numpy.concatenate(parts)
