"""Fashion-MNIST: ITDM-c over the paper's values of λ (Table 3 and Figure 4).

python examples/fashion_mnist.py
python examples/fashion_mnist.py --train-size 10000 --seeds 3
"""

import pathlib

from common.sweep import GREY, main

if __name__ == "__main__":
    main(__doc__, "fashion_mnist", **GREY, output=pathlib.Path("results/fashion_mnist"))
