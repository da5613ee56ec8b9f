"""KMNIST: ITDM-c over the paper's values of λ (Table 2 and Figure 3).

python examples/kmnist.py
"""

import pathlib

from common.sweep import GREY, main

if __name__ == "__main__":
    main(__doc__, "kmnist", **GREY, output=pathlib.Path("results/kmnist"))
