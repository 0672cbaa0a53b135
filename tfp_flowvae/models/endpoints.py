"""The functions of exported models: what `tfp_flowvae.export` writes into a SavedModel.

Parts that several functions need, such as drawing from the posterior, are traced once and called.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tfp_flowvae._endpoints import Endpoint, by_row, named
from tfp_flowvae.models.importance import log_mean_weight
from tfp_flowvae.models.labels import UNKNOWN, asserted
from tfp_flowvae.training.noise import Noise, as_seed

SCORE_SAMPLES = 100
"""The number of importance samples of each image in the endpoint `score`."""

SERVING_SEED = 0
"""The seed of the endpoints `score` and `serving_default`.

All images of a batch share its noise, so that the results of an image do not depend on the others.
"""

_N, _SEED, _STEPS, _SAMPLES = (
    tf.TensorSpec([], tf.int32, name=name) for name in ("n", "seed", "steps", "num_samples")
)
_TEMPERATURE = tf.TensorSpec([], tf.float32, name="temperature")
_PAIR = tf.TensorSpec([2], tf.int32)


def vae_endpoints(vae: Any) -> dict[str, Endpoint]:
    """The endpoints of a `FlowVAE`; see `tfp_flowvae.export`."""
    x, x1, x2 = (
        tf.TensorSpec([None, *vae.image_shape], tf.float32, name=name) for name in ("x", "x1", "x2")
    )
    z = tf.TensorSpec([None, vae.latent_size], tf.float32, name="z")
    (one, each), of = condition_specs(vae), functools.partial(condition_arguments, vae)
    given = functools.partial(_given, vae)
    of_code = each if vae.conditional_decoder else []  # what the decoder takes beside z

    @_once(x, _N, _PAIR, _TEMPERATURE, *each)
    def draw(x: Any, n: Any, seed: Any, temperature: Any, *y: Any) -> tf.Tensor:
        return vae.posterior_layer.sample(n, vae.features(x, **of(y)), seed, temperature)

    @_once(x, _N, _PAIR, _N, *each)
    def weigh(x: Any, n: Any, seed: Any, examples: Any, *y: Any) -> tuple[tf.Tensor, tf.Tensor]:
        noise = Noise(seed, examples)
        draw = vae.posterior_layer.draw(n, vae.features(x, **of(y)), noise)
        return draw.z, vae.terms_of(draw, x, noise, **of(y)).elbo

    @_once(z, *of_code)
    def decode(z: Any, *y: Any) -> tf.Tensor:
        return vae.decode(z, **of(y))

    def decoded(z: Any, *y: Any) -> dict[str, tf.Tensor]:
        """The images of `[..., D]`, for labels or contexts of these leading dimensions."""
        leading = tf.unstack(tf.shape(z)[:-1])
        codes = [tf.broadcast_to(one, [*leading, *one.shape[1:]]) for one in y[: len(of_code)]]
        flat = [tf.reshape(one, [-1, *one.shape[len(leading) :]]) for one in (z, *codes)]
        return {"images": tf.reshape(decode(*flat), [*leading, *vae.image_shape])}

    def draw_images(n: Any, *rest: Any) -> dict[str, tf.Tensor]:
        *y, seed, temperature = rest
        y = _checked(vae, y)
        return decoded(vae.draw_prior(n, seed, temperature, **of(y)), *y)

    def encode(x: Any, seed: Any, *y: Any, temperature: Any = 1.0) -> tf.Tensor:
        return draw(x, 1, as_seed(seed), temperature, *y)[0]

    def elbo(x: Any, seed: Any, *y: Any) -> tf.Tensor:
        return weigh(x, 1, as_seed(seed), tf.shape(x)[0], *y)[1][0]

    def log_prob(x: Any, num_samples: Any, seed: Any, examples: Any, *y: Any) -> tf.Tensor:
        def log_weights(inputs: Any, n: Any, seed: Any) -> tf.Tensor:
            x, *y = inputs
            return weigh(x, n, seed, examples, *y)[1]

        return log_mean_weight(log_weights, (x, *y), num_samples, as_seed(seed))

    def between(x1: Any, x2: Any, *rest: Any) -> dict[str, tf.Tensor]:
        *y, steps = rest
        if vae.num_classes is not None:
            y = [tf.fill([tf.shape(x1)[0]], UNKNOWN)]
        first, second = (encode(x, SERVING_SEED, *y, temperature=0.0) for x in (x1, x2))
        return decoded(vae.path(first, second, steps, **of(y)), *y)

    def serving_default(x: Any, *y: Any) -> dict[str, tf.Tensor]:
        z, log_weight = weigh(x, 1, as_seed(SERVING_SEED), 1, *y)
        images = decode(z[0], *y[: len(of_code)])
        return {"reconstruction": images, "elbo": log_weight[0], "z": z[0]}

    posterior = vae.posterior_layer
    found = {
        **_sampling(vae.prior_layer, draw_images, one),
        "encode": given(lambda x, seed, *y: {"z": encode(x, seed, *y)}, [x], [_SEED]),
        "decode": (given if of_code else named)(decoded, [z]),
        "reconstruct": given(lambda x, seed, *y: decoded(encode(x, seed, *y), *y), [x], [_SEED]),
        "elbo": given(lambda x, seed, *y: {"elbo": elbo(x, seed, *y)}, [x], [_SEED]),
        "log_prior": given(lambda z, *y: {"log_prior": vae.log_prior(z, **of(y))}, [z]),
        "log_prob": given(
            lambda x, samples, seed, *y: {
                "log_prob": log_prob(x, samples, seed, tf.shape(x)[0], *y)
            },
            [x],
            [_SAMPLES, _SEED],
        ),
        "sample_posterior": given(
            lambda x, n, seed, *y: {"z": draw(x, n, as_seed(seed), 1.0, *y)}, [x], [_N, _SEED]
        ),
        # Nothing in it is random; it takes a seed as all other functions of x and seed do.
        "log_posterior": given(
            lambda z, x, _, *y: {"log_posterior": posterior.log_prob(z, vae.features(x, **of(y)))},
            [z, x],
            [_SEED],
            seed=0,
        ),
        "score": given(
            lambda x, *y: {"score": -log_prob(x, SCORE_SAMPLES, SERVING_SEED, 1, *y)}, [x]
        ),
        "interpolate": named(between, [x1, x2, *(each if vae.num_classes is None else []), _STEPS]),
    }
    return {**found, **_by_row(found), "serving_default": given(serving_default, [x])}


def _given(
    model: Any,
    function: Callable[..., dict[str, Any]],
    rows: Sequence[tf.TensorSpec],
    scalars: Sequence[tf.TensorSpec] = (),
    **defaults: Any,
) -> Endpoint:
    """An endpoint of rows that takes a label or a context for each, if the model does.

    It takes them before the scalars, and `function` takes them last.
    """
    _, each = condition_specs(model)

    def call(*arguments: Any) -> dict[str, Any]:
        end = len(rows) + len(each)
        y = _checked(model, arguments[len(rows) : end])
        return function(*arguments[: len(rows)], *arguments[end:], *y)

    return named(call, [*rows, *each, *scalars], **defaults)


def condition_specs(
    model: Any, batch_size: int | None = None
) -> tuple[list[tf.TensorSpec], list[tf.TensorSpec]]:
    """What `sample` takes, one label or B contexts, and what functions of B rows take.

    Each is alone in a list, which is empty for a model without classes and without a context. B is
    the batch size, or any for None.
    """
    if model.num_classes is not None:
        one, each = (tf.TensorSpec(shape, tf.int32, name="label") for shape in ([], [batch_size]))
        return [one], [each]
    if model.context_size is None:
        return [], []
    context = tf.TensorSpec([batch_size, model.context_size], tf.float32, name="context")
    return [context], [context]


def condition_arguments(model: Any, y: Sequence[Any]) -> dict[str, Any]:
    """The label or the context that an endpoint was given, as an argument of a method."""
    return dict(zip(("context" if model.num_classes is None else "label",), y, strict=False))


def _checked(model: Any, y: Sequence[Any]) -> list[Any]:
    """The same label or context; a label out of range is an error where the graph runs."""
    return list(y) if model.num_classes is None else [asserted(one, model.num_classes) for one in y]


def density_endpoints(density: Any) -> dict[str, Endpoint]:
    """The endpoints of a `FlowDensity`; see `tfp_flowvae.export`."""
    x = tf.TensorSpec([None, density.event_size], tf.float32, name="x")
    (one, _), of = condition_specs(density), functools.partial(condition_arguments, density)

    def draw(n: Any, *rest: Any) -> dict[str, tf.Tensor]:
        *y, seed, temperature = rest
        given = of(_checked(density, y))
        return {"x": density.sample(n, seed=seed, temperature=temperature, **given)}

    def log_prob(x: Any, *y: Any) -> dict[str, tf.Tensor]:
        return {"log_prob": density.log_prob(x, **of(y))}

    found = {
        **_sampling(density.layer, draw, one),
        "log_prob": _given(density, log_prob, [x]),
    }
    return {**found, **_by_row(found), "serving_default": found["log_prob"]}


def image_density_endpoints(density: Any) -> dict[str, Endpoint]:
    """The endpoints of an `ImageDensity`; see `tfp_flowvae.export`."""
    x = tf.TensorSpec([None, *density.event_shape], tf.float32, name="x")
    z = tf.TensorSpec([None, density.event_size], tf.float32, name="z")

    one, each = condition_specs(density)
    given = functools.partial(_given, density)

    @_once(x, _N, _PAIR, _N, *each)
    def weigh(x: Any, n: Any, seed: Any, examples: Any, *label: Any) -> tf.Tensor:
        return density.log_weights(x, n, Noise(seed, examples), *label)

    def bound(
        x: Any, num_samples: Any, seed: Any, examples: Any, *label: Any
    ) -> dict[str, tf.Tensor]:
        def log_weights(inputs: Any, n: Any, seed: Any) -> tf.Tensor:
            x, *label = inputs
            return weigh(x, n, seed, examples, *label)

        inputs = (x, *label)
        return {"log_prob_bound": log_mean_weight(log_weights, inputs, num_samples, as_seed(seed))}

    def draw(n: Any, *rest: Any) -> dict[str, tf.Tensor]:
        *label, seed, temperature = rest
        label = _checked(density, label)
        return {"images": density.sample(n, None, seed, temperature, *label)}

    found = {
        **_sampling(density.layer, draw, one),
        "log_prob": given(
            lambda x, n, seed, *y: bound(x, n, seed, tf.shape(x)[0], *y), [x], [_SAMPLES, _SEED]
        ),
        "encode": given(
            lambda x, seed, *y: {"z": density.encode(x, as_seed(seed), *y)}, [x], [_SEED]
        ),
        "decode": given(lambda z, *y: {"images": density.decode(z, *y)}, [z]),
        "levels": named(lambda: {"levels": tf.constant(density.levels)}, []),
    }
    default = given(lambda x, *y: bound(x, 1, SERVING_SEED, 1, *y), [x])
    return {**found, **_by_row(found), "serving_default": default}


def _once(*signature: tf.TensorSpec) -> Callable[[Callable[..., Any]], Any]:
    return tf.function(input_signature=signature, autograph=False)


def _sampling(
    layer: Any, draw: Callable[..., dict[str, tf.Tensor]], condition: Sequence[tf.TensorSpec]
) -> dict[str, Endpoint]:
    """`sample`, and `sample_at_temperature` where the layer's base has a mean.

    Args:
      layer: A `FlowDistribution`.
      draw: From n, the label or the context if there is one, a stateless seed and a temperature or
        None, to what the endpoints return.
      condition: The specification of the label or the context, or none.
    """
    if not layer.has_temperature:

        def sample(*given: Any) -> dict[str, tf.Tensor]:
            *first, seed = given
            return draw(*first, as_seed(seed), None)

        return {"sample": named(sample, [_N, *condition, _SEED])}
    shared = _once(_N, *condition, _PAIR, _TEMPERATURE)(draw)

    def sample_at_temperature(*given: Any) -> dict[str, tf.Tensor]:
        *first, seed, temperature = given
        return shared(*first, as_seed(seed), temperature)

    specs = [_N, *condition, _SEED, _TEMPERATURE]
    return {
        "sample": named(sample_at_temperature, specs, temperature=1.0),
        "sample_at_temperature": named(sample_at_temperature, specs),
    }


def _by_row(endpoints: dict[str, Endpoint]) -> dict[str, Endpoint]:
    """For each endpoint that takes scalars, `NAME_rows`, which takes one of each for each row."""
    return {
        f"{name}_rows": by_row(endpoint)
        for name, endpoint in endpoints.items()
        if any(spec.shape.rank == 0 for spec in endpoint.required)
    }
