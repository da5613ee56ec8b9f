"""S2 is an independent draw, for every kind of data and every `fit`; S1 is what plain `fit` trains on."""

import warnings

import keras
import numpy as np
import pytest

from keras_itdm import ITDMModel
from keras_itdm.data import pair_up
from tests.networks import compiled, convolutional, data

NUM_SAMPLES, BATCH_SIZE = 60, 10


def pairs_of(adapter):
    """The numbers of the samples in S1 and in S2, by step, as `fit` on this backend reads them."""
    backend = keras.backend.backend()
    batches = (
        adapter.get_tf_dataset()
        if backend == "tensorflow"
        else adapter.get_torch_dataloader()
        if backend == "torch"
        else adapter.get_jax_iterator()
    )
    return [[np.asarray(half[1]).ravel().tolist() for half in pair] for pair in batches]


def loaders():
    torch = pytest.importorskip("torch")
    data = torch.utils.data

    class Stream(data.IterableDataset):
        def __iter__(self):
            return iter([(np.zeros(2, "float32"), i) for i in range(NUM_SAMPLES)])

    class ReadOnce(data.IterableDataset):
        def __init__(self):
            self.samples = iter([(np.zeros(2, "float32"), i) for i in range(NUM_SAMPLES)])

        def __iter__(self):
            return self.samples

    samples = [(np.zeros(2, "float32"), i) for i in range(NUM_SAMPLES)]
    fixed = [int(i) for i in np.random.default_rng(3).permutation(NUM_SAMPLES)]
    distributed = data.DistributedSampler(samples, num_replicas=1, rank=0, seed=1)
    generator = torch.Generator()
    weighted = data.WeightedRandomSampler(np.ones(NUM_SAMPLES), NUM_SAMPLES, generator=generator)
    replaced = data.RandomSampler(samples, replacement=True, num_samples=3 * NUM_SAMPLES)
    return {
        "in order": lambda: data.DataLoader(samples, BATCH_SIZE),
        "shuffled": lambda: data.DataLoader(samples, BATCH_SIZE, shuffle=True),
        "a stream": lambda: data.DataLoader(Stream(), BATCH_SIZE),
        "a stream that is read once": lambda: data.DataLoader(ReadOnce(), BATCH_SIZE),
        "a list as sampler": lambda: data.DataLoader(samples, BATCH_SIZE, sampler=fixed),
        "DistributedSampler": lambda: data.DataLoader(samples, BATCH_SIZE, sampler=distributed),
        "WeightedRandomSampler": lambda: data.DataLoader(samples, BATCH_SIZE, sampler=weighted),
        "drawn with replacement": lambda: data.DataLoader(samples, BATCH_SIZE, sampler=replaced),
        "batches of the user's own": lambda: data.DataLoader(samples, batch_sampler=[fixed[:20], fixed[20:50]]),
    }


