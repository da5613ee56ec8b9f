"""QMNIST, KMNIST and Fashion-MNIST: ITDM-j on a CNN of two convolutions (Table 1, Figures 1 and 2).

python examples/table_1.py
"""

import pathlib

from common.sweep import GREY, JOINT, main

if __name__ == "__main__":
    main(__doc__, "qmnist", "kmnist", "fashion_mnist", **GREY | JOINT, output=pathlib.Path("results/table_1"))
