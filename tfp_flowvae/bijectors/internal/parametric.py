"""What the bijectors share whose parameters are real arrays of declared axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae.bijectors.internal import validate
from tfp_flowvae.bijectors.internal.activations import ACTIVATIONS, Activation, check_activation
from tfp_flowvae.bijectors.joint import JointEvaluation


class ParametricBijector(JointEvaluation, tfb.AutoCompositeTensorBijector):
    """A bijector of vectors whose parameters `_AXES` names, with their axes as in `_validate`.

    Its constructor takes them under these names, with `validate_args` and `name`, and passes all of
    its arguments on. Each is kept, a tensor or a reference, as the attribute of its name with an
    underscore in front: None where an optional one was not given.
    """

    _AXES: ClassVar[Mapping[str, str]]

    def __init__(self, parameters: dict[str, Any], is_constant_jacobian: bool = False) -> None:
        values = {k: parameters[k] for k in self._AXES if parameters[k] is not None}
        axes = {k: self._AXES[k] for k in values}
        with tf.name_scope(parameters["name"]) as name:
            tensors = validate.convert_parameters(type(self).__name__, axes, values)
            for key in self._AXES:
                setattr(self, f"_{key}", tensors.get(key))
            self._keep_others(parameters)
            super().__init__(
                forward_min_event_ndims=1,
                is_constant_jacobian=is_constant_jacobian,
                validate_args=parameters["validate_args"],
                dtype=next(iter(tensors.values())).dtype,
                parameters=parameters,
                name=name,
            )

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict[str, Any]:
        return validate.parameter_properties(cls._AXES)

    def _keep_others(self, parameters: Mapping[str, Any]) -> None:
        """Checks and keeps, in the constructor, what is no such parameter; nothing by default."""

    def _parameter_control_dependencies(self, is_init: bool) -> list:
        if not self.validate_args:
            return []
        given = {k: getattr(self, f"_{k}") for k in self._AXES}
        named = {k: value for k, value in given.items() if value is not None}
        return validate.finite_assertions(type(self).__name__, named, is_init)

    def _event_shape(self) -> tf.TensorShape:
        """`[D]`, as far as the first parameter with an axis D tells."""
        name, letters = next((k, v) for k, v in self._AXES.items() if "D" in v)
        shape, axis = getattr(self, f"_{name}").shape, letters.index("D") - len(letters)
        return shape[axis:][:1] if shape.rank is not None else shape

    def _checked(self, x: tf.Tensor) -> tf.Tensor:
        return validate.check_event(type(self).__name__, x, self._event_shape())


class ActivatedBijector(ParametricBijector):
    """A `ParametricBijector` that also takes the name of a saturating `activation` h."""

    def _keep_others(self, parameters: Mapping[str, Any]) -> None:
        self._activation = parameters["activation"]
        check_activation(type(self).__name__, self._activation)

    @property
    def activation(self) -> str:
        """The name of h."""
        return self._activation

    def _h(self) -> Activation:
        return ACTIVATIONS[self.activation]