KINDS = [
    *("in order", "shuffled", "a stream", "a stream that is read once", "a list as sampler", "DistributedSampler"),
    *("WeightedRandomSampler", "drawn with replacement", "batches of the user's own"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_data_loader(kind):
    import torch

    if keras.backend.backend() == "tensorflow" and "read once" in kind:
        pytest.skip("Keras itself reads the first batches of a DataLoader twice on TensorFlow")
    expected = []
    for paired in (False, True):
        torch.manual_seed(0)
        loader = loaders()[kind]()
        if not paired:
            expected = [y.tolist() for _, y in loader]
            continue
        torch.manual_seed(0)
        pairs = pairs_of(pair_up(loader, num_inputs=1))
    assert len(pairs) == len(expected)
    if kind not in ("shuffled", "WeightedRandomSampler", "drawn with replacement"):  # these draw anew
        assert [first for first, _ in pairs] == expected
    if keras.backend.backend() != "tensorflow" or "own" not in kind:  # there they are all as large as the first
        assert all(len(first) == len(second) for first, second in pairs)
    assert all(first != second for first, second in pairs)
    shared = np.mean([len(set(first) & set(second)) / len(first) for first, second in pairs])
    batch_size = np.mean([len(first) for first, _ in pairs])
    chance = batch_size / NUM_SAMPLES
    assert shared < min(3 * chance, 0.8)


class Numbered(keras.utils.PyDataset):
    """Batches of numbers: those that follow the last ones read, or at random from a generator of its own, whichever
    index is asked for."""

    def __init__(self, at_random):
        super().__init__()
        self.at_random, self.rng, self.position = at_random, np.random.default_rng(0), 0

    def __len__(self):
        return 20

    def __getitem__(self, index):
        self.position += BATCH_SIZE
        first = int(self.rng.integers(10**6)) if self.at_random else self.position - BATCH_SIZE
        numbers = np.arange(first, first + BATCH_SIZE)
        return np.stack([numbers, 0 * numbers], axis=1).astype("float32"), (numbers % 3).astype("int32")


def loader_of_numbers(at_random):
    torch = pytest.importorskip("torch")
    batches = Numbered(at_random)

    class Samples(torch.utils.data.Dataset):
        def __len__(self):
            return 20

        def __getitem__(self, index):
            x, y = batches[index]
            return x[0], int(y[0])

    return torch.utils.data.DataLoader(Samples(), 1, shuffle=True)


@pytest.mark.parametrize("make_data", [Numbered, loader_of_numbers])
@pytest.mark.parametrize("at_random", [True, False])
def test_data_with_a_state_of_their_own_are_read_as_plain_fit_reads_them(at_random, make_data):
    """A second reader would move the cursor on, or draw from the generator: S1 would be every other batch."""

    class Seen(keras.Model):
        def __init__(self):
            super().__init__()
            self.features = keras.layers.Dense(2, kernel_initializer="identity", trainable=False, name="features")
            self.head = keras.layers.Dense(3, activation="softmax")

        def call(self, x):
            return self.head(self.features(x))

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return keras.ops.mean(x[:, 0]) + 0.0 * keras.ops.sum(y_pred)

    def losses(wrap):
        keras.utils.set_random_seed(0)
        model = compiled(wrap(Seen()))
        seen = []
        record = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["loss"]))
        model.fit(make_data(at_random), epochs=2, callbacks=[record], verbose=0)
        return seen

    assert losses(lambda model: ITDMModel(model, "features")) == losses(lambda model: model)


@pytest.mark.parametrize("kind", ["arrays", "tf.data", "PyDataset", "DataLoader"])
def test_each_fit_draws_other_partners(kind):
    """With the same weights and data, Match of a second `fit` is not that of the first."""
    x, y = data(60)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 6

        def __getitem__(self, index):
            return x[10 * index : 10 * index + 10], y[10 * index : 10 * index + 10]

    def arguments():
        if kind == "arrays":
            return {"x": x, "y": y, "batch_size": 10, "shuffle": False}
        if kind == "PyDataset":
            return {"x": Batches()}
        if kind == "DataLoader":
            torch = pytest.importorskip("torch")
            samples = torch.utils.data.TensorDataset(torch.as_tensor(x), torch.as_tensor(y))
            return {"x": torch.utils.data.DataLoader(samples, 10)}
        import tensorflow as tf

        return {"x": tf.data.Dataset.from_tensor_slices((x, y)).batch(10)}

    fixed = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(8, name="features")])
    fixed.add(keras.layers.Dense(3, activation="softmax"))

    def matches():
        keras.utils.set_random_seed(0)
        itdm = compiled(ITDMModel(fixed, "features"), learning_rate=0.0)
        return [itdm.fit(**arguments(), epochs=1, verbose=0).history["match_loss"][0] for _ in range(3)]

    drawn = matches()
    assert len({round(match, 6) for match in drawn}) == 3
    if kind in ("arrays", "PyDataset"):  # test_data.py has tf.data, and a DataLoader goes the way of a PyDataset
        assert drawn == pytest.approx(matches(), rel=1e-5)  # seeds decide


def test_data_may_get_shorter_from_epoch_to_epoch():
    x, y = data(60)

    class Shrinking(keras.utils.PyDataset):
        length = 6

        def __len__(self):
            return self.length

        def __getitem__(self, index):
            assert index < self.length
            return x[10 * index : 10 * index + 10], y[10 * index : 10 * index + 10]

        def on_epoch_end(self):
            self.length -= 1

    def steps(model):
        done = []
        count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: done.append(batch))
        compiled(model).fit(Shrinking(), epochs=3, callbacks=[count], verbose=0)
        return done

    plain = steps(convolutional())
    assert plain.count(0) == 3 and plain.count(3) < 3
    assert steps(ITDMModel(convolutional(), "features")) == plain


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="Its pipeline begins a generator anew with more")
def test_a_generator_that_runs_dry_ends_where_it_ends_in_plain_training():
    x, y = data(50)

    def batches():
        yield from zip(np.split(x, 5), np.split(y, 5), strict=True)

    def steps(model):
        done = []
        count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: done.append(batch))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*ran out of data.*")
            compiled(model).fit(batches(), steps_per_epoch=3, epochs=3, callbacks=[count], verbose=0)
        return done

    assert steps(ITDMModel(convolutional(), "features")) == steps(convolutional())


