import keras
import numpy as np

from experiments.sam import SAM


def gradient(theta):
    return np.float32([3.0, 1.0]) * theta**3


def test_a_step_is_that_of_the_paper():
    rate, radius, momentum = 0.1, 0.5, 0.9
    variable = keras.Variable(np.float32([1.0, -2.0]))
    optimizer = SAM(rate, radius=radius, momentum=momentum)
    theta, velocity = variable.numpy(), 0.0
    for _ in range(3):
        for _ in range(2):
            optimizer.apply([keras.ops.convert_to_tensor(gradient(variable.numpy()))], [variable])
        climbed = theta + radius * gradient(theta) / np.linalg.norm(gradient(theta))
        velocity = momentum * velocity - rate * gradient(climbed)
        theta = theta + velocity
        np.testing.assert_allclose(variable.numpy(), theta, rtol=1e-5)


def test_the_first_call_climbs():
    variable = keras.Variable(np.float32([1.0, -2.0]))
    SAM(0.1, radius=0.5).apply([keras.ops.convert_to_tensor(np.float32([3.0, 4.0]))], [variable])
    np.testing.assert_allclose(variable.numpy(), [1.3, -1.6], rtol=1e-6)


def test_it_serializes():
    optimizer = keras.optimizers.deserialize(keras.optimizers.serialize(SAM(0.2, radius=0.3, momentum=0.5)))
    assert (optimizer.radius, optimizer.momentum) == (0.3, 0.5)
