"""Pairs of mini-batches: S1, as `Model.fit` draws it, and beside it S2, an independent draw from the same data.

S1 is always what plain `fit` would have trained on, batch for batch and in the same order: it comes from Keras' own
data adapters, and drawing S2 touches no random generator that S1 depends on. S2 comes

    from arrays                                    in an order of its own                                `_reordered`
    from all else, which is read but once          out of the pool of the batches around S1              `_pool`
    from a `tf.data.Dataset`                       out of that pool, or the whole of a short epoch       `_zip_batches`
"""

from keras_itdm.data._adapters import pair_up as pair_up
from keras_itdm.data._pairs import Pair as Pair
from keras_itdm.data._pairs import check_ends as check_ends
from keras_itdm.data._pairs import is_pair as is_pair
from keras_itdm.data._pairs import split_pair as split_pair
from keras_itdm.data._zip_batches import zip_batches as zip_batches
