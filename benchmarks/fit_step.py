"""What step.py, zero_weight.py and split.py share: the time of a training step in `fit`, of several models in turns."""

import itertools
import statistics
import time

import keras
import measure
import numpy as np

from experiments.networks import NETWORKS

INPUT_SHAPES = {"cnn5": (28, 28, 1), "resnet18": (32, 32, 3)}
NUM_CLASSES = 10


def parser(doc):
    parser = measure.parser(doc)
    parser.add_argument(
        "--network", nargs="+", choices=INPUT_SHAPES, default=list(INPUT_SHAPES), help="networks to train"
    )
    parser.add_argument("--batch-size", type=int, default=150, help="m, samples a mini-batch (default: 150)")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="time a turn takes, of as many steps as it holds (default: 1)"
    )
    return parser


def modes():
    """The ways of compiling a step on the backend at hand, as `jit_compile`, by name."""
    return {"tensorflow": {"graph": False, "XLA": True}, "jax": {"XLA": True}, "torch": {"eager": False}}[
        keras.backend.backend()
    ]


def network(name):
    return NETWORKS[name](INPUT_SHAPES[name], NUM_CLASSES)


def batch(name, batch_size, seed=0):
    """Random images and labels."""
    rng = np.random.default_rng(seed)
    return rng.random((batch_size, *INPUT_SHAPES[name]), "float32"), rng.integers(NUM_CLASSES, size=batch_size)


def endless(batch):
    """A stream of one batch, or pair of them, in memory: reading it costs next to nothing."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.device("cpu"):
            return tf.data.Dataset.from_tensors(batch).repeat()
    return (batch for _ in itertools.count())


def compiled(model, jit_compile="auto"):
    """The model, compiled as all are here."""
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.5),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=jit_compile,
    )
    return model


def jax_executable(model, batch):
    """The training step of a model on a batch, compiled, as JAX hands it out to be looked at."""
    import jax

    state = jax_state(compiled(model), batch)
    return jax.jit(lambda state, batch: model.train_step(state, batch)).lower(state, batch).compile()


def jax_state(model, batch):
    """The state that a compiled model's `train_step` takes and returns on JAX, when it begins."""
    model._symbolic_build(data_batch=batch)
    model.optimizer.build(model.trainable_variables)
    kinds = ("trainable_variables", "non_trainable_variables", "optimizer_variables", "metrics_variables")
    return model._get_jax_state(**dict.fromkeys(kinds, True))


class Trainee:
    """A model in training on a stream. Each call goes on with it in `fit`, for some time, and gives seconds a step."""

    def __init__(self, model, stream, jit_compile, seconds=1.0):
        self.model = compiled(model, jit_compile)
        self.stream = stream
        self.steps = max(2, 1 + round(seconds / self._fit(3)))  # its first step, which compiles, is not counted

    def _fit(self, steps):
        stopwatch = _Stopwatch()
        self.model.fit(self.stream, steps_per_epoch=steps, callbacks=[stopwatch], shuffle=False, verbose=0)
        return statistics.median(np.diff(stopwatch.ends))

    def __call__(self):
        return self._fit(self.steps)


class _Stopwatch(keras.callbacks.Callback):
    """When each step ended. From one to the next is a step with all that `fit` does; the first, which begins it, is
    not."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_train_batch_end(self, batch, logs=None):
        measure.read_back(logs)
        self.ends.append(time.perf_counter())


def rows(trainees, plain, plain_steps, settings):
    """Times models in turns; a row for each, with its step against `plain_steps` of those of the model named
    `plain`."""
    times = measure.interleaved(trainees, settings.repeats)
    floor = times.pop(plain)
    return [
        {
            "step": name,
            "plain, ms": measure.milliseconds(floor),
            "this, ms": measure.milliseconds(own),
            "ratio": measure.ratio(own, floor, plain_steps),
        }
        for name, own in times.items()
    ]


def main(doc, title, variants, plain_steps, bar):
    """The whole program.

    Args:
        doc: The docstring of the program.
        title: Title of the table.
        variants: Dictionary of functions from a network to the model and the kind of its stream, "plain" or "zipped".
        plain_steps: Number of plain steps that a step of these models is held against.
        bar: Of their ratio.
    """
    settings = parser(doc).parse_args()
    lines = []
    for name in settings.network:
        first, second = (batch(name, settings.batch_size, seed) for seed in (0, 1))
        streams = {"plain": endless(first), "zipped": endless((first, second))}
        for mode, jit_compile in modes().items():
            models = {"plain": lambda net: (net, "plain"), **variants}
            trainees = {}
            for variant, build in models.items():
                model, kind = build(network(name))
                trainees[variant] = Trainee(model, streams[kind], jit_compile, settings.seconds)
            shown = {"network": name, "mode": mode}
            lines += [shown | row for row in rows(trainees, "plain", plain_steps, settings)]
            del trainees
            keras.backend.clear_session()
    measure.report(title, lines, settings, "ratio", bar)
