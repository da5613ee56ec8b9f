"""The step: an ITDM-c step with a second mini-batch, which does the work of two, against two plain steps.

KERAS_BACKEND=jax python benchmarks/step.py
KERAS_BACKEND=tensorflow python benchmarks/step.py
KERAS_BACKEND=torch python benchmarks/step.py
"""

import fit_step

from keras_itdm import ITDMModel

if __name__ == "__main__":
    fit_step.main(
        __doc__,
        "ITDM-c step / two plain steps",
        {"ITDM-c": lambda network: (ITDMModel(network, "features"), "zipped")},
        plain_steps=2,
        bar=1.05,
    )
