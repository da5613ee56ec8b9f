"""One training, from a recipe: any network, without or with ITDM or another regularizer, resumed where it was
killed."""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import shutil
import time

import keras
import numpy as np

import keras_itdm.callbacks
from experiments.networks import NETWORKS


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained. The defaults are plain SGD in the paper's settings for 28 × 28 images."""

    network: str = "cnn5"
    filters: tuple | None = None  # of "cnn5"; None for its own
    batch_size: int = 150
    epochs: int = 50
    learning_rate: float = 0.01
    momentum: float = 0.5
    milestones: tuple = (20, 40)  # epochs after which the rate is multiplied by `decay`
    decay: float = 0.2
    match_weight: float = 0.0  # λ; at 0 the plain model is trained
    matching: object = "class_conditional"
    partner: str = "stream"
    max_share: float | None = None  # κ; None is the paper's constant λ
    schedule: object = None  # of λ, as `MatchWeightScheduler` takes it; None keeps λ as it is
    feature_layer: str = "features"
    label_smoothing: float = 0.0
    weight_decay: float = 0.0
    dropout: float = 0.0
    mixup: float = 0.0  # α of the Beta distribution
    sam: float = 0.0  # ρ, the radius of sharpness-aware minimization
    dtype_policy: str = "float32"

    def __post_init__(self):
        if self.match_weight and (self.mixup or self.sam):
            raise ValueError("Mixup and SAM are alternatives to ITDM here: give a `match_weight` of 0 with them.")

    def compiled_model(self, data, seed):
        """The network with its initial weights, wrapped if λ is positive, and compiled. Sets all random seeds."""
        keras.config.set_dtype_policy(self.dtype_policy)
        keras.utils.set_random_seed(seed)
        options = {"filters": self.filters, "dropout": self.dropout} if self.network == "cnn5" else {}
        options = {name: value for name, value in options.items() if value}
        model = NETWORKS[self.network](data.input_shape, data.num_classes, **options)
        if self.match_weight:
            model = keras_itdm.ITDMModel(
                model,
                self.feature_layer,
                matching=self.matching,
                match_weight=self.match_weight,
                partner=self.partner,
                max_share=self.max_share,
            )
        model.compile(
            optimizer=self._optimizer(data),
            loss=keras.losses.CategoricalCrossentropy(label_smoothing=self.label_smoothing),
            metrics=["accuracy", keras.metrics.CategoricalCrossentropy(name="cross_entropy")],
            jit_compile=_jit_compile(),
        )
        return model

    def callbacks(self):
        return [keras_itdm.callbacks.MatchWeightScheduler(self.schedule)] if self.schedule else []

    def steps_per_epoch(self, data):
        return data.num_batches(self.batch_size) * (2 if self.sam else 1)

    def _optimizer(self, data):
        rate = self.learning_rate
        if self.milestones:
            steps = self.steps_per_epoch(data)
            rates = [rate * self.decay**i for i in range(len(self.milestones) + 1)]
            rate = keras.optimizers.schedules.PiecewiseConstantDecay([steps * m for m in self.milestones], rates)
        options = {"momentum": self.momentum, "weight_decay": self.weight_decay or None}
        if self.sam:
            from experiments.sam import SAM

            return SAM(rate, radius=self.sam, **options)
        return keras.optimizers.SGD(rate, **options)

    def stream(self, data, seed, first_epoch=0):
        """What `fit` trains on: S1, which depends on the seed alone, and where it is called for, S2 beside it."""
        batches = data.batches(self.batch_size, (seed, 1), self.epochs, first_epoch)
        if self.match_weight and self.partner == "stream":
            partner = data.batches(self.batch_size, (seed, 2), self.epochs, first_epoch)
            return keras_itdm.zip_batches(batches, partner=partner)
        if self.mixup:
            # The layer keeps a random state of its own: after a kill it draws anew, where all else goes on as it was.
            mix = keras.layers.MixUp(self.mixup, seed=seed + 1000 * first_epoch)

            def mix_up(images, labels):
                mixed = mix({"images": images, "labels": labels})
                return mixed["images"], mixed["labels"]

            batches = batches.map(mix_up)
        if self.sam:
            batches = batches.flat_map(lambda *batch: type(batches).from_tensors(batch).repeat(2))
        return batches


def _jit_compile():
    """TensorFlow's own kernels for convolutions are faster than XLA's on a CPU; elsewhere Keras knows best."""
    return False if keras.backend.backend() == "tensorflow" and _on_cpu() else "auto"


def _on_cpu():
    return "cpu" in str(keras.ops.zeros(()).device).lower()


