"""The importance-weighted negative log-likelihood of a set of images, and its effective samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.training.noise import as_seed
from tfp_flowvae.training.xla import xla_suits

LogWeights = Callable[..., tf.Tensor]
_Sums = tuple[tf.Tensor, tf.Tensor]

# Images and samples held at once: 5,000 decoded images, whatever the number of samples.
IMAGES, SAMPLES = 100, 50


class Estimates(NamedTuple):
    """Importance-weighted estimates of N images.

    Attributes:
      nll: -log 1/S sum_s w_s, float64 `[N]`, nats.
      elbo: 1/S sum_s log w_s, float64 `[N]`, nats.
      effective_samples: (sum_s w_s)^2 / sum_s w_s^2, float64 `[N]`, from 1 to S (Kong 1992): how
        many equally weighted samples have the same variance.
    """

    nll: np.ndarray
    elbo: np.ndarray
    effective_samples: np.ndarray


def importance_estimates(
    log_weights: LogWeights,
    images: np.ndarray,
    num_samples: int,
    batch_size: int | None = None,
    seed: int | None = None,
    *,
    jit_compile: bool,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    condition: Mapping[str, np.ndarray] | None = None,
) -> Estimates:
    """Estimates -log p(x) of each image, for images in memory or mapped from a file.

    Burda et al. (2016), https://arxiv.org/abs/1509.00519, equation 8. All batches use one compiled
    program, which adds up the samples in a loop.

    Args:
      log_weights: From images `[B, H, W, C]`, a number of samples S and a stateless seed `[2]` to
        log w_s = log p(x, z_s) - log q(z_s|x), `[S, B]`.
      images: `[N, H, W, C]` in [0, 1].
      num_samples: S.
      batch_size: B; 100 by default.
      seed: The seed of the samples. Image i depends only on it and on i // B.
      jit_compile: Whether to use XLA.
      progress: A function that wraps the iterable of the batches' first places, such as `tqdm`.
      condition: Further arguments of `log_weights` by name, `[N, ...]`; None for none.

    Raises:
      ValueError: If a number is below 1.
    """
    batch_size = IMAGES if batch_size is None else batch_size
    for name, number in (("num_samples", num_samples), ("batch_size", batch_size)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1. Received: {number}.")
    first = int(as_seed(seed)[0])

    def of_inputs(inputs: Any, samples: int, key: tf.Tensor) -> tf.Tensor:
        images, given = inputs
        return log_weights(images, samples, key, **given)

    program = make_estimator(of_inputs, num_samples, jit_compile)
    found = np.zeros([3, len(images)])
    for start in progress(range(0, len(images), batch_size)):
        part = slice(start, start + batch_size)
        inputs = (
            _padded(np.asarray(images[part], np.float32), batch_size),
            {name: _padded(rows[part], batch_size) for name, rows in (condition or {}).items()},
        )
        batch_seed = tf.constant([first, start // batch_size], tf.int32)
        values = program(inputs, batch_seed).numpy()
        found[:, part] = values[:, : len(images[part])]
    return Estimates(*found)


def _padded(part: np.ndarray, size: int) -> tf.Tensor:
    """The part with zeros behind, `[size, ...]`: another shape would need another program."""
    return tf.constant(np.pad(part, [(0, size - len(part)), *[(0, 0)] * (part.ndim - 1)]))


def estimates_of(
    model: Any,
    images: np.ndarray,
    num_samples: int,
    batch_size: int | None = None,
    seed: int | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    label: TensorLike | None = None,
    context: TensorLike | None = None,
) -> Estimates:
    """Estimates -log p(x), or -log p(x|y), of each image under a model.

    Args:
      model: A `FlowVAE` or an `ImageDensity`, for which the samples are draws of the noise.
      images: See `importance_estimates`, for the other arguments too.
      num_samples: S.
      batch_size: B; None for 100, or for fewer if those have too many samples to hold in memory.
      seed: The seed.
      progress: The function that shows the progress.
      label: The label of all images, or of each, `[N]`; None for -log p(x).
      context: The context of each image, `[N, C]`, or None.
    """
    if batch_size is None:
        held = max(1, min(num_samples, SAMPLES))
        batch_size = min(IMAGES, max(1, model.samples_at_once // held))
    return importance_estimates(
        model.log_weights,
        images,
        num_samples,
        batch_size,
        seed,
        jit_compile=xla_suits(model),
        progress=progress,
        condition=model.condition_arrays(label, context, len(images)),
    )


def make_estimator(
    log_weights: LogWeights, num_samples: int, jit_compile: bool
) -> Callable[[Any, tf.Tensor], tf.Tensor]:
    """Returns a program that adds up S log-weights of B examples in a loop of fixed memory.

    Args:
      log_weights: From a nest of tensors `[B, ...]`, a number of samples S and a stateless seed
        `[2]` to log w_s, `[S, B]`.
      num_samples: S.
      jit_compile: Whether to use XLA.

    Returns:
      A function from the nest and a seed to -log 1/S sum_s w_s, 1/S sum_s log w_s and
      (sum_s w_s)^2 / sum_s w_s^2, `[3, B]`.
    """
    whole, rest = divmod(num_samples, SAMPLES)

    @tf.function(jit_compile=jit_compile, autograph=False)
    def program(inputs: Any, seed: tf.Tensor) -> tf.Tensor:
        total = _nothing(inputs)
        if rest:
            total = _sums(log_weights(inputs, rest, tf.random.fold_in(seed, whole)))
        if whole:
            _, total = tf.while_loop(
                lambda i, total: i < whole,
                lambda i, total: (
                    i + 1,
                    _add(total, _sums(log_weights(inputs, SAMPLES, tf.random.fold_in(seed, i)))),
                ),
                (tf.constant(0), total),
                maximum_iterations=whole,
            )
        return _estimates(total, np.float32(np.log(num_samples)), num_samples)

    return program


def log_mean_weight(
    log_weights: LogWeights, inputs: Any, num_samples: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """log 1/S sum_s w_s, `[B]`, for a number of samples that a graph learns when it runs.

    Memory does not grow with S. The samples are those of `make_estimator`.

    Args:
      log_weights: As for `make_estimator`, with S an int32 scalar.
      inputs: A nest of tensors `[B, ...]`.
      num_samples: S, an int32 scalar, at least 1.
      seed: A stateless seed `[2]`.
    """
    check = tf.debugging.assert_positive(num_samples, "num_samples must be at least 1.")
    with tf.control_dependencies([check]):
        chunks = (num_samples + SAMPLES - 1) // SAMPLES

    def body(i: tf.Tensor, total: _Sums) -> tuple[tf.Tensor, _Sums]:
        samples = tf.minimum(SAMPLES, num_samples - SAMPLES * i)
        logs = log_weights(inputs, samples, tf.random.fold_in(seed, i))
        return i + 1, _add(total, _sums(logs))

    _, total = tf.while_loop(
        lambda i, total: i < chunks, body, (tf.constant(0), _nothing(inputs)), parallel_iterations=1
    )
    count = tf.cast(num_samples, tf.float32)
    return -_estimates(total, tf.math.log(count), count)[0]


def _nothing(inputs: Any) -> _Sums:
    size = tf.shape(tf.nest.flatten(inputs)[0])[0]
    return tf.fill([2, size], -np.inf), tf.zeros([size])


def _sums(logs: tf.Tensor) -> _Sums:
    """The logarithms of sum w and of sum w^2, `[2, B]`, and sum log w, `[B]`, of log w `[S, B]`."""
    both = tf.reduce_logsumexp(tf.stack([logs, 2.0 * logs]), axis=1)
    return both, tf.reduce_sum(logs, axis=0)


def _add(first: _Sums, second: _Sums) -> _Sums:
    both = tf.reduce_logsumexp(tf.stack([first[0], second[0]]), axis=0)
    return both, first[1] + second[1]


def _estimates(total: _Sums, log_count: TensorLike, count: TensorLike) -> tf.Tensor:
    """The three results of `make_estimator`, `[3, B]`, of the sums over `count` samples."""
    both, logs = total
    log_sum, log_squares = tf.unstack(both, num=2)
    return tf.stack([log_count - log_sum, logs / count, tf.exp(2.0 * log_sum - log_squares)])
