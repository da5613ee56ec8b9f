"""Small models and data that the tests share."""

import keras
import numpy as np
from keras import layers

NUM_CLASSES = 3


def data(num_samples=64, seed=0):
    """Class means with noise: images `(n, 6, 6, 1)` and class indices `(n,)`."""
    rng = np.random.default_rng(seed)
    y = rng.integers(NUM_CLASSES, size=num_samples)
    centres = np.random.default_rng(99).normal(size=(NUM_CLASSES, 6, 6, 1))
    return (centres[y] + rng.normal(size=(num_samples, 6, 6, 1))).astype("float32"), y


def convolutional(seed=1):
    """A network with batch normalization, dropout, a weight penalty and an activity penalty."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(4, 3, kernel_regularizer=keras.regularizers.L2(1e-3)),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(8, activation="relu", activity_regularizer=keras.regularizers.L2(1e-3), name="features"),
            layers.Dropout(0.3),
            layers.Dense(NUM_CLASSES, activation="softmax", name="classifier"),
        ]
    )


@keras.saving.register_keras_serializable(package="keras_itdm_tests")
class Subclassed(keras.Model):
    """A subclassed model that is not built before it is trained."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.flatten = layers.Flatten()
        self.hidden = layers.Dense(8, activation="relu", name="features")
        self.dropout = layers.Dropout(0.3)
        self.classifier = layers.Dense(NUM_CLASSES, activation="softmax")

    def call(self, inputs, training=None):
        return self.classifier(self.dropout(self.hidden(self.flatten(inputs)), training=training))


def compiled(model, learning_rate=0.1, **options):
    options = {
        "optimizer": keras.optimizers.SGD(learning_rate, momentum=0.5),
        "loss": "sparse_categorical_crossentropy",
        "metrics": ["accuracy"],
        **options,
    }
    model.compile(**options)
    return model
