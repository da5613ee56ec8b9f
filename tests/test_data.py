import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_itdm import zip_batches
from keras_itdm.data import Pair, is_pair, pair_up


def indices(num_samples=200, batch_size=20, shuffle=None):
    dataset = tf.data.Dataset.range(num_samples)
    if shuffle:
        dataset = dataset.shuffle(num_samples, **shuffle)
    return dataset.map(lambda i: (tf.cast(i, tf.float32)[None], i)).batch(batch_size)


def epochs(pairs, count=3):
    return [[(y1.tolist(), y2.tolist()) for (_, y1), (_, y2) in pairs.as_numpy_iterator()] for _ in range(count)]


ORDERS = {
    "in order": None,
    "shuffled": {},
    "seeded": {"seed": 3},
    "fixed": {"seed": 3, "reshuffle_each_iteration": False},
}


@pytest.mark.parametrize("order", ORDERS)
def test_the_first_half_is_the_stream_itself(order):
    tf.random.set_seed(7)
    stream = indices(shuffle=ORDERS[order])
    expected = [[y.tolist() for _, y in stream.as_numpy_iterator()] for _ in range(3)]
    tf.random.set_seed(7)
    zipped = epochs(zip_batches(indices(shuffle=ORDERS[order])))
    assert [[first for first, _ in epoch] for epoch in zipped] == expected


@pytest.mark.parametrize("order", ORDERS)
def test_the_second_half_is_an_independent_draw(order):
    """As many samples in common as chance gives: 20 · 20 / 200 = 2 a step, and each epoch visits every sample once."""
    zipped = epochs(zip_batches(indices(shuffle=ORDERS[order]), seed=1), count=30)
    shared = [len(set(first) & set(second)) for epoch in zipped for first, second in epoch]
    assert np.mean(shared) == pytest.approx(2.0, abs=0.25)  # standard error 0.07
    assert max(shared) < 12
    for epoch in zipped:
        assert sorted(i for _, second in epoch for i in second) == list(range(200))
    orders = [[second for _, second in epoch] for epoch in zipped]
    assert all(orders[0] != other for other in orders[1:])


def test_a_long_stream_is_matched_out_of_the_batches_around():
    stream = tf.data.Dataset.range(600 * 4).map(lambda i: (tf.cast(i, tf.float32)[None], i)).batch(4)
    (epoch,) = epochs(zip_batches(stream, seed=0), count=1)
    assert [first for first, _ in epoch] == [list(range(start, start + 4)) for start in range(0, 2400, 4)]
    ahead = [(i // 4) - (first[0] // 4) for first, second in epoch for i in second]  # in batches
    assert max(ahead) == 8 and min(ahead) >= -63
    assert len({i for _, second in epoch for i in second}) > 1500
    assert all(len(set(second)) == 4 for _, second in epoch)
    same = np.mean([step == 0 for step in ahead[64 * 4 :]])
    assert same == pytest.approx(1 / 64, abs=0.01)  # what chance gives


@pytest.mark.parametrize("num_batches", [1, 2, 16, 17, 40, 70])
@pytest.mark.parametrize("known", [True, False])
def test_epochs_of_every_length(num_batches, known):
    stream = indices(num_batches * 6 - 1, 6)
    stream = stream if known else stream.filter(lambda *_: True)
    for epoch in epochs(zip_batches(stream), count=2):
        assert [i for first, _ in epoch for i in first] == list(range(num_batches * 6 - 1))
        assert all(len(first) == len(second) == len(set(second)) for first, second in epoch)


@pytest.mark.parametrize("num_batches", [4, 30])
def test_samples_of_lengths_that_vary_are_drawn_as_batches(num_batches):
    """Sequences that `padded_batch` makes as long as the longest of each batch, ragged and sparse ones."""
    lengths = np.arange(3 * num_batches) // 3 + 1
    sequences = tf.data.Dataset.from_tensor_slices(lengths).map(lambda n: tf.fill([n], n))
    sparse = tf.data.Dataset.from_tensor_slices(tf.sparse.eye(3 * num_batches, dtype=tf.int32)).batch(3)
    ragged = sequences.ragged_batch(3)
    for stream in (sequences.padded_batch(3), ragged, sparse):
        pairs = [[half[0] for half in pair] for pair in zip_batches(stream)]
        assert len(pairs) == num_batches
        dense = [[_dense(half).tolist() for half in pair] for pair in pairs]
        assert [first for first, _ in dense] == [_dense(x).tolist() for x in stream]
        assert all(first != second for first, second in dense)
        assert all(second in [first for first, _ in dense] for _, second in dense)


def _dense(x):
    if isinstance(x, tf.SparseTensor):
        return tf.sparse.to_dense(x).numpy()
    return x.to_tensor().numpy() if isinstance(x, tf.RaggedTensor) else x.numpy()


def counted(num_batches):
    """A stream, and the list of those of its batches that have been read."""
    read = []

    def batches():
        for number in range(num_batches):
            read.append(number)
            yield np.full(4, number, "float32")

    stream = tf.data.Dataset.from_generator(batches, output_signature=tf.TensorSpec((4,), tf.float32))
    return stream.apply(tf.data.experimental.assert_cardinality(num_batches)), read


def test_few_batches_are_read_before_the_first_step():
    stream, read = counted(200)
    next(iter(zip_batches(stream)))
    assert len(read) < 20


def test_a_partner_without_labels():
    zipped = zip_batches(indices(60), partner=indices(40, 10).map(lambda x, y: x))
    (_, y), (x,) = next(iter(zipped))
    assert len(y) == 20 and len(x) == 10


def test_last_batches_are_smaller_together():
    (epoch,) = epochs(zip_batches(indices(50, 20)), count=1)
    assert [(len(first), len(second)) for first, second in epoch] == [(20, 20), (20, 20), (10, 10)]


def test_the_same_seed_draws_the_same_partners():
    one, other, third = (epochs(zip_batches(indices(), seed=seed)) for seed in (4, 4, 5))
    assert one == other != third


def test_set_random_seed_decides_where_no_seed_is_given():
    drawn = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        before = np.random.get_state()[1].tolist()
        drawn.append(epochs(zip_batches(indices())))
        assert np.random.get_state()[1].tolist() == before  # nothing is used up
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_partner_is_zipped_as_it_is_and_repeated():
    zipped = zip_batches(indices(60), partner=indices(40, shuffle={"seed": 0, "reshuffle_each_iteration": False}))
    (epoch,) = epochs(zipped, count=1)
    assert len(epoch) == 3 == int(zipped.cardinality())
    assert epoch[0][1] == epoch[2][1]


def test_inputs_alone_are_zipped_as_a_pair():
    zipped = zip_batches(tf.data.Dataset.range(10).batch(5))
    assert is_pair(zipped.element_spec, num_inputs=1)


def test_nested_structures():
    inputs = tf.data.Dataset.from_tensor_slices(({"a": np.ones((8, 2)), "b": np.ones(8)}, np.ones(8))).batch(4)
    (first, _), (second, _) = next(iter(zip_batches(inputs)))
    assert first["a"].shape == second["a"].shape == (4, 2)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: zip_batches(np.ones((4, 2))), TypeError, "should be a tf.data.Dataset. Received"),
        (lambda: zip_batches(tf.data.Dataset.range(4)), ValueError, r"`dataset` should be batched"),
        (lambda: zip_batches(indices(), tf.data.Dataset.range(4)), ValueError, "`partner` should be batched"),
        (lambda: zip_batches(indices().take(0)), ValueError, "at least one batch. Received: an empty"),
        (lambda: zip_batches(indices(), indices().take(0)), ValueError, "`partner` should hold at least one batch"),
        (
            lambda: zip_batches(indices(), indices().map(lambda x, y: y)),
            ValueError,
            "should have the same structure.*Received: .*float32.*int64",
        ),
        (
            lambda: zip_batches(indices(), indices().map(lambda x, y: (x, tf.cast(y, tf.float32)))),
            ValueError,
            "should have the same structure, types",
        ),
    ],
)
def test_bad_streams_are_told_what_was_expected(call, error, message):
    with pytest.raises(error, match=message):
        call()


