import numpy as np
import pytest

from experiments.data import Data, crop_and_flip, load
from tests.experiments.fakes import fake_datasets


def numbered(count=10, **options):
    """Images of 4 × 4 whose pixels all hold the image's number, which is its class as well."""
    y = np.arange(count)
    x = np.broadcast_to(y[:, None, None, None], (count, 4, 4, 1)).astype("uint8")
    return Data("digits", x, y, x, y, **{"scale": 1.0, **options})


def drawn(data, **options):
    """The numbers of the images in each batch."""
    options = {"batch_size": 4, "seed": (0, 1), "epochs": 3, **options}
    return [x.numpy()[:, 0, 0, 0].astype(int).tolist() for x, _ in data.batches(**options)]


def test_an_epoch_holds_every_image_once_with_its_label():
    batches = list(numbered().batches(4, (0, 1), 1))
    assert [len(x) for x, _ in batches] == [4, 4, 2]
    x, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    np.testing.assert_array_equal(x[:, 0, 0, 0], y.argmax(axis=1))
    assert sorted(y.argmax(axis=1)) == list(range(10)) != y.argmax(axis=1).tolist()


def test_a_stream_entered_at_a_later_epoch_goes_on_as_if_read_from_the_first():
    assert drawn(numbered())[6:] == drawn(numbered(), first_epoch=2)
    augmented = numbered(augment=True)
    later = [x.numpy() for x, _ in augmented.batches(4, (0, 1), 3, first_epoch=2)]
    for a, b in zip([x.numpy() for x, _ in augmented.batches(4, (0, 1), 3)][6:], later, strict=True):
        np.testing.assert_array_equal(a, b)


def test_epochs_and_seeds_differ():
    one = drawn(numbered())
    assert one[:3] != one[3:6]
    assert one != drawn(numbered(), seed=(0, 2)) != drawn(numbered(), seed=(1, 2))
    assert one == drawn(numbered())


def test_images_are_scaled():
    x, y = numbered(scale=1 / 10).test(3)
    np.testing.assert_allclose(x[:, 0, 0, 0], [0, 0.1, 0.2], rtol=1e-6)
    np.testing.assert_array_equal(y, np.eye(10)[:3])
    assert x.dtype == "float32"


def test_images_are_cropped_from_a_margin_of_4_and_flipped_half_the_time():
    image = np.arange(1, 65, dtype="float32").reshape(8, 8, 1)
    margin = np.pad(image, [(4, 4), (4, 4), (0, 0)])
    crops = {
        crop[:, ::step].tobytes(): (top, left, step)
        for top in range(9)
        for left in range(9)
        for step in (1, -1)
        for crop in [margin[top : top + 8, left : left + 8]]
    }
    augmented = crop_and_flip(np.stack([image] * 1000), (3, 5)).numpy()
    top, left, step = np.transpose([crops[crop.tobytes()] for crop in augmented])
    assert set(top) == set(left) == set(range(9))
    assert 0.4 < np.mean(step == 1) < 0.6
    assert abs(np.corrcoef(top, left)[0, 1]) < 0.15
    np.testing.assert_array_equal(augmented, crop_and_flip(np.stack([image] * 1000), (3, 5)))
    assert (augmented != crop_and_flip(np.stack([image] * 1000), (3, 6)).numpy()).any()


def test_take_holds_out_other_images():
    data = numbered(20)
    taken, held_out = data.take(8), data.take(8, 5)
    assert len(set(taken.y_train)) == 8 and len(set(held_out.y_test)) == 5
    np.testing.assert_array_equal(taken.y_train, held_out.y_train)
    assert not set(held_out.y_test) & set(held_out.y_train)
    assert taken.y_test is data.y_test
    with pytest.raises(SystemExit, match=r"--train-size should be in 1..15. Got: 16"):
        data.take(16, 5)


def test_poison_replaces_a_share_of_the_training_labels():
    data = numbered(1000)
    poisoned = data.poison(0.4, seed=1)
    changed = poisoned.y_train != data.y_train
    assert 0.39 < changed.mean() <= 0.4  # one in a thousand is drawn again
    assert len(set(poisoned.y_train[changed] // 100)) == 10
    assert (data.poison(0.4, seed=2).y_train != poisoned.y_train).any()
    assert poisoned.y_test is data.y_test


@pytest.mark.parametrize(
    "name, shape, augment",
    [
        ("qmnist", (28, 28, 1), False),
        ("kmnist", (28, 28, 1), False),
        ("fashion_mnist", (28, 28, 1), False),
        ("cifar10", (32, 32, 3), True),
        ("stl10", (32, 32, 3), True),
    ],
)
def test_data_sets_come_in_the_form_of_the_paper(name, shape, augment, tmp_path):
    with fake_datasets(tmp_path, num_examples=40):
        data = load(name)
    assert data.input_shape == data.x_test.shape[1:] == shape
    assert data.num_classes == 10
    assert data.augment == augment
    assert data.x_train.dtype == data.x_test.dtype == "uint8"
    assert len(data.x_train) == len(data.y_train) == len(data.x_test) == 40
    x, _ = data.test()
    assert 0 <= x.min() < x.max() <= 1
