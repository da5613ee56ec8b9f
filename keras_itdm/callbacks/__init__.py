"""Callbacks: what ITDM does, seen as training goes on, and λ by schedule."""

from keras_itdm.callbacks.feature_discrepancy import FeatureDiscrepancy
from keras_itdm.callbacks.feature_projection import FeatureProjection
from keras_itdm.callbacks.match_weight_scheduler import MatchWeightScheduler

__all__ = ["FeatureDiscrepancy", "FeatureProjection", "MatchWeightScheduler"]
