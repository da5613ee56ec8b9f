"""Traces: how often a training step is traced over 3 epochs in which λ follows a schedule by step. One is the bar.

KERAS_BACKEND=jax python benchmarks/traces.py
KERAS_BACKEND=tensorflow python benchmarks/traces.py

What is counted are the steps in which the step's Python code runs, which it does where a compiler meets a form of step
that it has not compiled. A smaller last batch is such a form, so where there is one, plain `fit` is what to compare
with. PyTorch traces nothing: it runs the code at each step.
"""

import fit_step
import keras
import measure
import numpy as np

from keras_itdm import ITDMModel
from keras_itdm.callbacks import MatchWeightScheduler

STEPS = 4


class _Counted:
    """Says whether `train_step` has run. TensorFlow runs it twice where it meets a form of step first."""

    traced = False

    def train_step(self, *args):
        self.traced = True
        return super().train_step(*args)


class PlainModel(_Counted, keras.Model):
    pass


class MatchedModel(_Counted, ITDMModel):
    pass


class _Counter(keras.callbacks.Callback):
    """Counts the steps that were traced."""

    count = 0

    def on_train_batch_end(self, batch, logs=None):
        self.count += self.model.traced
        self.model.traced = False


def traces(model, samples, as_dataset, settings, jit_compile, callbacks=()):
    """The number of steps that `fit` traces, on so many samples, as arrays or as a stream."""
    rng = np.random.default_rng(0)
    x = rng.random((samples, *fit_step.INPUT_SHAPES["cnn5"]), "float32")
    y = rng.integers(fit_step.NUM_CLASSES, size=samples)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=jit_compile)
    counter = _Counter()
    options = {"epochs": settings.epochs, "callbacks": [*callbacks, counter], "verbose": 0}
    if as_dataset:
        import tensorflow as tf

        model.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(settings.batch_size), shuffle=False, **options)
    else:
        model.fit(x, y, batch_size=settings.batch_size, **options)
    return counter.count


def main():
    parser = measure.parser(__doc__, repeats=1)
    parser.add_argument("--epochs", type=int, default=3, help="epochs (default: 3)")
    parser.add_argument("--batch-size", type=int, default=150, help="m, samples a mini-batch (default: 150)")
    settings = parser.parse_args()
    if keras.backend.backend() == "torch":
        raise SystemExit("PyTorch traces nothing: it runs the step's code at each step.")
    rows = []
    for mode, jit_compile in fit_step.modes().items():
        for last_batch in (settings.batch_size, settings.batch_size // 3):
            samples = (STEPS - 1) * settings.batch_size + last_batch
            for as_dataset in (False, True):
                schedule = MatchWeightScheduler(keras.optimizers.schedules.CosineDecay(0.8, 100 * STEPS))
                network = fit_step.network("cnn5")
                plain = PlainModel(network.inputs, network.outputs)
                matched = MatchedModel(fit_step.network("cnn5"), "features")
                arguments = (samples, as_dataset, settings, jit_compile)
                rows.append(
                    {
                        "mode": mode,
                        "data": "tf.data" if as_dataset else "arrays",
                        "batches": f"{settings.batch_size}, the last {last_batch}",
                        "plain": traces(plain, *arguments),
                        "ITDM-c": traces(matched, *arguments, [schedule]),
                        "bar": 1 if last_batch == settings.batch_size else None,
                    }
                )
    measure.report(f"Traces of the training step in {settings.epochs} epochs", rows, settings, "ITDM-c")


if __name__ == "__main__":
    main()
