"""Checks of arguments that several classes take."""

import math
import numbers

import keras
import numpy as np


def is_number(value):
    """Whether it is a real number: a Python or NumPy one, but no bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_positive_number(value):
    return is_number(value) and 0 < value < math.inf


def check_integer(name, value, least):
    """
    Raises:
        ValueError: if it is not an integer of at least `least`.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"`{name}` should be an integer of at least {least}. Received: {value!r}")


def is_function(value):
    """Whether it is a function or acts as one. A class makes an object instead, and a layer has weights of its own."""
    return callable(value) and not isinstance(value, (type, keras.layers.Layer))


def check_match_weight(value):
    """λ as a float. It is kept in float32, where numbers from 3.4e38 on are infinite.

    Raises:
        ValueError: if it is not a finite number of at least 0.
    """
    if not is_number(value) or not 0 <= value <= np.finfo("float32").max:
        raise ValueError(f"`match_weight` should be a finite number, at least 0. Received: {value!r}")
    return float(value)


def check_flags(**flags):
    """
    Raises:
        ValueError: if one of them is neither True nor False. (`"False"` would count as true.)
    """
    for name, value in flags.items():
        if not isinstance(value, (bool, np.bool_)):
            raise ValueError(f"`{name}` should be True or False. Received: {value!r}")
