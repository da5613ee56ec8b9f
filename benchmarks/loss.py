"""The loss: value and gradient of ITDM-c under XLA, for 10 classes, against a loop over the classes in PyTorch.

KERAS_BACKEND=jax python benchmarks/loss.py
KERAS_BACKEND=tensorflow python benchmarks/loss.py

Beside it stand the same loss with the median found by sorting, with σ given, and as one n × n matrix. Errors are
against the loop in float64.
"""

import losses
import measure
import torch

from keras_itdm.kernels import GaussianMixture
from keras_itdm.losses import ClassConditionalMMD

NUM_CLASSES = 10


def main():
    parser = measure.parser(__doc__, repeats=20)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[150, 512, 1024, 2048], help="values of m")
    parser.add_argument("--size", type=int, nargs="+", default=[128, 512], help="values of D, numbers in a feature")
    parser.add_argument("--labels", choices=["balanced", "random"], default="balanced", help="how classes are filled")
    settings = parser.parse_args()
    rows = []
    for batch_size in settings.batch_size:
        for size in settings.size:
            labels = {"balanced": losses.balanced, "random": losses.random}[settings.labels](batch_size, NUM_CLASSES)
            arguments = losses.features(batch_size, size, labels)
            reference = losses.torch_loop(arguments, NUM_CLASSES, torch.float64)
            loss = ClassConditionalMMD(NUM_CLASSES)
            own = losses.value_and_gradients(loss, arguments)
            blocks = ClassConditionalMMD(NUM_CLASSES, form="blocks")
            by_sorting = losses.value_and_gradients(blocks, arguments)
            losses.with_sorted_median(by_sorting)
            given = ClassConditionalMMD(NUM_CLASSES, GaussianMixture(bandwidth=2.0 * size))
            functions = {
                "loop": losses.torch_loop(arguments, NUM_CLASSES),
                "own": own,
                "sorted": by_sorting,
                "σ given": losses.value_and_gradients(given, arguments),
                "n × n": losses.value_and_gradients(ClassConditionalMMD(NUM_CLASSES, form="pairs"), arguments),
            }
            times = measure.interleaved(functions, settings.repeats)
            speed = measure.ratio(times["loop"], times["own"])
            rows.append(
                {
                    "m": batch_size,
                    "D": size,
                    "form": loss.form_for(batch_size, batch_size).name,
                    "PyTorch loop, ms": measure.milliseconds(times["loop"]),
                    "sorted, ms": measure.milliseconds(times["sorted"]),
                    "n × n, ms": measure.milliseconds(times["n × n"]),
                    "σ given, ms": measure.milliseconds(times["σ given"]),
                    "this, ms": measure.milliseconds(times["own"]),
                    "error": losses.error(own, reference),
                    "times as fast as the loop": speed,
                    "bar": 4.0 if batch_size < 512 else 1.5,
                }
            )
    title = f"ITDM-c, value and gradient, {NUM_CLASSES} classes, {settings.labels} labels"
    measure.report(title, rows, settings, "times as fast as the loop", at_least=True)


if __name__ == "__main__":
    main()