X, Y, Z = (np.zeros((4, 3)), np.zeros(4), np.zeros((4, 5)))


@pytest.mark.parametrize(
    "batch, num_inputs, expected",
    [
        ((X, Y), 1, False),
        ((X, Y), None, False),
        (((X, Y), (X, Y)), 1, True),
        (((X, Y), (X, Y)), None, True),
        ([[X, Y], [X, Y]], 1, True),  # as PyTorch's loaders hand it over
        (((X, Y, Y), (X, Y, Y)), 1, True),
        (((X, Y), (X, Y), None), 1, True),  # as `train_on_batch` packs it
        (((X, Z), (Y, Y)), 2, False),  # two inputs, two targets
        (((X, Z), (Y, Y)), None, False),
        ((((X, Z), Y), ((X, Z), Y)), 2, True),
        ((({"a": X, "b": Z}, Y), ({"a": X, "b": Z}, Y)), 2, True),
        (({"a": X, "b": Z}, Y), 2, False),
        (((X,), (X,)), 1, True),
        (((X, X), (X, X)), 1, True),  # an autoencoder
        (((X, X), (X, X)), 2, False),
        (Pair(X, X), 1, True),
        (X, 1, False),
    ],
)
def test_a_pair_is_told_from_inputs_and_targets(batch, num_inputs, expected):
    assert is_pair(batch, num_inputs) is expected


def test_arrays_are_paired_independently_on_every_path():
    x = np.arange(200, dtype="float32")[:, None]
    adapter = pair_up(x, np.arange(200), batch_size=20, seed=0)
    paths = [adapter.get_numpy_iterator, adapter.get_jax_iterator, lambda: adapter.get_tf_dataset().as_numpy_iterator()]
    if keras.backend.backend() == "torch":
        paths.append(adapter.get_torch_dataloader)
    for path in paths:
        shared = []
        for _ in range(20):
            epoch = [(np.asarray(batch[1]).tolist(), np.asarray(partner[1]).tolist()) for batch, partner in path()]
            shared += [len(set(first) & set(second)) for first, second in epoch]
            assert sorted(i for _, second in epoch for i in second) == list(range(200))
        assert np.mean(shared) == pytest.approx(2.0, abs=0.35)  # standard error 0.09
