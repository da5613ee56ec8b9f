"""Split batches: a step that matches the halves of its own mini-batch, against a plain step of the same mini-batch.

KERAS_BACKEND=jax python benchmarks/split.py
KERAS_BACKEND=tensorflow python benchmarks/split.py
KERAS_BACKEND=torch python benchmarks/split.py
"""

import fit_step
import keras

from keras_itdm import ITDMModel
from keras_itdm.layers import SplitBatchMatching


def with_layer(network):
    """The network with a `SplitBatchMatching` before its classifier."""
    features = SplitBatchMatching()(network.get_layer("features").output)
    return keras.Model(network.input, network.get_layer("classifier")(features))


if __name__ == "__main__":
    fit_step.main(
        __doc__,
        "Step on a split batch / plain step",
        {
            'ITDM-c, partner="split"': lambda network: (ITDMModel(network, "features", partner="split"), "plain"),
            "SplitBatchMatching": lambda network: (with_layer(network), "plain"),
        },
        plain_steps=1,
        bar=1.05,
    )
