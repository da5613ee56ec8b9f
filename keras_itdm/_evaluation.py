"""Evaluation, prediction, and what `train_on_batch` returns: those of the plain model."""

from keras_itdm import _replicas
from keras_itdm.data import split_pair


class Evaluation:
    """Mixin before `keras_itdm._keras.TrainerHooks`. Of pairs, S1 is evaluated; `_metrics_of_matching` are left out."""

    @property
    def metrics(self):
        own = self._metrics_of_matching if self._is_evaluating else ()
        return [metric for metric in super().metrics if not any(metric is m for m in own)]

    def test_step(self, *args):
        *state, data = args  # JAX hands the state along
        return _replicas.logs(super().test_step(*state, self._evaluated_batch(data)))

    def predict_step(self, *args):
        *state, data = args
        return super().predict_step(*state, self._evaluated_batch(data))

    def train_on_batch(self, *args, return_dict=False, **kwargs):
        """As that of the plain model, whose values it returns; with `return_dict`, those of matching as well."""
        logs = super().train_on_batch(*args, return_dict=True, **kwargs)
        own = {metric.name for metric in self._metrics_of_matching}
        # In Keras' order, which is not that of the logs: metrics as they were compiled, then what they do not know.
        names = [each.name for metric in self.metrics for each in getattr(metric, "metrics", [metric])]
        names = [name for name in names if name in logs and name not in own] + sorted(set(logs) - set(names))
        values = [logs[name] for name in names]
        return logs if return_dict else values[0] if len(values) == 1 else values

    def _evaluated_batch(self, batch):
        return self._halves(batch)[0]

    def _halves(self, data):
        """S1 and S2, or the batch itself and `None`."""
        return split_pair(data, self._num_inputs, guess=self.partner == "stream", paired=self.paired)

    @property
    def _num_inputs(self):
        inputs = getattr(self.base_model, "inputs", None)
        return len(inputs) if inputs else None
