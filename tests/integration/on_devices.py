"""A step of training on several devices, and the same on one: the program that test_devices.py runs.

python on_devices.py CASE ... prints a JSON object: for each case the history and the weights, first as trained on one
device, then on all of NUM_DEVICES. With TF_CONFIG set it is one of as many workers, and trains on all alone.
"""

import json
import os
import sys

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_itdm import ITDMModel, losses, zip_batches
from keras_itdm.layers import SplitBatchMatching

NUM_DEVICES = int(os.environ.get("NUM_DEVICES", 1))
SHARE = 64  # samples a device


class MeanOverShares(losses.MatchingLoss):
    """Class by class within each device's share of the batches: what `synchronized=False` should come to."""

    needs_labels = True

    def call(self, *batches):
        match = losses.ClassConditionalMMD(num_classes=3)
        shares = zip(*(ops.split(values, NUM_DEVICES) for values in batches), strict=True)
        return sum(match(*share) for share in shares) / NUM_DEVICES


def several_devices():
    """The engine of the backend at hand. To be made before anything is computed."""
    if keras.backend.backend() == "jax":
        return keras.distribution.DataParallel()
    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * NUM_DEVICES)
    return tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(NUM_DEVICES)])


def network(layer=None, normalized=False):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = keras.layers.Dense(8, activation="tanh", activity_regularizer="l2", name="features")(inputs)
    if normalized:
        x = keras.layers.BatchNormalization()(x)
    x = layer(x) if layer else x
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="classifier")(x))


def model_for(case, on_one_device):
    words = case.split()
    local = "local" in words
    if "layer" in words:
        return network(SplitBatchMatching(match_weight=2.0, synchronized=not local))
    matching = "joint" if "joint" in words else "class_conditional"
    if local and on_one_device:
        matching, local = MeanOverShares(), False
    return ITDMModel(
        network(normalized="normalized" in words),
        {"features": 1.0, "classifier": 2.0} if "layers" in words else "features",
        matching,
        match_weight=0.0 if "plain" in words else 2.0,
        partner="split" if "split" in words else "stream",
        synchronized=not local,
        max_share=1.0 if "bounded" in words else None,
    )


def train(case, on_one_device=False):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, NUM_DEVICES * SHARE, 6)).astype("float32")
    y = rng.integers(3, size=(2, NUM_DEVICES * SHARE))
    x += 0.5 * y[..., None]
    x[0] += np.linspace(0, 2, len(x[0]))[:, None]  # S1 is not S2, nor one device's share the next one's
    model = model_for(case, on_one_device)
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy", metrics=["accuracy"])
    stream, partner = (tf.data.Dataset.from_tensors(half) for half in zip(x, y, strict=True))
    if isinstance(model, ITDMModel) and model.partner == "stream":
        stream = zip_batches(stream, partner)
    history = model.fit(stream, epochs=4 if "bounded" in case else 1, verbose=0).history
    variables = [(variable.path, variable.numpy().tolist()) for variable in model.variables]
    if case == "joint":
        evaluated = model.evaluate(tf.data.Dataset.from_tensors((x[1], y[1])), verbose=0, return_dict=True)
        history.update({f"evaluated {key}": [value] for key, value in evaluated.items()})
    return {"history": history, "variables": variables}


if __name__ == "__main__":
    devices = several_devices()
    cases = sys.argv[1:]
    on_one_device = [] if "TF_CONFIG" in os.environ else [case for case in cases if "normalized" not in case]
    alone = {case: train(case, on_one_device=True) for case in on_one_device}
    with devices.scope():
        together = {case: train(case) for case in cases}
    print(json.dumps({"alone": alone, "together": together}))
