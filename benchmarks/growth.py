"""Growth: how the time of ITDM-c grows with the mini-batch, for 100 balanced classes and 512 numbers in a feature.

KERAS_BACKEND=jax python benchmarks/growth.py
KERAS_BACKEND=tensorflow python benchmarks/growth.py

Section 3.2 has it as K · m_H²: 16 times as much for a mini-batch of 4 times the size.
"""

import losses
import measure

from keras_itdm.losses import ClassConditionalMMD

NUM_CLASSES = 100


def main():
    parser = measure.parser(__doc__)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1024, 2048, 4096], help="values of m, ascending")
    parser.add_argument("--size", type=int, default=512, help="D, numbers in a feature (default: 512)")
    settings = parser.parse_args()
    loss = ClassConditionalMMD(NUM_CLASSES)
    functions = {
        m: losses.value_and_gradients(loss, losses.features(m, settings.size, losses.balanced(m, NUM_CLASSES)))
        for m in settings.batch_size
    }
    times = measure.interleaved(functions, settings.repeats)
    smallest = settings.batch_size[0]
    rows = [
        {
            "m": m,
            "blocks": " or ".join(str(size) for size in loss.form_for(m, m).block_sizes),
            "this, ms": measure.milliseconds(own),
            f"/ that of m = {smallest}": measure.ratio(own, times[smallest]),
            "K · m_H²": (m / smallest) ** 2,
            "growth / K · m_H²": measure.ratio(own, times[smallest], (m / smallest) ** 2),
        }
        for m, own in times.items()
    ]
    title = f"Growth of ITDM-c, {NUM_CLASSES} balanced classes, D = {settings.size}"
    measure.report(title, rows, settings, "growth / K · m_H²", bar=1.5)


if __name__ == "__main__":
    main()
