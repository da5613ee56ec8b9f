"""Mini-batches that are spread over several devices.

Under `tf.distribute` each replica traces the step for its own share of the batch, and sees the others' only if they are
gathered. Under `keras.distribution` on JAX a step is written, and traced, for the global batch, whose shares lie on
different devices: nothing needs to be gathered, but shares have to be cut out if they are to be looked at one by one.

`logs` lets `fit` run under `MultiWorkerMirroredStrategy`, where Keras' own fails (keras-team/keras#20585).
"""

import keras
from keras import ops, tree


def evaluate(function, tensors, synchronized):
    """`function(*tensors)` for tensors of which each replica holds a share.

    Args:
        function: Gives a scalar.
        tensors: Tuple of nested tensors, with the samples along their first axis, or `None`s.
        synchronized: Whether the function is to see the global batch. If not, it sees the share of one replica at a
            time, and the result stands for the mean over replicas.

    Returns:
        Scalar tensor: the function of the global batch or, under `tf.distribute`, of the replica's own share, which
        Keras averages over replicas; elsewhere the mean over the shares.
    """
    if synchronized:
        return function(*(_gather(tensors) if is_replica() else tensors))
    num_shares = _num_shares_on_jax()
    if num_shares == 1:
        return function(*tensors)

    def into_shares(values):
        return ops.reshape(values, (num_shares, -1, *values.shape[1:]))

    shares = tree.map_structure(into_shares, tensors, none_is_leaf=False)
    return ops.mean(ops.vectorized_map(lambda share: function(*share), shares))


def is_replica():
    """Whether this is one of several replicas of `tf.distribute`, which are traced one by one up to a gathering."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()
    return replica is not None and replica.num_replicas_in_sync > 1


def _gather(tensors):
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()

    def gather(share):  # one tensor at a time: together they would have to be of one type
        share = tf.identity(share)  # on this replica's device: it may come from the outside, and then has none
        # The shape gets lost on the way; and on the way back a gradient by rows, as `take` has, must become dense.
        return tf.reshape(replica.all_gather(share, axis=0), (-1, *ops.shape(share)[1:]))

    return tree.map_structure(gather, tensors, none_is_leaf=False)


def _num_shares_on_jax():
    distribution = keras.distribution.distribution() if keras.backend.backend() == "jax" else None
    if distribution is None or distribution.batch_dim_name is None:
        return 1
    mesh = distribution.device_mesh
    return mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)]


def num_replicas():
    """Number of replicas of `tf.distribute`, or 1."""
    if not is_replica():
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def total(scalar):
    """The sum of a scalar over replicas."""
    if not is_replica():
        return scalar
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, scalar)


def scale_loss(loss):
    """A replica's part in a loss of which the mean over replicas counts: Keras sums gradients under `tf.distribute`."""
    return loss if not is_replica() else loss * (1.0 / num_replicas())


def logs(values):
    """The logs of a step, as scalars; in one of several workers as vectors of one, over which Keras takes the mean."""
    if not is_replica():
        return values
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return values
    if strategy.num_replicas_in_sync == len(strategy.extended.worker_devices):  # all of them in one worker
        return values
    return tree.map_structure(lambda value: ops.reshape(value, (1,)), values)
