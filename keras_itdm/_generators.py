"""Random numbers for what plain training does not do, drawn so that plain training's stay the same."""

import random
import sys

import numpy as np


class OwnRandomness:
    """A context in which the global random generators, of Python, NumPy and PyTorch, have states of its own: they go on
    where it was last left, while outside nothing is drawn.

    Other threads must not draw meanwhile.

    Args:
        seed: Integer, of those states.
        devices: Whether PyTorch's generators of GPUs are among them.
    """

    def __init__(self, seed, devices=False):
        self._seed = seed
        self._devices = devices
        self._states = None

    def __enter__(self):
        self._outside = self._get()
        if self._states is None:
            random.seed(self._seed)
            np.random.seed(self._seed % 2**32)
            if "torch" in sys.modules:
                import torch

                torch.default_generator.manual_seed(self._seed)
        else:
            self._set(self._states)

    def __exit__(self, *_):
        self._states = self._get()
        self._set(self._outside)

    def _get(self):
        states = [random.getstate(), np.random.get_state()]
        if "torch" in sys.modules:
            import torch

            states.append(torch.get_rng_state())
            if self._devices and torch.cuda.is_initialized():
                states.append(torch.cuda.get_rng_state_all())
        return states

    def _set(self, states):
        random.setstate(states[0])
        np.random.set_state(states[1])
        if len(states) > 2:
            import torch

            torch.set_rng_state(states[2])
            if len(states) > 3:
                torch.cuda.set_rng_state_all(states[3])
