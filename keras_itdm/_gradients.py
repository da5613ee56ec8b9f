"""Gradients that a training step looks at itself, on every backend, in the one pass that trainers make anyway.

Forwards: `value_and_gradients` of a function of features, and `with_gradient`, which gives a number that gradient.
Backwards: `Taps` note the norm of what arrives at a tensor. TensorFlow and PyTorch note it while they go back; on JAX
a gradient is a function's result, so there a step has to be differentiated by `differentiate`, from the inside.
"""

import keras
from keras import ops


def value_and_gradients(function, *tensors):
    """`function(*tensors)`, a scalar, and its gradients with respect to the tensors, float32. None has a gradient."""
    backend = keras.backend.backend()
    tensors = [ops.cast(ops.stop_gradient(tensor), "float32") for tensor in tensors]
    if backend == "jax":
        import jax

        return jax.value_and_grad(function, argnums=tuple(range(len(tensors))))(*tensors)
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            value = function(*tensors)
        gradients = tape.gradient(value, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return tf.stop_gradient(value), [tf.stop_gradient(tf.convert_to_tensor(gradient)) for gradient in gradients]
    import torch

    with torch.enable_grad():
        tensors = [tensor.requires_grad_() for tensor in tensors]
        value = function(*tensors)
        gradients = (
            torch.autograd.grad(value, tensors, allow_unused=True) if value.requires_grad else [None] * len(tensors)
        )
    zipped = zip(gradients, tensors, strict=True)
    return value.detach(), [torch.zeros_like(tensor) if gradient is None else gradient for gradient, tensor in zipped]


def with_gradient(value, tensors, gradients):
    """`value`, unchanged to the last bit, with these gradients with respect to the tensors."""
    for tensor, gradient in zip(tensors, gradients, strict=True):
        product = ops.sum(ops.cast(tensor, "float32") * ops.stop_gradient(gradient))
        value = value + (product - ops.stop_gradient(product))
    return value


def squared_norm(tensor):
    return ops.sum(ops.square(ops.cast(tensor, "float32")))


class Taps:
    """Identities that note the squared norm of the gradient that arrives at them on its way back.

    Attributes:
        squared_norms: Dict of float32 scalars by name of a tap, filled once the gradient has been taken.
    """

    def __init__(self):
        self.squared_norms = {}
        self._probes = {}

    def __call__(self, name, tensor):
        """The tensor, equal to what is given. A name is that of one tap."""
        backend = keras.backend.backend()
        if backend == "jax":
            return _jax_tap()(tensor, self._probes[name]) if name in self._probes else tensor
        if backend == "tensorflow":
            return _tensorflow_tap(tensor, lambda upstream: self._note(name, upstream))
        if not tensor.requires_grad:  # nothing before it is trained: yet its gradient is what matching is measured by
            import torch

            if not torch.is_grad_enabled() or not tensor.is_floating_point():
                return tensor
            tensor = tensor.detach().requires_grad_()
        tensor = tensor.view_as(tensor)
        tensor.register_hook(lambda upstream: self._note(name, upstream))
        return tensor

    def _note(self, name, upstream):
        self.squared_norms[name] = squared_norm(upstream)

    def differentiate(self, function, variables, names):
        """Takes the gradient of `function(variables)`, that is `(loss, auxiliary)`, on JAX, with taps of these names.

        Returns:
            The loss, its gradients, to be given back to it by `attach`, and what is auxiliary; none has a gradient.
        """
        import jax

        variables = jax.lax.stop_gradient(variables)

        def with_probes(variables, probes):
            self._probes = dict(zip(names, probes, strict=True))
            try:
                return function(variables)
            finally:
                self._probes = {}

        probes = [jax.numpy.zeros(()) for _ in names]
        (loss, auxiliary), gradients = jax.value_and_grad(with_probes, argnums=(0, 1), has_aux=True)(variables, probes)
        gradients, squared_norms = gradients
        self.squared_norms = dict(zip(names, squared_norms, strict=True))
        return jax.lax.stop_gradient(loss), gradients, auxiliary


def _tensorflow_tap(tensor, note):
    """Not by `tf.custom_gradient`, which in a graph registers its function for good: the graph and, with it, the model
    could never be freed."""
    import tensorflow as tf
    from tensorflow.python.eager import record

    def backwards(upstream):
        note(upstream)
        return [upstream]

    with record.stop_recording():
        output = tf.identity(tensor)
    record.record_operation("KerasITDMTap", [output], [tensor], backwards)
    return output


def _jax_tap():
    import jax

    @jax.custom_vjp
    def tap(tensor, probe):
        return tensor

    tap.defvjp(lambda tensor, probe: (tensor, None), lambda _, upstream: (upstream, squared_norm(upstream)))
    return tap


def attach(loss, variables, gradients):
    """A loss on JAX, with these gradients with respect to the variables, at no cost but a factor."""
    import jax

    @jax.custom_vjp
    def attached(variables, loss, gradients):
        return loss

    attached.defvjp(
        lambda variables, loss, gradients: (loss, gradients),
        lambda gradients, upstream: (
            jax.tree.map(lambda gradient: (upstream * gradient).astype(gradient.dtype), gradients),
            None,
            None,
        ),
    )
    return attached(variables, loss, gradients)
