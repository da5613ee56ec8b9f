"""The paper's networks: small CNNs for its Tables 1 to 3; VGG13, ResNet18 and MobileNet for its Tables 4 and 5.

The paper leaves the architectures to a supplement that is not to be had. The small ones are therefore ours, and the
large ones are the CIFAR forms of https://github.com/kuangliu/pytorch-cifar, the usual ones: a 3x3 stem and no early
pooling. The paper used PyTorch, so the networks start as they do there: weights *and* biases uniform within
±1/sqrt(fan-in), batch normalization with a momentum of 0.9, in Keras' terms, and an epsilon of 1e-5.

Every builder takes the shape of an image, `(height, width, channels)`, and returns a model of that name. Its last layer
is the classifier, which gives probabilities in float32 whatever the dtype policy; the layer named "features" gives what
the classifier works on, of shape `(batch, features)`.
"""

import keras
from keras import layers


def cnn2(input_shape, num_classes=10):
    """The "CNN with two convolutions" of Table 1 and Figures 1 and 2, with filters of our choice.

    Two unpadded 5x5 convolutions, each with 2x2 max pooling and ReLU, as in PyTorch's MNIST example, and a dense layer.
    Images should have 16 pixels or more on each side.
    """
    inputs = x = keras.Input(input_shape)
    for filters in (16, 32):
        x = convolution(x, filters, 5, padding="valid", use_bias=True)
        x = layers.ReLU()(layers.MaxPooling2D()(x))  # in this order it costs less and gives the same
    x = layers.Flatten()(x)
    x = dense(x, 128, activation="relu", name="features")
    return keras.Model(inputs, classifier(x, num_classes), name="cnn2")


def cnn5(input_shape, num_classes=10, filters=(16, 32, 64), dense_units=128, dropout=0.0):
    """The "5-layer CNN with batch normalization" of Tables 2 and 3, with layers of our choice.

    Three convolutions, the first 5x5, the others 3x3, a dense layer, and the classifier. The convolutions have a stride
    of two in place of pooling (Springenberg et al., "Striving for Simplicity: The All Convolutional Net", 2015):
    so a sweep over λ and seeds stays within reach of two CPU cores.

    Args:
        input_shape: Shape of an image.
        num_classes: Number of classes.
        filters: Filters of each convolution; as many convolutions as numbers.
        dense_units: Number of features.
        dropout: Share of the features that training drops before the classifier.
    """
    inputs = x = keras.Input(input_shape)
    for index, size in enumerate(filters):
        x = convolution(x, size, 5 if index == 0 else 3, strides=2, padding="same")
        x = layers.ReLU()(normalization(x))
    x = layers.Flatten()(x)
    x = dense(x, dense_units, name="preactivation")
    x = layers.ReLU(name="features")(x)
    if dropout > 0:
        x = layers.Dropout(dropout)(x)
    return keras.Model(inputs, classifier(x, num_classes), name="cnn5")


def cnn5_pooled(input_shape, num_classes=10):
    """The "5-layer CNN with batch normalization" again, in the regime of the paper's Table 3: it overfits as theirs
    does.

    Convolutions 5x5 × 32, 3x3 × 64 and 3x3 × 128, each with batch normalization, 2x2 max pooling and ReLU, and a dense
    layer of 256: 391,000 parameters on images of 28 × 28. A step costs eight times one of `cnn5`.
    """
    inputs = x = keras.Input(input_shape)
    for filters, size in ((32, 5), (64, 3), (128, 3)):
        x = normalization(convolution(x, filters, size, padding="same"))
        x = layers.ReLU()(layers.MaxPooling2D()(x))
    x = dense(layers.Flatten()(x), 256, activation="relu", name="features")
    return keras.Model(inputs, classifier(x, num_classes), name="cnn5_pooled")


def vgg13(input_shape, num_classes=10):
    """VGG13 (Simonyan and Zisserman, 2015, configuration B) for CIFAR: batch normalization, and one dense layer only.

    Five times two convolutions and 2x2 max pooling, so images should have 32 pixels or more on each side.
    """
    inputs = x = keras.Input(input_shape)
    for filters in (64, 128, 256, 512, 512):
        for _ in range(2):
            x = convolution(x, filters, 3, use_bias=True)
            x = layers.ReLU()(normalization(x))
        x = layers.MaxPooling2D()(x)
    x = layers.Flatten(name="features")(x)
    return keras.Model(inputs, classifier(x, num_classes), name="vgg13")


