"""Callbacks around the training of an `ITDMModel`."""

from keras_itdm.callbacks.adaptive_match_weight import AdaptiveMatchWeight
from keras_itdm.callbacks.match_weight_scheduler import MatchWeightScheduler

__all__ = ["AdaptiveMatchWeight", "MatchWeightScheduler"]
