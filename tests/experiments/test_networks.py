import functools

import keras
import numpy as np
import pytest
from keras import layers

from experiments import networks

SHAPES = {
    "cnn2": (28, 28, 1),
    "cnn5": (28, 28, 1),
    "cnn5_pooled": (28, 28, 1),
    "vgg13": (32, 32, 3),
    "resnet18": (32, 32, 3),
    "mobilenet": (32, 32, 3),
}
every_network = pytest.mark.parametrize("name", networks.NETWORKS)


@functools.cache
def build(name):
    keras.utils.set_random_seed(0)
    return networks.NETWORKS[name](SHAPES[name])


def images(shape, count=2):
    return np.random.default_rng(0).random((count, *shape), dtype="float32")


def evaluate(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


def all_of(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


@pytest.mark.parametrize(
    "name, count",
    [
        ("cnn2", 80_202),
        ("cnn5", 156_154),
        ("cnn5_pooled", 391_146),
        ("vgg13", 9_416_010),
        ("resnet18", 11_173_962),
        ("mobilenet", 3_217_226),
    ],
)
def test_trainable_parameters(name, count):
    assert sum(weight.size for weight in map(keras.ops.convert_to_numpy, build(name).trainable_weights)) == count


def test_all_parameters_of_cnn5():
    assert build("cnn5").count_params() == 156_378


@pytest.mark.parametrize(
    "name, width",
    [("cnn2", 128), ("cnn5", 128), ("cnn5_pooled", 256), ("vgg13", 512), ("resnet18", 512), ("mobilenet", 1024)],
)
def test_features_go_into_the_classifier(name, width):
    model = build(name)
    features = model.get_layer("features").output
    assert model.name == name
    assert model.layers[-2].name == "features"
    assert model.layers[-1].input is features
    assert features.shape == (None, width)


@every_network
def test_probabilities(name):
    output = evaluate(build(name), images(SHAPES[name]))
    assert output.shape == (2, 10)
    assert output.min() > 0
    np.testing.assert_allclose(output.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    "name, shape, num_classes, options",
    [
        ("cnn2", (16, 16, 3), 3, {}),
        ("cnn5", (8, 8, 1), 10, {"filters": (16, 32), "dense_units": 64}),
        ("resnet18", (28, 28, 1), 4, {}),
        ("mobilenet", (28, 28, 1), 4, {}),
    ],
)
def test_other_images_and_numbers_of_classes(name, shape, num_classes, options):
    assert evaluate(networks.NETWORKS[name](shape, num_classes, **options), images(shape)).shape == (2, num_classes)


def test_dropout_comes_after_the_features():
    assert not all_of(build("cnn5"), layers.Dropout)
    model = networks.cnn5((8, 8, 1), filters=(4,), dense_units=8, dropout=0.25)
    (dropout,) = all_of(model, layers.Dropout)
    assert dropout.rate == 0.25
    assert dropout.input is model.get_layer("features").output
    assert model.layers[-1].input is dropout.output


@pytest.fixture(params=["mixed_bfloat16", "mixed_float16"])
def half(request):
    """The short dtype of a mixed-precision policy that the test runs under."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param.removeprefix("mixed_")
    keras.config.set_dtype_policy(policy)


@pytest.mark.parametrize("name", ["cnn2", "cnn5", "mobilenet"])
def test_probabilities_are_float32_under_mixed_precision(name, half):
    model = networks.NETWORKS[name](SHAPES[name])
    assert model.get_layer("features").output.dtype == half
    assert model.output.dtype == "float32"
    if name == "cnn5":
        output = evaluate(model, images(SHAPES[name]))
        assert output.dtype == "float32"
        np.testing.assert_allclose(output.sum(axis=1), 1, rtol=1e-5)


@every_network
def test_weights_start_as_in_pytorch(name):
    starts = []
    for layer in all_of(build(name), (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)):
        seen = layer.kernel.shape[:2] if isinstance(layer, layers.DepthwiseConv2D) else layer.kernel.shape[:-1]
        bound = np.prod(seen) ** -0.5
        for values in map(keras.ops.convert_to_numpy, layer.weights):
            assert np.abs(values).max() <= bound * (1 + 1e-6)
            deviation = np.sqrt(np.mean(values**2))  # its standard error is 0.45 / sqrt(n), relative
            assert deviation == pytest.approx(bound / np.sqrt(3), rel=2.5 / np.sqrt(values.size))
            starts.append(values.flat[0] / bound)
    assert len(starts) == len(np.unique(starts))


@every_network
def test_normalization_is_as_in_pytorch(name):
    found = all_of(build(name), layers.BatchNormalization)
    assert len(found) == {"cnn2": 0, "cnn5": 3, "cnn5_pooled": 3, "vgg13": 10, "resnet18": 20, "mobilenet": 27}[name]
    assert {(layer.momentum, layer.epsilon) for layer in found} <= {(0.9, 1e-5)}


@pytest.mark.parametrize("name", ["cnn2", "cnn5", "mobilenet"])
def test_the_seed_decides_the_weights(name):
    def start(seed):
        keras.utils.set_random_seed(seed)
        return networks.NETWORKS[name](SHAPES[name]).get_weights()

    first, again, other = start(3), start(3), start(4)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    constant = [np.ptp(a) == 0 for a in first]  # normalization's
    assert [np.array_equal(a, b) for a, b in zip(first, other, strict=True)] == constant


@pytest.mark.parametrize("name, stem, last", [("vgg13", 64, 1), ("resnet18", 64, 4), ("mobilenet", 32, 2)])
def test_cifar_forms_keep_the_resolution(name, stem, last):
    model = build(name)
    features = model.get_layer("features")
    assert all_of(model, layers.Conv2D)[0].output.shape == (None, 32, 32, stem)
    assert features.input.shape == (None, last, last, features.output.shape[-1])


@pytest.mark.parametrize("name, kind", [("resnet18", layers.Conv2D), ("mobilenet", layers.DepthwiseConv2D)])
def test_strides_pad_as_in_pytorch(name, kind):
    torch = pytest.importorskip("torch")
    model = build(name)
    layer = next(layer for layer in all_of(model, kind) if layer.strides[0] == 2 and layer.kernel_size == (3, 3))
    padding = next(before for before in all_of(model, layers.ZeroPadding2D) if before.output is layer.input)
    x = images((8, 8, padding.input.shape[-1]))
    found = evaluate(keras.Sequential([padding, layer]), x)

    depthwise = kind is layers.DepthwiseConv2D
    kernel = torch.tensor(keras.ops.convert_to_numpy(layer.kernel)).permute((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
    expected = torch.nn.functional.conv2d(
        torch.tensor(x).permute(0, 3, 1, 2), kernel, stride=2, padding=1, groups=x.shape[-1] if depthwise else 1
    )
    np.testing.assert_allclose(found, expected.permute(0, 2, 3, 1).numpy(), atol=1e-5)
