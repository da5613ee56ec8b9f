"""Files of a model around another, `base_model`. One of weights, `.weights.h5`, is laid out as the plain model's, which
loads it: the base model's groups at the root, the wrapper's in one of their own. The optimizer, whose state is that of
plain training, stands where the plain model's does, unless the base has one. Other formats, and a file elsewhere than
on this machine, which Keras reads and writes through a copy, stay as Keras lays them out.
"""

import json
import pathlib
import tempfile
import zipfile

import h5py

_OWN = "keras_itdm"  # attribute of such a file: name of the group in which what is the wrapper's stands


class WeightFiles:
    """Mixin before `keras.Model`."""

    def save(self, filepath, *args, **kwargs):
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(
                "The old HDF5 format holds no model around another. Save as '.keras', or the base model alone: "
                f"`base_model.save(...)`. Received: {filepath}"
            )
        super().save(filepath, *args, **kwargs)

    def save_weights(self, filepath, *args, **kwargs):
        """Saves a file that the plain model loads too; what is the wrapper's own stands in a group of its own."""
        super().save_weights(filepath, *args, **kwargs)
        if _is_weight_file(filepath):
            with h5py.File(filepath, "a") as file:
                _lay_out_as_plain(file)

    def load_weights(self, filepath, *args, **kwargs):
        """Loads the weights of a file of this model's, or of one of the plain model's, in any of Keras' formats."""
        if _is_weight_file(filepath):
            with h5py.File(filepath) as file:
                if _OWN in file.attrs:
                    with tempfile.TemporaryDirectory() as folder:
                        path = pathlib.Path(folder) / "wrapper.weights.h5"
                        with h5py.File(path, "w") as whole:
                            _lay_out_as_wrapper(file, whole)
                        return super().load_weights(path, *args, **kwargs)
        groups = _groups(filepath)
        as_keras_does = "base_model/base_model" if hasattr(self.base_model, "base_model") else "base_model"
        if groups is None or as_keras_does in groups:
            return super().load_weights(filepath, *args, **kwargs)
        return self.base_model.load_weights(filepath, *args, **kwargs)


def _is_weight_file(filepath):
    return str(filepath).endswith(".weights.h5") and pathlib.Path(filepath).is_file()


def _groups(filepath):
    """Paths of the groups at the root of a file of weights, and of those inside them, in any of Keras' formats; `None`
    where it is of no such format, or not on this machine."""
    path = pathlib.Path(filepath)
    if not path.is_file():
        return None
    if path.name.endswith(".weights.json"):  # in shards
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        parts = [name.strip("/").split("/") for name in weight_map]
        return {"/".join(part[:depth]) for part in parts for depth in (1, 2)}
    if path.suffix == ".keras" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as stored, h5py.File(stored) as file:
            return _two_levels(file)
    if path.suffix in (".h5", ".hdf5"):
        with h5py.File(path) as file:
            return _two_levels(file)
    return None


def _two_levels(file):
    return {*file, *(f"{name}/{inner}" for name in file for inner in file[name])}


def _lay_out_as_plain(file):
    if "base_model" not in file or _OWN in file.attrs:
        return
    own = "itdm"
    while own in file or own in file["base_model"]:  # the plain model's groups are named after its attributes
        own += "_"
    file.attrs[_OWN] = own
    for name in set(file):
        file.move(name, f"{own}/{name}")
    for name in list(file[own]["base_model"]):
        file.move(f"{own}/base_model/{name}", name)
    del file[own]["base_model"]
    if "optimizer" in file[own] and "optimizer" not in file:
        file.move(f"{own}/optimizer", "optimizer")


def _lay_out_as_wrapper(file, whole):
    own, base = file.attrs[_OWN], whole.create_group("base_model")
    for name in file[own]:
        file.copy(f"{own}/{name}", whole)
    for name in set(file) - {own}:
        file.copy(name, whole if name == "optimizer" and "optimizer" not in file[own] else base)
