"""Comparing ways to train: every trial with every seed, kept as it is finished, and measured in the same way."""

import dataclasses
import json
import re

import keras
import numpy as np
from tqdm.auto import tqdm

from experiments.data import Data
from experiments.training import Recipe, train, write_atomically


@dataclasses.dataclass
class Trial:
    """One training of a study."""

    name: str  # by which it is known again
    recipe: Recipe
    data: Data
    seed: int

    def folder(self, output):
        """Where it is kept among the results in the folder `output`."""
        return output / "runs" / re.sub(r"[^\w.,=-]+", "_", self.name.replace('"', ""))


def run_trials(trials, output, measure):
    """Trains what is not yet finished, under a progress bar, without evaluations on the way.

    Args:
        trials: List of `Trial`.
        output: Path of the folder to keep them in.
        measure: Function of the trained plain model and its `Data`, to a dictionary of numbers.

    Returns:
        List of dictionaries, one a trial: what was measured, and "seconds_per_epoch" and "seconds", spent in training.
    """
    measured = []
    with tqdm(total=sum(trial.recipe.epochs for trial in trials), unit="epoch", smoothing=0, dynamic_ncols=True) as bar:
        for trial in trials:
            before = bar.n
            bar.set_postfix_str(trial.name)
            result = train(
                trial.recipe,
                trial.data,
                trial.seed,
                trial.folder(output),
                measure=lambda folder, model, data=trial.data: measure(model, data),
                validate=False,
                on_epoch_end=lambda epochs_done, history: bar.update(),
            )
            seconds = np.median(result["history"]["seconds"])
            numbers = {key: value for key, value in result.items() if key not in ("history", "parameters")}
            measured.append({**numbers, "seconds_per_epoch": seconds, "seconds": seconds * trial.recipe.epochs})
            skipped = trial.recipe.epochs - (bar.n - before)
            bar.initial += skipped  # so that the time left follows from the epochs trained now
            bar.update(skipped)
    return measured


def tune(grid, once):
    """The three values in the middle are tried, then the next one as long as the best lies at an edge.

    Args:
        grid: List of settings, from weak to strong.
        once: Function of a setting to what is to be small.

    Returns:
        The best setting, and the list of `(setting, value)` that were tried, from weak to strong.
    """
    middle = len(grid) // 2
    tried = {index: once(grid[index]) for index in range(max(middle - 1, 0), min(middle + 2, len(grid)))}
    while True:
        best = min(tried, key=lambda index: tried[index] if np.isfinite(tried[index]) else np.inf)
        ahead = {min(tried): best - 1, max(tried): best + 1}.get(best)
        if ahead is None or ahead in tried or not 0 <= ahead < len(grid):
            return grid[best], [(grid[index], tried[index]) for index in sorted(tried)]
        tried[ahead] = once(grid[ahead])


def keep_tuned(settings, texts, tuning_texts, rows, tried):
    """Writes what a study with tuning came to, into the folder `settings.output`.

    Args:
        settings: The parsed arguments of the program.
        texts: Titled tables, for `table.md`.
        tuning_texts: Those of the settings that were tried, for `tuning.md`.
        rows: What the tables are made of, for `results.json`.
        tried: What those of the settings are made of.
    """
    write_atomically(settings.output / "table.md", "\n\n".join(texts) + "\n")
    write_atomically(settings.output / "tuning.md", "\n\n".join(tuning_texts) + "\n")
    kept = {"settings": vars(settings), "rows": rows, "tuning": tried}
    write_atomically(settings.output / "results.json", json.dumps(kept, default=str, indent=1) + "\n")


def test_metrics(model, data):
    """Accuracy in %, cross-entropy, and expected calibration error in %, on the test images."""
    x, y = data.test()
    probabilities = model.predict(x, batch_size=1000, verbose=0)
    labels = y.argmax(axis=1)
    return {
        "accuracy": 100 * float(np.mean(probabilities.argmax(axis=1) == labels)),
        "cross_entropy": float(
            np.mean(keras.ops.convert_to_numpy(keras.losses.categorical_crossentropy(y, probabilities)))
        ),
        "calibration_error": 100 * expected_calibration_error(probabilities, labels),
    }


def expected_calibration_error(probabilities, labels, bins=15):
    """Mean over samples of |accuracy - confidence| in their bin of confidence (Guo et al., 2017), in [0, 1].

    Args:
        probabilities: Array of shape `(samples, classes)`.
        labels: Class indices, `(samples,)`.
        bins: Number of bins of equal width.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, correct - confidence, minlength=bins)  # of each bin, times its number of samples
    return float(np.abs(gaps).sum() / len(labels))
