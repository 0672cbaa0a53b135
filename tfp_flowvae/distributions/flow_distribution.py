"""A flow over a base: the one layer for posteriors, priors and densities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import keras
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors import forward_and_log_det, inverse_and_log_det
from tfp_flowvae.distributions.adopted import Adopted
from tfp_flowvae.distributions.base import Base
from tfp_flowvae.distributions.registry import BASES
from tfp_flowvae.distributions.spec import DistributionSpec, parse_distribution
from tfp_flowvae.errors import UserError
from tfp_flowvae.flows.base import Flow
from tfp_flowvae.flows.sized import SizedLayer
from tfp_flowvae.flows.spec import check_event_size, parse_stack
from tfp_flowvae.flows.stack import as_stack
from tfp_flowvae.spec import parse
from tfp_flowvae.training.noise import Noise, as_noise


class Draw(NamedTuple):
    """Draws z = f(z0) from a flow over a base, and their log-densities in nats.

    Attributes:
      distribution: The `tfd.TransformedDistribution` that was drawn from.
      z0: From the base, `[n, B, D]`; without a context `[n, D]`, and so on below.
      z: `[n, B, D]`.
      log_base: log q0(z0), `[n, B]`.
      log_det: log |det dz/dz0|, `[n, B]`.
      log_prob: log q(z) = log_base - log_det, `[n, B]`.

    Example:
      >>> layer = FlowDistribution("planar:2", event_size=3)
      >>> draw = layer.draw(5)
      >>> draw.z.shape, draw.log_prob.shape
      (TensorShape([5, 3]), TensorShape([5]))
    """

    distribution: tfd.TransformedDistribution
    z0: tf.Tensor
    z: tf.Tensor
    log_base: tf.Tensor
    log_det: tf.Tensor
    log_prob: tf.Tensor


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class FlowDistribution(SizedLayer):
    """The distribution of z = f(z0), z0 from a base: unconditional, or given a context.

    Without a context, base and flow have weights of their own. With one, `[B, F]`, their parameters
    are functions of it, one set for each example. Each conditioner runs once in every method.

    Args:
      flow: The name or spec string of a flow, as in `make_flow`; a `Flow`; or a `tfb.Bijector`.
      base: The name or spec string of a base in `BASES`; a `Base`; or a `tfd.Distribution`, or a
        function that returns one, see `Adopted`.
      **kwargs: See `SizedLayer`; `event_size` and `context_size` may be left out where the owner of
        the layer knows them.

    Raises:
      UserError: If a spec does not parse, or from `build`, if a flow cannot take the size.

    Call arguments: z `[..., D]`, and a context `[B, F]` or None.
    Returns: log q(z) in nats, `[...]`.

    Example:
      >>> density = FlowDistribution("maf:5", event_size=6)
      >>> density.log_prob(tf.zeros([3, 6])).shape
      TensorShape([3])
      >>> density.distribution().sample(10).shape
      TensorShape([10, 6])
    """

    def __init__(
        self,
        flow: str | Flow | tfb.Bijector = "none",
        base: str | Base | tfd.Distribution | Callable[[], tfd.Distribution] = "normal",
        **kwargs: Any,
    ) -> None:
        stack, own_base = as_stack(flow), _as_base(base)
        super().__init__(**kwargs)
        self.flow, self.base = stack, own_base
        if self.event_size is None:
            self.event_size = own_base.event_size or stack.event_size
        self._specs = parse_stack(flow) if isinstance(flow, str) else ()

    @property
    def factorises(self) -> bool:
        """Whether log q(z) is a sum over z's dimensions."""
        return self.base.factorises and not self.flow.flows

    @property
    def has_temperature(self) -> bool:
        """Whether `sample` takes a temperature: the base has a mean, and it is finite."""
        context = None if self.context_size is None else tf.zeros([1, self.context_size])
        try:
            mean = self.base.sample(self.base.distribution(context), 1, Noise(0), 0.0)
        except UserError:
            return False
        return bool(tf.reduce_all(tf.math.is_finite(mean)))

    def build(self, z_shape: Any = None, context_shape: Any = None) -> None:
        """Builds flow and base.

        Raises:
          UserError: If a flow of a spec string cannot take the size.
          ValueError: If the sizes of flow and base differ.
        """
        super().build(z_shape, context_shape)
        check_event_size(self._specs, self.event_size)
        self.build_part(self.flow)
        self.build_part(self.base)

    def distribution(self, context: tf.Tensor | None = None) -> tfd.TransformedDistribution:
        """The distribution, its variables live: event `[D]`, batch `[B]` for a context, else `[]`.

        Args:
          context: `[B, F]`, or None.
        """
        self.check_context(context)
        base = self.base.distribution(context)
        return tfd.TransformedDistribution(base, self.flow.bijector(context), name=self.name)

    def draw(
        self,
        n: int | tf.Tensor,
        context: tf.Tensor | None = None,
        seed: TensorLike | Noise | None = None,
    ) -> Draw:
        """n draws for each example, and every term of their log-densities.

        Args:
          n: The number of draws.
          context: `[B, F]`, or None.
          seed: An int, an integer scalar or a stateless seed `[2]`; None draws a fresh one. Or the
            `Noise` itself.
        """
        distribution = self.distribution(context)
        z0, log_base = self.base.sample_and_log_prob(distribution.distribution, n, as_noise(seed))
        z, log_det = forward_and_log_det(distribution.bijector, z0)
        log_det = tf.broadcast_to(log_det, tf.shape(log_base))
        return Draw(distribution, z0, z, log_base, log_det, log_base - log_det)

    def sample(
        self,
        n: int | tf.Tensor,
        context: tf.Tensor | None = None,
        seed: TensorLike | None = None,
        temperature: TensorLike | None = None,
    ) -> tf.Tensor:
        """n draws, `[n, B, D]` or `[n, D]`, from one pass through the flow.

        Args:
          n: The number of draws.
          context: `[B, F]`, or None.
          seed: An int, an integer scalar or a stateless seed `[2]`; None draws a fresh one.
          temperature: T, at least 0: the base's draw z0 becomes m + T (z0 - m) before the flow,
            where m is the mean of the base, or of the component of a mixture that z0 is drawn from.
            Draws with the same seed differ in T alone. None for T = 1, the distribution itself.

        Raises:
          UserError: If there is a temperature and the base is a distribution without a mean.
        """
        distribution = self.distribution(context)
        z0 = self.base.sample(distribution.distribution, n, Noise(seed), temperature)
        return distribution.bijector.forward(z0)

    def sample_and_log_prob(
        self, n: int | tf.Tensor, context: tf.Tensor | None = None, seed: TensorLike | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """n draws, `[n, B, D]`, and their log-densities in nats, `[n, B]`; arguments as `draw`."""
        draw = self.draw(n, context, seed)
        return draw.z, draw.log_prob

    def log_prob(self, z: TensorLike, context: tf.Tensor | None = None) -> tf.Tensor:
        """log q(z) in nats, `[...]`, of z `[..., D]`, from one pass through the flow.

        `distribution().log_prob(z)` asks TFP's cache first, which knows variables by identity, not
        by value: for a z that it has seen, it may answer eagerly with the weights of that time.

        Args:
          z: `[..., D]`, with a context `[..., B, D]`.
          context: `[B, F]`, or None.
        """
        z = tf.convert_to_tensor(z, dtype_hint=tf.float32)
        if z.shape.rank == 0 or z.shape[-1] not in (None, self.event_size):
            raise ValueError(
                f"z must have shape [..., {self.event_size}]. Received: z.shape={tuple(z.shape)}."
            )
        distribution = self.distribution(context)
        z0, log_det = inverse_and_log_det(distribution.bijector, z)
        # tf.identity: the base may be a TransformedDistribution with a cache of its own.
        return distribution.distribution.log_prob(tf.identity(z0)) + log_det

    def call(self, z: tf.Tensor, context: tf.Tensor | None = None) -> tf.Tensor:
        """log q(z) in nats; see `log_prob`."""
        return self.log_prob(z, context)

    def compute_output_shape(self, z_shape: Any, context_shape: Any = None) -> tuple[Any, ...]:
        """That of log q(z)."""
        return tuple(z_shape[:-1])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, flow and base serialised."""
        parts = {"flow": self.flow, "base": self.base}
        serialized = {k: keras.saving.serialize_keras_object(v) for k, v in parts.items()}
        return {**super().get_config(), **serialized}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Rebuilds the layer, its flow and its base."""
        for entry in BASES.values():
            entry.load()  # Keras finds a registered class only once its module is imported
        parts = {k: keras.saving.deserialize_keras_object(config.pop(k)) for k in ("flow", "base")}
        return cls(**parts, **config)


def as_distribution(source: Any, **kwargs: Any) -> FlowDistribution:
    """A `FlowDistribution`, not built yet.

    Args:
      source: One; its spec string, such as `"mixture:20+realnvp:4"`; a flow or bijector, over the
        normal base; or a `tfd.Distribution` or a function that returns one.
      **kwargs: See `FlowDistribution`; not for one that exists.
    """
    if isinstance(source, FlowDistribution):
        return source
    if isinstance(source, str):
        spec = parse_distribution(source)
        flow = str(DistributionSpec(flows=spec.flows))
        return FlowDistribution(flow, spec.base.build(), **kwargs)
    if isinstance(source, (Flow, tfb.Bijector)):
        return FlowDistribution(source, **kwargs)
    return FlowDistribution("none", source, **kwargs)


def _as_base(base: Any) -> Base:
    if isinstance(base, Base):
        return base
    if isinstance(base, str):
        return parse(BASES, base).build()
    return Adopted(base)
