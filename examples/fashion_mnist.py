"""ITDM-c on Fashion-MNIST over the paper's values of λ, in the paper's settings (Table 3 and Figure 4).

python examples/fashion_mnist.py
python examples/fashion_mnist.py --train-size 10000 --match-weight 0 0.8 --seeds 3
"""

import pathlib

import numpy as np
from experiment import Data, parser, run


def load():
    """60,000 training and 10,000 test images of 28 × 28, through TensorFlow Datasets."""
    import tensorflow_datasets as tfds

    (x_train, y_train), (x_test, y_test) = tfds.as_numpy(
        tfds.load("fashion_mnist", split=["train", "test"], batch_size=-1, as_supervised=True)
    )
    return Data(np.float32(x_train) / 255, y_train, np.float32(x_test) / 255, y_test)


if __name__ == "__main__":
    settings = parser(
        __doc__.splitlines()[0],
        epochs=50,
        learning_rate=0.01,
        match_weight=[0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
        seeds=1,
        output=pathlib.Path("results/fashion_mnist"),
    )
    settings.set_defaults(filters=(32, 64, 128), dense_units=128)
    run("Fashion-MNIST", load(), settings.parse_args())
