"""λ = 0: a step of an `ITDMModel` that does not match, against a plain step.

KERAS_BACKEND=jax python benchmarks/zero_weight.py
KERAS_BACKEND=tensorflow python benchmarks/zero_weight.py
KERAS_BACKEND=torch python benchmarks/zero_weight.py
"""

import fit_step

from keras_itdm import ITDMModel

if __name__ == "__main__":
    fit_step.main(
        __doc__,
        "Step at λ = 0 / plain step",
        {"ITDM-c, λ = 0": lambda network: (ITDMModel(network, "features", match_weight=0.0), "zipped")},
        plain_steps=1,
        bar=1.05,
    )
