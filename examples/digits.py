"""The same CNN trained without and with ITDM-c on scikit-learn's digits: real images, no download, in minutes.

python examples/digits.py
"""

import pathlib

from common.sweep import main

if __name__ == "__main__":
    main(
        __doc__,
        "digits",
        network=["cnn5"],
        filters=(16, 32),
        epochs=60,
        batch_size=100,
        learning_rate=0.1,
        momentum=0.9,
        milestones=[24, 48],
        decay=0.2,
        match_weight=[0.8],
        seeds=5,
        output=pathlib.Path("results/digits"),
    )