def train(recipe, data, seed, folder, measure=None, validate=True, on_epoch_end=None):
    """Trains a network, or goes on where an earlier call with this `folder` was interrupted.

    Args:
        recipe: A `Recipe`.
        data: A `Data`.
        seed: Integer, of the initial weights and of the order of the samples.
        folder: Path for what is kept: at the end of each epoch what it takes to go on, and in the end `result.json`.
        measure: Function of the folder and the trained plain model, to a dictionary to be kept with the result.
        validate: Whether to evaluate on the test data after each epoch.
        on_epoch_end: Function of the number of epochs done and their `History`-like dictionary, called after each.

    Returns:
        Dictionary of "history", which has a list of values an epoch for each key that Keras logs and for "seconds", the
        time spent in training (the processor's where it is a CPU that trains, so that what else runs does not count),
        "parameters", the number of trainable ones, and what was measured.
    """
    folder = pathlib.Path(folder)
    if (folder / "result.json").exists():
        Progress(folder).remove()  # which a kill may have left
        return json.loads((folder / "result.json").read_text())
    folder.mkdir(parents=True, exist_ok=True)
    model = recipe.compiled_model(data, seed)
    progress = Progress(folder, seed, on_epoch_end)
    epochs_done = progress.restore(model)
    if epochs_done < recipe.epochs:
        model.fit(
            recipe.stream(data, seed, epochs_done),
            initial_epoch=epochs_done,
            epochs=recipe.epochs,
            steps_per_epoch=recipe.steps_per_epoch(data),
            validation_data=data.test() if validate else None,
            validation_batch_size=1000,
            callbacks=[*recipe.callbacks(), progress],
            shuffle=False,  # the stream is shuffled
            verbose=0,
        )
    plain = getattr(model, "base_model", model)
    parameters = sum(math.prod(variable.shape) for variable in plain.trainable_variables)
    result = {"parameters": parameters, **(measure(folder, plain) if measure else {}), "history": progress.history}
    write_atomically(folder / "result.json", json.dumps(result))
    progress.remove()
    keras.backend.clear_session()
    return result


class Progress(keras.callbacks.Callback):
    """Keeps a training's history and state at the end of each epoch.

    A kill at any moment, while a file is being written as well, loses the epoch in progress and no more: the state
    after a new epoch goes to a file of its own, and the history, which says which file counts, is replaced in one
    stroke. `keras.callbacks.BackupAndRestore` writes its two files one after the other, and leaves out the state of
    random seeds.

    Args:
        folder: Path to keep them in.
        seed: Integer. PyTorch's dropout draws from a global generator, which is set from it and the epoch.
        on_epoch_end: Function called after each epoch, when all is kept, with the number of epochs done and the
            history.
    """

    def __init__(self, folder, seed=0, on_epoch_end=None):
        super().__init__()
        self.seed = seed
        self.folder = pathlib.Path(folder) / "progress"
        self.history = {}
        self._tell = on_epoch_end

    def restore(self, model):
        """Brings a compiled model to the state that was kept, if any, and returns the number of epochs that it has."""
        if not (self.folder / "history.json").exists():
            return 0
        self.history = json.loads((self.folder / "history.json").read_text())
        model.optimizer.build(model.trainable_variables)
        with np.load(self._state_file(self.epochs_done)) as kept:
            for variable, name in zip(_state(model), kept.files, strict=True):
                variable.assign(kept[name])
        return self.epochs_done

    @property
    def epochs_done(self):
        return len(self.history.get("seconds", []))

    def _state_file(self, epoch):
        return self.folder / f"state-{epoch}.npz"

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._begun, self._evaluating = epoch, _seconds(), 0.0

    def on_train_batch_begin(self, batch, logs=None):
        # Not by keras.utils.set_random_seed, which on TensorFlow empties the cache of kernels.
        if batch == 0 and keras.backend.backend() == "torch":
            import torch

            torch.manual_seed(self.seed + 1000 * self._epoch)

    def on_test_begin(self, logs=None):
        self._test_begun = _seconds()

    def on_test_end(self, logs=None):
        self._evaluating += _seconds() - self._test_begun

    def on_epoch_end(self, epoch, logs=None):
        logs = {**logs, "seconds": _seconds() - self._begun - self._evaluating}
        for key, value in logs.items():
            self.history.setdefault(key, []).append(float(value))
        self.folder.mkdir(parents=True, exist_ok=True)
        np.savez(self._state_file(epoch + 1), *map(keras.ops.convert_to_numpy, _state(self.model)))
        write_atomically(self.folder / "history.json", json.dumps(self.history))
        for file in self.folder.glob("state-*.npz"):
            if file != self._state_file(epoch + 1):
                file.unlink()
        if self._tell:
            self._tell(self.epochs_done, self.history)

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def _seconds():
    """Now, on a clock that the rest of the machine's work does not move where the processor trains."""
    return time.process_time() if _on_cpu() else time.perf_counter()


def _state(model):
    """All variables of a compiled model and its optimizer, random seeds among them, but for its metrics'."""
    metrics = {id(variable) for variable in model.metrics_variables}
    return [v for v in [*model.variables, *model.optimizer.variables] if id(v) not in metrics]


def write_atomically(path, content):
    """Writes text to a file that is at no time there in part."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(content, encoding="utf-8")
    os.replace(new, path)


class DefaultsHelp(argparse.ArgumentDefaultsHelpFormatter):
    """Help with the default of each argument that has one."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


def positive(text):
    """Type of a command-line argument: an integer of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"should be at least 1. Got: {text}")
    return number


def not_negative(text):
    """Type of a command-line argument: a finite number of at least 0."""
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"should be a finite number of at least 0. Got: {text}")
    return number


def check_settings(settings, free=()):
    """Refuses to go on with what was begun in the folder `settings.output` with other settings, those in `free`
    apart."""
    now = {key: value for key, value in vars(settings).items() if key not in free}
    now = json.loads(json.dumps({**now, "backend": keras.backend.backend()}, default=str))
    path = settings.output / "settings.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [f"{key}: {before.get(key)} before, {now[key]} now" for key in now if before.get(key) != now[key]]
        if changed:
            raise SystemExit(
                f"{settings.output} holds results of other settings ({'; '.join(changed)}). "
                "Give another folder with --output, or remove this one."
            )
    settings.output.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(now, indent=1))
