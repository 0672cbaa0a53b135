"""The base class of the bijectors whose parameters are real arrays of declared axes."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae.bijectors.internal import permute, stack, validate
from tfp_flowvae.bijectors.internal.activations import ACTIVATIONS, Activation
from tfp_flowvae.bijectors.joint import JointEvaluation


def parameter(name: str, doc: str) -> property:
    """Returns the read-only property for the constructor's argument `name`, as it was given."""
    return property(operator.attrgetter(f"_{name}"), doc=doc)


class ParametricBijector(JointEvaluation, tfb.AutoCompositeTensorBijector):
    """A bijector of vectors with the parameters that `_AXES` names, their axes as in `validate`.

    The constructor of a subclass takes them under these names, with `validate_args` and `name`, and
    passes on all of its arguments. Each parameter is kept, a tensor or a reference, in the
    attribute of its name with an underscore in front: None where an optional one was not given.

    Class attributes:
      _AXES: The event axes of each parameter, such as `{"u": "D", "b": ""}`.
      _IS_STACK: Whether the bijector is K steps in a row, with the axis K first in each parameter.
      _PERMUTES: Whether the constructor also takes a `permutation`, or None, of D places.
      _EVENT_NDIMS: The dimensions of an event: 1, or 3 for images whose pixels have D channels.
    """

    _AXES: ClassVar[Mapping[str, str]]
    _IS_STACK: ClassVar[bool] = False
    _PERMUTES: ClassVar[bool] = False
    _EVENT_NDIMS: ClassVar[int] = 1

    def __init__(self, arguments: dict[str, Any], is_constant_jacobian: bool = False) -> None:
        owner = type(self).__name__
        values = {k: arguments[k] for k in self._AXES if arguments[k] is not None}
        axes = {k: self._AXES[k] for k in values}
        with tf.name_scope(arguments["name"] or snake_case(owner)) as name:
            tensors = validate.convert_parameters(owner, axes, values)
            for key in self._AXES:
                setattr(self, f"_{key}", tensors.get(key))
            if self._PERMUTES:
                order = arguments["permutation"]
                self._permutation = permute.convert(owner, order, self._event_shape())
            self._keep_others(arguments)
            super().__init__(
                forward_min_event_ndims=self._EVENT_NDIMS,
                is_constant_jacobian=is_constant_jacobian,
                validate_args=arguments["validate_args"],
                dtype=next(iter(tensors.values())).dtype,
                parameters=arguments,
                name=name,
            )

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict[str, Any]:
        properties = validate.parameter_properties(cls._AXES)
        return properties | ({"permutation": permute.properties()} if cls._PERMUTES else {})

    def _keep_others(self, arguments: Mapping[str, Any]) -> None:
        """Checks and keeps the other arguments of the constructor; a subclass may override it."""

    def steps(self) -> list[Self]:
        """Returns the steps that the bijector consists of, in the order in which they act.

        K steps in a row, such as a `PlanarFlow`, give K bijectors of the same class with K = 1 and
        the values that the parameters have now. Any other bijector is one step, itself.
        """
        if not all(letters.startswith("K") for letters in self._AXES.values()):
            return [self]
        values = {key: tf.convert_to_tensor(getattr(self, f"_{key}")) for key in self._AXES}
        axes = {key: -len(letters) for key, letters in self._AXES.items()}
        key, value = next(iter(values.items()))
        return [
            self.copy(
                **{key: tf.gather(value, [k], axis=axes[key]) for key, value in values.items()}
            )
            for k in range(tf.shape(value)[axes[key]])
        ]

    def _parameter_control_dependencies(self, is_init: bool) -> list:
        if not self.validate_args:
            return []
        owner = type(self).__name__
        given = {k: getattr(self, f"_{k}") for k in self._AXES}
        named = {k: value for k, value in given.items() if value is not None}
        found = validate.finite_assertions(owner, named, is_init)
        if self._PERMUTES and self._permutation is not None:
            found += permute.assertions(owner, self._permutation, is_init)
        return found

    def _event_shape(self) -> tf.TensorShape:
        """`[D]`, as far as the first parameter with an axis D tells."""
        name, letters = next((k, v) for k, v in self._AXES.items() if "D" in v)
        shape, axis = getattr(self, f"_{name}").shape, letters.index("D") - len(letters)
        return shape[axis:][:1] if shape.rank is not None else shape

    def _checked(self, x: tf.Tensor) -> tf.Tensor:
        return validate.check_event(type(self).__name__, x, self._event_shape())

    def _run(
        self,
        step: stack.Step,
        x: tf.Tensor,
        parameters: Sequence[tf.Tensor],
        event_ndims: Sequence[int],
        **options: bool,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Applies the one step or, in a stack, all K in a loop; arguments as in `run_stack`."""
        x = self._checked(x)
        if self._IS_STACK:
            return stack.run_stack(step, x, parameters, event_ndims, **options)
        return step(x, None, *parameters)[:2]


class ActivatedBijector(ParametricBijector):
    """A `ParametricBijector` that also takes the name of a saturating `activation` h."""

    activation = parameter("activation", "The name of h.")

    def _keep_others(self, arguments: Mapping[str, Any]) -> None:
        self._activation = arguments["activation"]
        validate.check_choice(type(self).__name__, "activation", self._activation, ACTIVATIONS)

    def _h(self) -> Activation:
        return ACTIVATIONS[self.activation]


def snake_case(name: str) -> str:
    """`PlanarFlow` as `planar_flow`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
