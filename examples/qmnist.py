"""QMNIST: ITDM-j without and with, on a CNN of two convolutions (Table 1, Figures 1 and 2); the paper has no ITDM-c on it.

python examples/qmnist.py
python examples/qmnist.py --matching class_conditional --network cnn5 --match-weight 0 0.2 0.4 0.6 0.8 1
"""

import pathlib

from common.sweep import GREY, JOINT, main

if __name__ == "__main__":
    main(__doc__, "qmnist", **GREY | JOINT, output=pathlib.Path("results/qmnist"))
