"""A distribution from a SavedModel that `export_distribution` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae import _endpoints
from tfp_flowvae._typing import TensorLike
from tfp_flowvae.errors import UserError
from tfp_flowvae.training.noise import as_seed


def load_distribution(path: str | Path) -> LoadedDistribution | LoadedFunction:
    """Gives back what `export_distribution` wrote.

    Args:
      path: The folder.

    Returns:
      A `tfd.Distribution` over the SavedModel's variables, with `forward` and `inverse` if the
      exported distribution was a `tfd.TransformedDistribution`. For an exported function, a
      function from a context to that.

    Raises:
      UserError: If the folder holds no exported distribution.

    Example:
      >>> fv.export_distribution(tfd.MultivariateNormalDiag([0.0, 1.0]), "normal")
      >>> normal = fv.load_distribution("normal")
      >>> normal.log_prob([0.0, 1.0])  # -log 2 pi
      <tf.Tensor: shape=(), dtype=float32, numpy=-1.8379>
    """
    path = Path(path)
    if not (path / "saved_model.pb").is_file():
        raise UserError(f"{str(path)!r} holds no SavedModel (no saved_model.pb).")
    served = _endpoints.load(path)
    if not hasattr(served, "shapes"):
        raise UserError(
            f"{str(path)!r} holds another SavedModel than export_distribution writes; load models "
            "with tfp_flowvae.load or tf.saved_model.load."
        )
    return LoadedFunction(served) if _arguments(served.shapes) else LoadedDistribution(served)


class LoadedDistribution(tfd.Distribution):
    """The distribution of a SavedModel: see `load_distribution`.

    Integer seeds and stateless seeds `[2]` give the numbers of the SavedModel's own methods.

    Args:
      served: What `tf.saved_model.load` returned.
      context: The context of an exported function, alone in a tuple; an empty one for none.
      name: The name of this distribution.
    """

    def __init__(
        self, served: Any, context: tuple[Any, ...] = (), name: str = "LoadedDistribution"
    ) -> None:
        parameters = dict(locals())
        self._served, self._context = served, context
        self._held = list(served.variables)  # where `tf.Module` finds them
        shapes = served.shapes(*context)
        self._shapes = tf.nest.map_structure(_as_shape, shapes)
        super().__init__(
            dtype=tf.nest.map_structure(lambda spec: spec.dtype, _points(served)),
            # Not known here; this one lets TFP take the gradients that are right for any.
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    def forward(self, z: Any) -> Any:
        """The bijector's value at z of the base distribution, `[..., *batch, *event]`."""
        return self._call("forward", z)["x"]

    def inverse(self, x: Any) -> Any:
        """The z with `forward(z)` = x."""
        return self._call("inverse", x)["z"]

    def _call(self, method: str, *arguments: Any) -> dict[str, Any]:
        if not hasattr(self._served, method):
            raise NotImplementedError(f"{method} is not part of the exported {self.name!r}.")
        return getattr(self._served, method)(*arguments, *self._context)

    def _sample_n(self, n: TensorLike, seed: TensorLike | None = None) -> Any:
        return self._call("sample", n, as_seed(seed))["x"]

    def _log_prob(self, value: Any) -> tf.Tensor:
        return self._call("log_prob", value)["log_prob"]

    def _sample_and_log_prob(self, sample_shape: tf.Tensor, seed: TensorLike | None) -> Any:
        drawn = self._call("sample_and_log_prob", tf.reduce_prod(sample_shape), as_seed(seed))

        def shaped(value: tf.Tensor) -> tf.Tensor:
            return tf.reshape(value, tf.concat([sample_shape, tf.shape(value)[1:]], axis=0))

        return tf.nest.map_structure(shaped, (drawn["x"], drawn["log_prob"]))

    def _event_shape(self) -> Any:
        return self._shapes["event_shape"]

    def _batch_shape(self) -> Any:
        return self._shapes["batch_shape"]


class LoadedFunction(tf.Module):
    """A function from a context to a `LoadedDistribution`: see `load_distribution`.

    Args:
      served: What `tf.saved_model.load` returned.
    """

    def __init__(self, served: Any) -> None:
        super().__init__()
        self._served = served
        self._held = list(served.variables)  # where `tf.Module` finds them

    def __call__(self, context: Any) -> LoadedDistribution:
        """The distribution for a context of the exported specification."""
        return LoadedDistribution(self._served, (context,))


def _arguments(method: Any) -> tuple[Any, ...]:
    return method.concrete_functions[0].structured_input_signature[0]


def _points(served: Any) -> Any:
    """Specifications of the distribution's samples."""
    if hasattr(served, "sample"):
        return served.sample.concrete_functions[0].structured_outputs["x"]
    return _arguments(served.log_prob)[0]


def _as_shape(sizes: tf.Tensor) -> tf.TensorShape:
    known = tf.get_static_value(sizes)
    return tf.TensorShape([None] * sizes.shape[0] if known is None else known)