def resnet18(input_shape, num_classes=10):
    """ResNet18 (He et al., "Deep Residual Learning for Image Recognition", 2016) for CIFAR."""

    def block(x, filters, strides):
        shortcut = x
        x = convolution(x, filters, 3, strides)
        x = layers.ReLU()(normalization(x))
        x = convolution(x, filters, 3)
        x = normalization(x)
        if strides > 1:  # the first block's filters are those of the stem
            shortcut = normalization(convolution(shortcut, filters, 1, strides))
        return layers.ReLU()(layers.Add()([x, shortcut]))

    inputs = x = keras.Input(input_shape)
    x = convolution(x, 64, 3)
    x = layers.ReLU()(normalization(x))
    for filters, strides in ((64, 1), (128, 2), (256, 2), (512, 2)):
        x = block(x, filters, strides)
        x = block(x, filters, 1)
    x = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(inputs, classifier(x, num_classes), name="resnet18")


def mobilenet(input_shape, num_classes=10):
    """MobileNet (Howard et al., 2017, version 1, of full width) for CIFAR."""
    inputs = x = keras.Input(input_shape)
    x = convolution(x, 32, 3)
    x = layers.ReLU()(normalization(x))
    sizes = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
    for filters, stride in zip(sizes, strides, strict=True):
        x = depthwise_convolution(x, 3, stride)
        x = layers.ReLU()(normalization(x))
        x = convolution(x, filters, 1)
        x = layers.ReLU()(normalization(x))
    x = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(inputs, classifier(x, num_classes), name="mobilenet")


NETWORKS = {
    "cnn2": cnn2,
    "cnn5": cnn5,
    "cnn5_pooled": cnn5_pooled,
    "vgg13": vgg13,
    "resnet18": resnet18,
    "mobilenet": mobilenet,
}


def uniform(fan_in):
    """PyTorch's initializer: uniform within ±1/sqrt(fan-in). A new one for each weight, as equal ones give equal
    values.

    Keras' `VarianceScaling` knows no fan-in for a bias, and for a depthwise convolution it counts all channels, though
    each filter sees one.
    """
    bound = fan_in**-0.5
    return keras.initializers.RandomUniform(-bound, bound)


def convolution(x, filters, size, strides=1, padding="symmetric", use_bias=False):
    """A convolution that starts as PyTorch's; its padding is Keras' "same" or "valid", or PyTorch's "symmetric"."""
    fan_in = size * size * x.shape[-1]
    if padding == "symmetric":
        x, padding = pad(x, size, strides)
    return layers.Conv2D(
        filters,
        size,
        strides,
        padding,
        use_bias=use_bias,
        kernel_initializer=uniform(fan_in),
        bias_initializer=uniform(fan_in),
    )(x)


def depthwise_convolution(x, size, strides):
    """One filter a channel, with PyTorch's start and padding."""
    x, padding = pad(x, size, strides)
    initializer = uniform(size * size)
    return layers.DepthwiseConv2D(size, strides, padding, use_bias=False, depthwise_initializer=initializer)(x)


def pad(x, size, strides):
    """Pads by `size // 2` on each side, where Keras' "same" pads less, and unevenly, if the stride is more than one."""
    if size == 1 or strides == 1:
        return x, "same"
    return layers.ZeroPadding2D(size // 2)(x), "valid"


def normalization(x):
    """Batch normalization with PyTorch's defaults."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def dense(x, units, **options):
    """A dense layer that starts as PyTorch's."""
    fan_in = x.shape[-1]
    return layers.Dense(units, kernel_initializer=uniform(fan_in), bias_initializer=uniform(fan_in), **options)(x)


def classifier(features, num_classes):
    """Class probabilities, in float32 under a mixed-precision policy too, as the loss needs them."""
    return dense(features, num_classes, activation="softmax", dtype="float32", name="classifier")
