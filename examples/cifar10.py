"""CIFAR10: ITDM-c over the paper's values of λ on three networks (Table 4, Figures 5 and 6).

python examples/cifar10.py
python examples/cifar10.py --network resnet18 --mixed-precision
"""

import pathlib

from common.sweep import COLOUR, main

if __name__ == "__main__":
    main(__doc__, "cifar10", **COLOUR, output=pathlib.Path("results/cifar10"))
