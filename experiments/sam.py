"""Sharpness-aware minimization, since Keras 3 has none."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_itdm_examples")
class SAM(keras.optimizers.SGD):
    """SGD at the worst place near by (Foret, Kleiner, Mobahi and Neyshabur, 2021), for a stream of each batch twice.

        e ← ρ g(θ) / ‖g(θ)‖            first call: θ climbs to θ + e
        θ ← θ - α g(θ + e)             second call: back at θ, SGD's own step with the gradient found up there

    One step takes two calls, so that Keras' `train_step` serves as it is, on every backend.

    Args:
        learning_rate: As for `keras.optimizers.SGD`. A schedule is handed the number of calls, two a step.
        radius: ρ, the length of the climb.
        **kwargs: As for `keras.optimizers.SGD`.
    """

    def __init__(self, learning_rate=0.01, radius=0.05, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.radius = radius

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self._climbs = self.add_optimizer_variables(variables, "climb")

    def apply(self, grads, trainable_variables=None):
        variables = list(self._trainable_variables if trainable_variables is None else trainable_variables)
        self.build(variables)
        climbs = [self._climbs[self._get_variable_index(variable)] for variable in variables]
        is_second_call = self._iterations % 2 == 1
        norm = ops.sqrt(sum(ops.sum(ops.square(gradient)) for gradient in grads))
        for variable, climb in zip(variables, climbs, strict=True):
            variable.assign(variable - climb)  # 0 on the first call
        state = [*variables, *self.momentums]
        before = [ops.copy(ops.convert_to_tensor(value)) for value in state]
        super().apply(grads, variables)
        for value, old in zip(state, before, strict=True):
            value.assign(ops.where(is_second_call, ops.convert_to_tensor(value), old))
        scale = ops.where(is_second_call, 0.0, self.radius / ops.maximum(norm, 1e-12))
        for variable, climb, gradient in zip(variables, climbs, grads, strict=True):
            climb.assign(scale * gradient)
            variable.assign(variable + climb)

    def get_config(self):
        return {**super().get_config(), "radius": self.radius}
