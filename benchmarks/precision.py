"""Precision: 2,000 steps of ITDM-c in mixed precision beside the same steps in float32.

KERAS_BACKEND=jax python benchmarks/precision.py
KERAS_BACKEND=tensorflow python benchmarks/precision.py
KERAS_BACKEND=torch python benchmarks/precision.py

A small dense network on scikit-learn's digits, trained with several seeds under each dtype policy. Matching is in
float32 whatever the policy; mixed float16 has Keras' loss scaling. The bar is on how far the mean test cross-entropy
lies from float32's: no farther than float32's seeds lie from each other, one standard deviation.
"""

import statistics

import keras
import measure
import numpy as np

from experiments import data
from keras_itdm import ITDMModel

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")


class NotFinite(keras.callbacks.Callback):
    """Counts epochs in which the loss of a step was not finite, which the epoch's mean then is not either."""

    count = 0

    def on_epoch_end(self, epoch, logs=None):
        self.count += not np.isfinite([logs["loss"], logs["match_loss"]]).all()


def train(digits, policy, seed, settings):
    """Test cross-entropy and accuracy, the last `match_loss`, and in how many epochs a loss was not finite."""
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(policy)
    network = keras.Sequential(
        [
            keras.Input(digits.input_shape),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu", name="features"),
            keras.layers.Dense(digits.num_classes),
            keras.layers.Activation("softmax", dtype="float32"),
        ]
    )
    model = ITDMModel(network, "features", match_weight=settings.match_weight)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.5), "sparse_categorical_crossentropy", metrics=["accuracy"])
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    if scaled != (policy == "mixed_float16"):
        raise RuntimeError(
            f"Keras should scale the loss in mixed float16 alone. Received: {model.optimizer} in {policy}"
        )
    not_finite = NotFinite()
    steps_per_epoch = digits.num_batches(settings.batch_size)
    history = model.fit(
        digits.scale * digits.x_train.astype("float32"),
        digits.y_train,
        batch_size=settings.batch_size,
        epochs=-(-settings.steps // steps_per_epoch),
        callbacks=[not_finite],
        verbose=0,
    ).history
    logs = model.evaluate(
        digits.scale * digits.x_test.astype("float32"),
        digits.y_test,
        batch_size=len(digits.x_test),
        verbose=0,
        return_dict=True,
    )
    return logs["loss"], logs["accuracy"], history["match_loss"][-1], not_finite.count


def main():
    parser = measure.parser(__doc__, repeats=3)
    parser.add_argument("--steps", type=int, default=2000, help="steps of each training (default: 2000)")
    parser.add_argument("--batch-size", type=int, default=50, help="m, samples a mini-batch (default: 50)")
    parser.add_argument("--match-weight", type=float, default=0.8, help="λ (default: 0.8)")
    settings = parser.parse_args()
    digits = data.load("digits")
    rows, reference = [], None
    for policy in POLICIES:
        runs = [train(digits, policy, seed, settings) for seed in range(settings.repeats)]
        losses, accuracies, match_losses, not_finite = zip(*runs, strict=True)
        mean, deviation = statistics.mean(losses), statistics.stdev(losses)
        reference = reference or (mean, deviation)
        rows.append(
            {
                "policy": policy,
                "test cross-entropy": f"{mean:.4f} ± {deviation:.4f}",
                "test accuracy, %": 100 * statistics.mean(accuracies),
                "match_loss": statistics.mean(match_losses),
                "epochs not finite": sum(not_finite),
                "off float32's": abs(mean - reference[0]),
                "bar": round(reference[1], 4) if policy != "float32" else None,
            }
        )
    title = f"{settings.steps:,} steps in mixed precision, {settings.repeats} seeds"
    measure.report(title, rows, settings, "off float32's")
    if any(row["epochs not finite"] for row in rows):
        raise SystemExit("The loss was not finite in some epochs.")


if __name__ == "__main__":
    main()
