"""Pictures of the features of training and validation data, as training goes on."""

import os
import pathlib
from typing import Any, Literal

import numpy as np

from keras_itdm._typing import LabelFn
from keras_itdm.callbacks._feature_callback import FeatureCallback

METHODS = {"tsne": "t-SNE", "pca": "PCA"}
# Okabe and Ito's palette, safe for the colour-blind, and two more.
_COLOURS = [
    "#000000",
    "#e69f00",
    "#56b4e9",
    "#009e73",
    "#d5c711",
    "#0072b2",
    "#d55e00",
    "#cc79a7",
    "#999999",
    "#7b4f00",
]
_NO_CLASS = "#cccccc"
_MOST_IN_LEGEND = 20


class FeatureProjection(FeatureCallback):
    """Draws the features of training and validation data in the plane, coloured by class, every so many epochs.

    Training samples are dots, validation samples crosses: where a class overfits, its crosses lie apart from its dots.
    The samples are the same in each picture, and each starts from the one before: t-SNE from its positions and turned
    to match them, PCA with the signs of its components. So classes stay about where they were. The axes of t-SNE have
    no unit and are left blank; those of PCA are in feature units, with the share of the variance that each explains.

    Needs scikit-learn and matplotlib (`pip install scikit-learn matplotlib`), but no display. It changes no training.

    Args:
        train_data: Arrays `x` or `(x, y)`, or a finite, batched `tf.data.Dataset`, `keras.utils.PyDataset`, PyTorch
            `DataLoader` or generator of these. Without labels all is drawn in one colour. It is read once, as for
            `FeatureDiscrepancy`.
        validation_data: The same.
        directory: Folder for the pictures, `epoch_0001.png` and so on, counted from 1; or `None`.
        feature_layer: Name of the layer, as in `ITDMModel`, whose own it is by default; the last, if it has several.
        method: `"tsne"` or `"pca"`.
        every: Number of epochs from one picture to the next, beginning with the first of `fit`. The last epoch of a
            `fit` that runs to its end is drawn too.
        max_samples: How many samples of either are drawn at most.
        log_dir: Folder for TensorBoard, that of `keras.callbacks.TensorBoard`, or `None`. The pictures are in its run
            "features", by epoch counted from 0, as Keras counts there.
        label_fn: Function from `y` to the labels, where `y` has several parts. Defaults to that of `ITDMModel`, or `y`.
        batch_size: Number of samples a batch in reading features.
        seed: Integer; decides which samples are drawn, and t-SNE.

    Raises:
        ImportError: if scikit-learn or matplotlib is not installed.
        ValueError: if an argument is not one of these, or neither `directory` nor `log_dir` is given; as training
            begins, if there is no such layer, or the data is empty or infinite.

    Example:

    ```python
    projection = FeatureProjection((x, y), (x_val, y_val), "pictures", every=5, log_dir="logs")
    itdm.fit(x, y, epochs=20, callbacks=[projection, keras.callbacks.TensorBoard("logs")])
    ```
    """

    def __init__(
        self,
        train_data: Any,
        validation_data: Any,
        directory: str | os.PathLike | None = None,
        feature_layer: str | None = None,
        method: Literal["tsne", "pca"] = "tsne",
        every: int = 10,
        max_samples: int = 500,
        log_dir: str | os.PathLike | None = None,
        label_fn: LabelFn | None = None,
        batch_size: int = 32,
        seed: int = 0,
    ):
        super().__init__(train_data, validation_data, feature_layer, every, max_samples, label_fn, batch_size, seed)
        if method not in METHODS:
            raise ValueError(f"`method` should be one of {list(METHODS)}. Received: {method!r}")
        if directory is None and log_dir is None:
            raise ValueError("Say where the pictures go: `directory`, `log_dir` or both. Received neither")
        _check_installed()
        self.directory = None if directory is None else pathlib.Path(directory)
        self.log_dir = None if log_dir is None else pathlib.Path(log_dir)
        self.method = method

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._classes, _ = self.classes()
        self._last_drawn = self._epoch = self._points = self._writer = None

    def on_epoch_end(self, epoch, logs=None):
        self._epoch = epoch
        super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs=None):
        if self._epoch != self._last_drawn:
            self.look(self._epoch, logs)
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        super().on_train_end(logs)

    def look(self, epoch, logs):
        self._last_drawn = epoch
        features = np.concatenate([f.reshape(len(f), -1) for f in self.features()])
        axes = ("", "")
        if np.isfinite(features).all():
            self._points, axes = project(features, self.method, self._points, self.seed)
            halves = np.split(self._points, 2)
        else:
            halves = None
        figure = picture(halves, self._classes, axes, f"epoch {epoch + 1}, {METHODS[self.method]}")
        if self.directory is not None:
            self.directory.mkdir(parents=True, exist_ok=True)
            figure.savefig(self.directory / f"epoch_{epoch + 1:04d}.png")
        if self.log_dir is not None:
            self._write_image(figure, epoch)

    def _write_image(self, figure, epoch):
        import tensorflow as tf
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[None, :, :, :3]
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self.log_dir / "features"))
        with self._writer.as_default():
            tf.summary.image("features", pixels, step=epoch)
        self._writer.flush()


