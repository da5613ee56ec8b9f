"""Overlap: an epoch of `fit` on a slow reader, with S2 drawn from it, against the longer of reading and training.

KERAS_BACKEND=tensorflow python benchmarks/overlap.py

A batch takes some time to read, and a step about as long to train: a plain `fit`, which reads while it trains, takes
the time of one of them. Beside it, how many batches were read before the first step, and to pass over an epoch in
resuming.
"""

import time

import keras
import measure
import numpy as np

from keras_itdm import ITDMModel
from keras_itdm.data import pair_up

BATCH_SIZE = 32


class Reader:
    """A `tf.data.Dataset` whose batches take a while to read, and are counted."""

    def __init__(self, num_batches, seconds):
        import tensorflow as tf

        self.count = 0
        rng = np.random.default_rng(0)
        x, y = rng.random((BATCH_SIZE, 8), "float32"), rng.integers(2, size=BATCH_SIZE)

        def batches():
            for _ in range(num_batches):
                time.sleep(seconds)
                self.count += 1
                yield x, y

        signature = (tf.TensorSpec((BATCH_SIZE, 8), tf.float32), tf.TensorSpec((BATCH_SIZE,), tf.int64))
        dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
        self.dataset = dataset.apply(tf.data.experimental.assert_cardinality(num_batches)).prefetch(1)


class Training(keras.callbacks.Callback):
    """Has each step take a while; notes how long the last epoch took, and what had been read when its first step
    ended."""

    def __init__(self, reader, seconds):
        super().__init__()
        self.reader, self.pause = reader, seconds

    def on_epoch_begin(self, epoch, logs=None):
        self.reader.count = 0
        self.begun = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            self.read_before = self.reader.count
        time.sleep(self.pause)

    def on_epoch_end(self, epoch, logs=None):
        self.seconds = time.perf_counter() - self.begun


def network(wrapped):
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(8, name="features"), keras.layers.Dense(2, "softmax")]
    )
    model = ITDMModel(model, "features") if wrapped else model
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def epoch(wrapped, num_batches, reading, training):
    """Seconds of the second epoch, with its first wait for data, and batches read before its first step was done."""
    model, reader = network(wrapped), Reader(num_batches, reading)
    callback = Training(reader, training)
    model.fit(reader.dataset, epochs=2, callbacks=[callback], verbose=0)
    return callback.seconds, callback.read_before


def main():
    parser = measure.parser(__doc__, repeats=1)
    parser.add_argument("--batches", nargs="+", type=int, default=[200, 800], help="of an epoch (default: 200 800)")
    parser.add_argument("--seconds", type=float, default=0.02, help="to read a batch, and to train it (default: 0.02)")
    settings = parser.parse_args()
    rows = []
    for num_batches in settings.batches:
        plain, before_plain = epoch(False, num_batches, settings.seconds, settings.seconds)
        paired, before = epoch(True, num_batches, settings.seconds, settings.seconds)
        reading, _ = epoch(True, num_batches, settings.seconds, 0.0)
        training, _ = epoch(True, num_batches, 0.0, settings.seconds)
        reader = Reader(num_batches, 0.0)
        adapter = pair_up(reader.dataset, num_inputs=1)
        reader.count = 0
        next(iter(adapter.passed_over_by))
        rows.append(
            {
                "batches": num_batches,
                "plain, s": plain,
                "stream, s": paired,
                "reads alone, s": reading,
                "trains alone, s": training,
                "stream / the longer": paired / max(reading, training),
                "read before the first step (plain)": f"{before} ({before_plain})",
                "to pass over an epoch": reader.count,
            }
        )
    measure.report(
        "An epoch on a slow reader / reading or training alone", rows, settings, "stream / the longer", bar=1.1
    )


if __name__ == "__main__":
    main()