def test_an_epoch_of_one_batch_is_warned_of():
    x, y = data(20)
    with pytest.warns(UserWarning, match="S2 has the samples of S1"):
        compiled(ITDMModel(convolutional(), "features")).fit(x, y, batch_size=20, epochs=2, verbose=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*samples of S1.*")
        compiled(ITDMModel(convolutional(), "features")).fit(x, y, batch_size=10, epochs=1, verbose=0)
        compiled(ITDMModel(convolutional(), "features", partner="split")).fit(x, y, batch_size=20, verbose=0)


def test_two_inputs_and_two_targets_are_no_pair():
    torch = pytest.importorskip("torch")
    x, y = data(40)
    inputs = [keras.Input((6, 6, 1)), keras.Input((6, 6, 1))]
    both = keras.layers.Flatten()(keras.layers.Concatenate()(inputs))
    features = keras.layers.Dense(8, name="features")(both)
    outputs = [keras.layers.Dense(3, "softmax", name=name)(features) for name in "ab"]
    itdm = ITDMModel(keras.Model(inputs, outputs), "features", label_fn=0)
    itdm.compile("sgd", ["sparse_categorical_crossentropy"] * 2)
    samples = [((x[i], x[i]), (y[i], y[i])) for i in range(40)]
    loader = torch.utils.data.DataLoader(samples, 10, shuffle=True)
    assert itdm.fit(loader, epochs=1, verbose=0).history["match_loss"][0] > 0.01


@pytest.mark.parametrize("partner", ["stream", "split"])
def test_lists_of_inputs_and_targets_are_no_pair(partner):
    """`[x]` and `[x]`: an autoencoder's, whose halves are alike."""
    x, _ = data(40)
    flat = x.reshape(40, 36)
    model = keras.Sequential([keras.Input((36,)), keras.layers.Dense(8, name="features"), keras.layers.Dense(36)])
    itdm = ITDMModel(model, "features", matching="joint", partner=partner)
    itdm.compile(keras.optimizers.SGD(0.0), "mse")
    loss = itdm.fit([flat], [flat], batch_size=20, epochs=1, verbose=0).history
    assert loss["match_loss"][0] > 0.01
    assert np.isfinite(itdm.train_on_batch([flat], [flat]))


def test_a_subclassed_model_of_two_views():
    x, _ = data(40)

    class Views(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = keras.layers.Dense(8, name="features")
            self.decoders = [keras.layers.Dense(36), keras.layers.Dense(36)]

        def call(self, views):
            hidden = self.hidden(views[0] + views[1])
            return [decoder(hidden) for decoder in self.decoders]

    views = [x.reshape(40, 36), 2 * x.reshape(40, 36)]
    for partner in ("stream", "split"):
        itdm = ITDMModel(Views(), "features", matching="joint", partner=partner)
        itdm.compile(keras.optimizers.SGD(1e-3), ["mse", "mse"])
        history = itdm.fit(views, views, batch_size=20, epochs=1, verbose=0).history
        assert history["match_loss"][0] > 0.01, partner


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's graphs")
def test_arrays_do_not_become_constants_of_a_graph(monkeypatch):
    """They would be copied several times over, and fail at 2 GiB."""
    import tensorflow as tf

    gather, is_symbolic = tf.gather, []

    def recorded(params, *args, **kwargs):
        is_symbolic.append(tf.is_symbolic_tensor(params))
        return gather(params, *args, **kwargs)

    monkeypatch.setattr(tf, "gather", recorded)
    x, y = data()
    adapter = pair_up([x, x], y, batch_size=16)
    batches = list(adapter.partners.get_tf_dataset())
    assert len(batches) == 4
    assert is_symbolic and all(is_symbolic)
    assert adapter.batches._inputs[1] is adapter.partners._inputs[1]