def project(features, method, previous=None, seed=0):
    """Points in the plane, `(samples, 2)`, and names of the axes, for finite features, `(samples, features)`.

    `previous` are the points of the same samples in the picture before.
    """
    from scipy.linalg import orthogonal_procrustes
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if features.shape[1] == 1:
        features = np.pad(features, ((0, 0), (0, 1)))
    if np.ptp(features, axis=0).max() == 0:
        return np.zeros((len(features), 2)), ("", "")
    if method == "pca":
        pca = PCA(n_components=2, random_state=seed)
        points = pca.fit_transform(features)
        if previous is not None:
            points *= np.where(np.sum(points * previous, axis=0) < 0, -1.0, 1.0)
        return points, [
            f"component {i + 1}, {share:.0%} of variance" for i, share in enumerate(pca.explained_variance_ratio_)
        ]
    start = "pca"
    if previous is not None and np.std(previous[:, 0]) > 0:
        start = (previous / np.std(previous[:, 0]) * 1e-4).astype("float32")  # the scale that scikit-learn starts with
    perplexity = min(30.0, (len(features) - 1) / 3)
    points = TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(features)
    if previous is not None:
        # Turned to where the samples were, since directions mean nothing.
        points = points @ orthogonal_procrustes(points, previous)[0]
    return points, ("", "")


def picture(halves, classes, axis_names, title):
    """A matplotlib `Figure` of the points of training and validation samples.

    Args:
        halves: Points of either, NumPy arrays of shape `(samples, 2)`; `None` if there are none.
        classes: Class indices of either, with -1 for samples of no class, which are drawn in grey; or `None`s.
        axis_names: Names of the two axes.
        title: Of the picture.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(6.4, 4.8), dpi=120, layout="constrained")  # past pyplot, which would keep it
    axis = figure.subplots()
    axis.set(title=title, xlabel=axis_names[0], ylabel=axis_names[1])
    if halves is None:
        axis.text(0.5, 0.5, "features are not finite", ha="center", va="center", transform=axis.transAxes)
        return figure
    by_class = all(of_half is not None for of_half in classes)
    present = np.unique(np.concatenate(classes)) if by_class else np.array([])
    present = present[present >= 0]
    palette = _COLOURS if len(present) <= len(_COLOURS) else colormaps["turbo"](np.linspace(0, 1, len(present)))
    colour_of = dict(zip(present.tolist(), palette, strict=False))
    markers = {"o": {"s": 9, "linewidths": 0}, "x": {"s": 16, "linewidths": 0.9}}
    for points, of_half, (marker, style) in zip(halves, classes, markers.items(), strict=True):
        colours = [colour_of.get(k, _NO_CLASS) for k in of_half.tolist()] if len(present) else _COLOURS[5]
        axis.scatter(*points.T, c=colours, marker=marker, alpha=0.7, **style)
    if not any(axis_names):
        axis.set(xticks=[], yticks=[])
    grey = {"color": "#555555", "linestyle": "", "markersize": 5}
    handles = [
        Line2D([], [], marker="o", label="training", **grey),
        Line2D([], [], marker="x", label="validation", **grey),
    ]
    if len(present) <= _MOST_IN_LEGEND:
        handles += [
            Line2D([], [], marker="s", linestyle="", color=colour, label=f"class {k}")
            for k, colour in colour_of.items()
        ]
    axis.legend(handles=handles, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _check_installed():
    try:
        import matplotlib  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "FeatureProjection needs scikit-learn and matplotlib: pip install scikit-learn matplotlib. "
            f"Received: {error}"
        ) from error
