"""STL10: ITDM-c over the paper's values of λ on three networks (Table 5 and Figure 7).

python examples/stl10.py
"""

import pathlib

from common.sweep import COLOUR, main

if __name__ == "__main__":
    main(__doc__, "stl10", **COLOUR, output=pathlib.Path("results/stl10"))
