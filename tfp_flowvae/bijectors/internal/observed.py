"""Shows an observer what each bijector, and each step of a stack, computes.

A diagnosis of numbers that are not finite runs a model eagerly and observes it; see
`tfp_flowvae.training.diagnosis`. In a program that is traced nothing is observed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

Observer = Callable[[Any, tf.Tensor, tf.Tensor, tf.Tensor], None]
"""`observer(what, x, y, log_det)`: `what` is a bijector, or the number of a step in a stack."""

_observers: list[Observer] = []


@contextlib.contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """A context in which each evaluation of a bijector is shown to the observer."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


def show(what: Any, x: tf.Tensor, y: tf.Tensor, log_det: tf.Tensor) -> None:
    """Shows an evaluation to the observers, if there are any."""
    for observer in _observers:
        observer(what, x, y, log_det)
