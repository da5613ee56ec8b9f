"""Many classes, and one that holds most of the mini-batch: ITDM-c against its n × n form, and against float64.

KERAS_BACKEND=jax python benchmarks/many_classes.py
KERAS_BACKEND=tensorflow python benchmarks/many_classes.py
"""

import losses
import measure
import numpy as np
import torch

from keras_itdm.losses import ClassConditionalMMD


def main():
    parser = measure.parser(__doc__, repeats=30)
    parser.add_argument("--batch-size", type=int, default=256, help="m, samples a mini-batch (default: 256)")
    parser.add_argument("--size", type=int, default=512, help="D, numbers in a feature (default: 512)")
    settings = parser.parse_args()
    m = settings.batch_size
    cases = {
        "1000 classes": (1000, losses.random(m, 1000)),
        "100 classes": (100, losses.random(m, 100)),
        "10 classes, balanced": (10, losses.balanced(m, 10)),
        "10 classes, 90 % of one": (10, np.where(np.arange(m) < 0.9 * m, 0, losses.balanced(m, 10))),
    }
    rows = []
    for name, (num_classes, labels) in cases.items():
        arguments = losses.features(m, settings.size, labels)
        loss = ClassConditionalMMD(num_classes)
        functions = {
            "own": losses.value_and_gradients(loss, arguments),
            "n × n": losses.value_and_gradients(ClassConditionalMMD(num_classes, form="pairs"), arguments),
        }
        times = measure.interleaved(functions, settings.repeats)
        rows.append(
            {
                "labels": name,
                "form": loss.form_for(m, m).name,
                "n × n, ms": measure.milliseconds(times["n × n"]),
                "this, ms": measure.milliseconds(times["own"]),
                "error": losses.error(functions["own"], losses.torch_loop(arguments, num_classes, torch.float64)),
                "this / n × n": measure.ratio(times["own"], times["n × n"]),
            }
        )
    measure.report(f"ITDM-c, m = {m}, D = {settings.size}", rows, settings, "this / n × n", bar=1.0)


if __name__ == "__main__":
    main()
