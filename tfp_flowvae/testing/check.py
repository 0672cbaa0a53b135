"""The table of properties, and the check that goes through it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.errors import UserError, nearest
from tfp_flowvae.testing import density, gradients, modes, values
from tfp_flowvae.testing.compare import Tolerance
from tfp_flowvae.testing.subject import Subject

# In this order: a property comes before those that depend on it, so that the error names it.
PROPERTIES: Mapping[str, Callable[[Subject], None]] = MappingProxyType(
    {
        "dtype": values.dtype_kept,
        "finite": values.finite,
        "batch_shape": values.batch_shape,
        "finite_gradients": modes.finite_gradients,
        "inverse_of_forward": values.inverse_of_forward,
        "forward_of_inverse": values.forward_of_inverse,
        "forward_log_det": values.forward_log_det,
        "inverse_log_det": values.inverse_log_det,
        "opposite_log_dets": values.opposite_log_dets,
        "joint": values.joint,
        "variables": values.variables,
        "graph": modes.graph,
        "dynamic_shape": modes.dynamic_shape,
        "xla": modes.xla,
        "saved_model": modes.saved_model,
        "gradients": gradients.gradients,
        "density": density.density,
    }
)
"""The properties that `check_bijector` checks, by name, in their order.

Example:
  >>> check_bijector(tfb.Exp(), [0.5, 2.0], properties=["finite", "forward_log_det"])
  >>> list(PROPERTIES)
  ['dtype', 'finite', 'batch_shape', 'finite_gradients', 'inverse_of_forward', ...]
