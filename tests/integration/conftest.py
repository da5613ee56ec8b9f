import keras
import pytest

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    @pytest.fixture(autouse=True)
    def graphs_as_they_are_traced():
        """A fifth of the time of a `fit` that ends after some steps is the graph optimizer's. Units, pages and examples
        have it on."""
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
        yield
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