"""


def check_bijector(
    bijector: tfb.Bijector,
    x: TensorLike,
    *,
    event_ndims: int | None = None,
    y: TensorLike | None = None,
    reference: tfb.Bijector | None = None,
    base: tfd.Distribution | None = None,
    properties: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    tolerances: Mapping[str, tuple[float, float]] | None = None,
    seed: int = 0,
) -> None:
    """Raises unless `bijector` is, at the points x, all that TFP code relies on.

    Works on any injective `tfb.Bijector` of one part. The properties, in order:

    - `dtype`: values and log-dets have the dtype of x.
    - `finite`: they are finite.
    - `batch_shape`: `experimental_batch_shape`, `forward_event_shape` and their kin are the
      shapes of what is returned.
    - `finite_gradients`: gradients of value and log-det in points and variables are finite.
    - `inverse_of_forward`, `forward_of_inverse`: round trips, the inverse truly computed: TFP's
      cache sees a new tensor, and the bijector other points in between.
    - `forward_log_det`, `inverse_log_det`: against `log |det J|`, J by automatic differentiation.
    - `opposite_log_dets`: the two cancel at matching points.
    - `joint`: `tfp_flowvae.bijectors.forward_and_log_det` and its twin agree with the methods.
    - `variables`: `trainable_variables` lists every trainable variable that is read.
    - `graph`, `xla`: `tf.function`, without and with `jit_compile=True`, gives the eager values,
      log-dets and gradients.
    - `dynamic_shape`: so does a trace that does not know the batch dimensions.
    - `saved_model`: values and log-dets survive `tf.saved_model.save` and `load`.
    - `gradients`: gradients in the points, in the tensors the bijector was built from and in its
      variables agree with central differences, at a few elements and along a random direction.
    - `density`: the density that the bijector gives its image integrates to 1, by importance
      sampling, to five of its own standard errors. Only for events of up to three numbers, and
      only if the domain is all of R^D (standard normal points map to finite ones and back) or
      a `base` is given. Where the estimate is too noisy to judge it warns.

    All is computed in the dtype of x. A value passes at `|got - wanted| <= atol + rtol |wanted|`,
    with (atol, rtol) in float32 and in float64 of

    - values: (1e-5, 1e-4) and (1e-10, 1e-9),
    - log-dets, in nats: (1e-4, 1e-4) and (1e-9, 1e-9),
    - gradients, eager against compiled: (1e-3, 1e-3) and (1e-8, 1e-7),
    - gradients against differences: (2e-2, 2e-2) and (1e-5, 1e-5),

    to which is added what rounding costs there: 64 eps times the condition of the Jacobian.

    Args:
      bijector: What is checked. Its variables are moved by `gradients` and put back.
      x: `[..., event]`, float32 or float64: points of the domain, two or more of them if
        possible, away from its edge by more than 0.1 in float32 and 1e-3 in float64. The
        dimensions in front of the event broadcast against the bijector's batch shape.
      event_ndims: How many of the last dimensions of x make one event; by default the
        bijector's `forward_min_event_ndims`.
      y: `[..., event]`: points of the codomain for the inverse; f(x) by default.
      reference: The same bijector in float64: its Jacobians and differences, at the same points,
        replace those of a float32 `bijector`, which are less exact than what they judge.
      base: The distribution whose image `density` integrates, of x's event shape and without
        batch; its support must lie in the domain.
      properties: Names of the only properties to check; all by default.
      skip: Names of properties to leave out, such as `("xla",)`. Where `graph` is among them
        `gradients` runs eagerly, and slower.
      tolerances: `(atol, rtol)` by name of property, in place of the defaults.
      seed: For everything that is drawn; the same call checks the same numbers.

    Raises:
      AssertionError: Naming the first property that does not hold, the worst element, what was
        got and wanted, and by how much it is off where how much is allowed.
      ValueError: Where an argument is not one of those above.
      TypeError: Where x is not float32 or float64, or `bijector` no bijector.

    Example:
      >>> check_bijector(tfb.Softplus(), [-1.0, 0.5, 2.0])
      >>> check_bijector(tfb.Log(), [0.5, 2.0], base=tfd.Gamma(3.0, 1.0))
    """
    left_out = _names("skip", skip)
    asked = list(PROPERTIES) if properties is None else _names("properties", properties)
    overrides = _tolerances(tolerances)
    ndims = _event_ndims(bijector, event_ndims)
    if reference is not None:
        _event_ndims(reference, event_ndims)
    subject = Subject(
        bijector,
        _points("x", x, ndims, bijector.dtype, tf.float32),
        None,
        ndims,
        reference=reference,
        base=base,
        seed=seed,
        graphs="graph" not in left_out,
        overrides=overrides,
    )
    if y is not None:
        y_ndims = bijector.forward_event_ndims(ndims)
        subject.y_given = _points("y", y, y_ndims, subject.dtype, subject.dtype)
    for name in PROPERTIES:
        if name in asked and name not in left_out:
            _hold(name, subject)


def _hold(name: str, subject: Subject) -> None:
    """Checks one property; any error in the bijector counts as a failure of that property."""
    label = f"{type(subject.bijector).__name__} {subject.bijector.name!r}"
    try:
        PROPERTIES[name](subject)
    except UserError:
        raise
    except AssertionError as error:
        raise AssertionError(f"{label}: property {name!r} does not hold: {error}") from None
    except Exception as error:
        kind = type(error).__name__
        lines = str(error).strip().splitlines() or [""]
        # A traced function's error begins with "in user code:" and ends with what went wrong.
        line = lines[-1].strip() if lines[0].startswith("in user code") else lines[0]
        raise AssertionError(
            f"{label}: property {name!r} could not be evaluated:"
            f" {kind}: {line.removeprefix(f'{kind}: ')}"
        ) from error


def _names(argument: str, names: Iterable[str]) -> list[str]:
    listed = [names] if isinstance(names, str) else list(names)
    for name in listed:
        if name not in PROPERTIES:
            raise UserError(
                f"{argument} takes names of properties ({', '.join(PROPERTIES)})."
                f"{nearest(str(name), PROPERTIES)} Received: {name!r}."
            )
    return listed


def _tolerances(given: Mapping[str, tuple[float, float]] | None) -> dict[str, Tolerance]:
    given = given or {}
    _names("tolerances", given)
    for name, pair in given.items():
        if len(pair) != 2 or not all(np.isfinite(number) and number >= 0 for number in pair):
            raise UserError(
                "tolerances takes pairs (atol, rtol) of numbers that are not negative."
                f" Received: {name}={pair}."
            )
    return {name: Tolerance(*pair) for name, pair in given.items()}


def _event_ndims(bijector: tfb.Bijector, event_ndims: int | None) -> int:
    if not isinstance(bijector, tfb.Bijector):
        raise TypeError(f"A tfp.bijectors.Bijector is needed. Received: {bijector!r}.")
    least = bijector.forward_min_event_ndims
    if tf.nest.is_nested(least) or tf.nest.is_nested(bijector.inverse_min_event_ndims):
        raise UserError(
            "check_bijector takes bijectors of one part; check the parts one by one."
            f" Received: {bijector.name!r} with forward_min_event_ndims={least}."
        )
    if event_ndims is None:
        return int(least)
    if not isinstance(event_ndims, int) or event_ndims < least:
        raise UserError(
            f"event_ndims must be an int of at least forward_min_event_ndims={least}."
            f" Received: event_ndims={event_ndims!r}."
        )
    return event_ndims


def _points(
    name: str, value: TensorLike, ndims: int, dtype: tf.DType | None, hint: tf.DType
) -> tf.Tensor:
    """`value` as a tensor of finite float32 or float64 numbers of rank `ndims` or more."""
    if isinstance(value, (list, tuple)):
        value = np.asarray(value)
        if value.dtype == np.float64:  # Python numbers have no precision of their own
            value = value.astype((dtype or hint).as_numpy_dtype)
    points = tf.convert_to_tensor(value)
    allowed = (tf.float32, tf.float64) if dtype is None else (dtype,)
    if points.dtype not in allowed or points.dtype not in (tf.float32, tf.float64):
        names = " or ".join(kind.name for kind in allowed)
        raise TypeError(f"{name} must be {names}. Received: {name}.dtype={points.dtype.name}.")
    if points.shape.rank < ndims or 0 in points.shape.as_list():
        raise UserError(
            f"{name} must hold at least one point and have rank {ndims} or more."
            f" Received: {name}.shape={tuple(points.shape)}."
        )
    if not np.isfinite(points.numpy()).all():
        raise UserError(f"{name} must be finite. Received: {name}={points.numpy()}.")
    return points
