"""Contractive residual flows: z + g(z) with a free-form network g and a log-det without bias.

The step of Behrmann et al. (2019) and Chen et al. (2019) is

    f(z) = z + g(z),        Lip(g) <= c < 1,

with g(z) = W_L^T a(... a(W_1^T z + b_1) ...) + b_L a multilayer perceptron. No slope of the
activation a exceeds 1, so that Lip(g) <= ||W_1|| ... ||W_L|| in spectral norms; each kernel of
norm above c^(1/L) is scaled down to it, and then f is a bijection whatever the parameters are. The
norms are bounded from above and not merely estimated: see `internal/residual_net.limit_norm`.

The inverse is the fixed point of x <- y - g(x), reached to rounding within a number of steps that
follows from c and the dtype alone, and differentiated in y and in the weights by the implicit
function theorem: see `internal/residual_inverse.py`. Both directions satisfy

    (1 - c) ||z - z'|| <= ||f(z) - f(z')|| <= (1 + c) ||z - z'|| .

The Jacobian J of g gives log |det df/dz| = log det(I + J), positive inside, in one of three ways:

- "exact": J by forward differentiation, D tangents at once, then a determinant; D up to 64.
- "series": the first n terms of sum_k (-1)^(k+1) tr(J^k) / k, with random probes for the traces.
  Apart from the probes' noise, the error is at most D c^(n+1) / ((n + 1) (1 - c)).
- "roulette": the series cut at a random length and weighted so that no bias is left, with an
  unbiased gradient of constant memory. A term beyond the n-th comes with probability c after the
  one before, which keeps the variance finite for every g; the mean length is n + c / (1 - c).

References:
  Jens Behrmann, Will Grathwohl, Ricky T. Q. Chen, David Duvenaud and Joern-Henrik Jacobsen.
  Invertible Residual Networks. ICML 2019. https://arxiv.org/abs/1811.00995
  Ricky T. Q. Chen, Jens Behrmann, David Duvenaud and Joern-Henrik Jacobsen. Residual Flows for
  Invertible Generative Modeling. NeurIPS 2019. https://arxiv.org/abs/1906.02735
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import bijectors as tfb

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors.internal import log_det_series, residual_inverse, validate
from tfp_flowvae.bijectors.internal.parametric import parameter
from tfp_flowvae.bijectors.internal.residual_net import ACTIVATIONS, ResidualNet, limit_norm
from tfp_flowvae.bijectors.joint import JointEvaluation

MAX_EXACT_SIZE = 64
"""The largest D whose Jacobian is formed: its cost in time grows with D^3."""

_LOG_DETS = ("exact", "series", "roulette")


class ContractiveResidual(JointEvaluation, tfb.AutoCompositeTensorBijector):
    """One residual step f(z) = z + g(z), where g is a perceptron with Lip(g) <= `lipschitz` < 1.

    The mathematics is at the head of this module. All kernels 0 is a shift, with biases 0 the
    identity. Forward costs one pass through g; the inverse iterates, one pass each time, until it
    converges. Several steps are a `tfb.Chain`.

    The estimates "series" and "roulette" are functions of `seed`: the same call gives the same
    number, each point of x has probes of its own, and f's log-det at x and its inverse's at f(x),
    in the same batch, cancel. For fresh noise in every step of a training make `seed` a
    `tf.Variable` and change it. What is unbiased is the log-det, not its exponential.

    `tfp.experimental.util.make_trainable` makes no lists of variables: to train the parameters,
    pass lists of `tf.Variable`s.

    Example:
      >>> kernels = [tf.random.normal([2, 16]), tf.random.normal([16, 2])]
      >>> residual = ContractiveResidual(kernels, [tf.zeros([16]), tf.zeros([2])])
      >>> y, log_det = residual.forward_and_log_det(tf.random.normal([100, 2]))

    Args:
      kernels: A list of `[..., in, out]`, the first with in = D and the last with out = D; any
        real numbers. Float32 or float64, as all parameters. Leading dimensions are batch.
      biases: A list of `[..., out]`, as many as there are kernels.
      lipschitz: The bound c on the Lipschitz constant of g, between 0 and 1.
      activation: The function a: "lipswish" (t sigmoid(t) / 1.1), "elu", "sin" or "tanh".
      log_det: "exact", "series" or "roulette".
      seed: For the estimates, and needed by them: one integer or two, a tensor or a variable too.
      terms: For "series" the number n of terms; for "roulette" how many are always there.
      probes: Over how many probes an estimate averages.
      validate_args: Whether to check that the parameters are finite.
      name: The name of this bijector and the scope of its operations.

    Raises:
      TypeError: If the dtypes differ or are not float32 or float64, or the seed is no integer.
      ValueError: If `kernels` and `biases` are not lists of one length, at least 1; the shapes do
        not fit together; D is more than 64 and `log_det` "exact"; an estimate has no seed; another
        argument is none of those above; or `validate_args` finds a parameter that is not finite.
    """

    lipschitz = parameter("lipschitz", "The bound on the Lipschitz constant of g.")
    activation = parameter("activation", "The name of the function between the layers.")
    log_det = parameter("log_det", 'How the log-det is found: "exact", "series" or "roulette".')

    def __init__(
        self,
        kernels: Sequence[TensorLike],
        biases: Sequence[TensorLike],
        lipschitz: float = 0.9,
        activation: str = "lipswish",
        log_det: str = "exact",
        seed: TensorLike | None = None,
        terms: int = 8,
        probes: int = 1,
        validate_args: bool = False,
        name: str = "contractive_residual",
    ) -> None:
        parameters = dict(locals())
        with tf.name_scope(name) as name:
            _check_options(lipschitz, activation, log_det, terms, probes)
            _check_seed(log_det, seed)
            self._kernels, self._biases = _convert_layers(kernels, biases)
            self._lipschitz, self._activation = float(lipschitz), activation
            self._log_det, self._seed, self._terms, self._probes = log_det, seed, terms, probes
            size = self._kernels[0].shape[-2] if self._kernels[0].shape.rank else None
            if log_det == "exact" and size is not None and size > MAX_EXACT_SIZE:
                raise ValueError(
                    f'{type(self).__name__} takes log_det="exact" up to D={MAX_EXACT_SIZE}, and '
                    f'"series" or "roulette" beyond. Received: D={size}.'
                )
            super().__init__(
                forward_min_event_ndims=1,
                validate_args=validate_args,
                dtype=self._kernels[0].dtype,
                parameters=parameters,
                name=name,
            )

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict[str, Any]:
        def layers(event_ndims: int) -> tfp.util.ParameterProperties:
            return tfp.util.ParameterProperties(
                event_ndims=lambda self, x_event_ndims: [event_ndims] * len(self.kernels),
                is_tensor=False,  # but a list of tensors
            )

        return {"kernels": layers(2), "biases": layers(1)}

    @property
    def kernels(self) -> list[tf.Tensor | tf.Variable]:
        """The kernels, as they were given: of any norms."""
        return list(self._kernels)

    @property
    def biases(self) -> list[tf.Tensor | tf.Variable]:
        """The biases, as they were given."""
        return list(self._biases)

    def constrained_kernels(self) -> list[tf.Tensor]:
        """Returns the kernels that act, each of a spectral norm of at most lipschitz^(1/L)."""
        bound = self.lipschitz ** (1.0 / len(self._kernels))
        return [limit_norm(tf.convert_to_tensor(kernel), bound) for kernel in self._kernels]

    def _parameter_control_dependencies(self, is_init: bool) -> list:
        if not self.validate_args:
            return []
        named = {f"kernels_{i}": kernel for i, kernel in enumerate(self._kernels)}
        named |= {f"biases_{i}": bias for i, bias in enumerate(self._biases)}
        return validate.finite_assertions(type(self).__name__, named, is_init)

    def _forward(self, x: tf.Tensor) -> tf.Tensor:
        x, net = self._prepare(x)
        return x + net.value(x)

    def _inverse(self, y: tf.Tensor) -> tf.Tensor:
        y, net = self._prepare(y)
        return residual_inverse.invert(net, y, self.lipschitz)

    def _forward_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x, net = self._prepare(x)
        change, log_det = self._linearize(net, x)
        return x + change, log_det

    def _inverse_and_log_det(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        y, net = self._prepare(y)
        x = residual_inverse.invert(net, y, self.lipschitz)
        return x, -self._linearize(net, x)[1]

    def _prepare(self, x: tf.Tensor) -> tuple[tf.Tensor, ResidualNet]:
        """Returns x with the batch shape of the result, and g."""
        owner, shape = type(self).__name__, self._kernels[0].shape
        x = validate.check_event(owner, x, shape if shape.rank is None else shape[-2:-1])
        biases = [tf.convert_to_tensor(bias) for bias in self._biases]
        net = ResidualNet(self.constrained_kernels(), biases, ACTIVATIONS[self.activation])
        for kernel, bias in zip(net.kernels, net.biases, strict=True):
            x += tf.zeros_like(kernel[..., 0, :1]) + tf.zeros_like(bias[..., :1])
        return x, net

    def _linearize(self, net: ResidualNet, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns g(x) and log det(I + J)."""
        value, slopes = net.linearize(x)
        if self.log_det == "exact":
            return value, log_det_series.exact(net, slopes) + tf.zeros_like(x[..., 0])
        probe_seed, length_seed = log_det_series.split_seed(self._seed)
        probes = log_det_series.draw_probes(x, self._probes, probe_seed)
        if self.log_det == "series":
            return value, log_det_series.truncated(net, slopes, probes, self._terms)
        return value, log_det_series.roulette(
            net, slopes, probes, self._terms, self.lipschitz, length_seed
        )


def _convert_layers(
    kernels: Sequence[TensorLike], biases: Sequence[TensorLike]
) -> tuple[list[tf.Tensor | tf.Variable], list[tf.Tensor | tf.Variable]]:
    """Converts the lists to tensors and checks that the layers fit together."""
    owner = ContractiveResidual.__name__
    for label, value in (("kernels", kernels), ("biases", biases)):
        if not isinstance(value, Sequence):
            shape = getattr(value, "shape", None)
            received = f"{type(value).__name__}" + ("" if shape is None else f" of shape {shape}")
            raise ValueError(
                f"{owner} takes {label} as a list with one entry a layer. Received: a {received}."
            )
    count = len(kernels)
    if count == 0 or len(biases) != count:
        raise ValueError(
            f"{owner} takes at least one kernel and as many biases. "
            f"Received: {count} kernels and {len(biases)} biases."
        )
    sizes = ["D", *(chr(ord("H") + i) for i in range(count - 1)), "D"]
    axes = {f"kernels_{i}": sizes[i] + sizes[i + 1] for i in range(count)}
    axes |= {f"biases_{i}": sizes[i + 1] for i in range(count)}
    values = {f"kernels_{i}": kernel for i, kernel in enumerate(kernels)}
    values |= {f"biases_{i}": bias for i, bias in enumerate(biases)}
    tensors = list(validate.convert_parameters(owner, axes, values).values())
    return tensors[:count], tensors[count:]


def _check_options(
    lipschitz: float, activation: str, log_det: str, terms: int, probes: int
) -> None:
    owner = ContractiveResidual.__name__
    if not isinstance(lipschitz, (int, float, np.number)) or not 0.0 < lipschitz < 1.0:
        raise ValueError(
            f"{owner} takes a Python number lipschitz between 0 and 1, both excluded. "
            f"Received: lipschitz={lipschitz!r}."
        )
    validate.check_choice(owner, "activation", activation, ACTIVATIONS)
    validate.check_choice(owner, "log_det", log_det, _LOG_DETS)
    validate.check_count(owner, "terms", terms)
    validate.check_count(owner, "probes", probes)


def _check_seed(log_det: str, seed: TensorLike | None) -> None:
    owner = ContractiveResidual.__name__
    if seed is None:
        if log_det != "exact":
            raise ValueError(
                f"{owner} takes a seed, one integer or two, with log_det={log_det!r}. "
                "Received: seed=None."
            )
        return
    given = seed if hasattr(seed, "dtype") else np.asarray(seed)
    if not tf.as_dtype(given.dtype).is_integer:
        raise TypeError(
            f"{owner} takes a seed of integers. Received: dtype {tf.as_dtype(given.dtype).name}."
        )
    shape = tf.TensorShape(given.shape)
    if not (shape.is_compatible_with([]) or shape.is_compatible_with([2])):
        raise ValueError(
            f"{owner} takes a seed of one integer or two. Received: shape {tuple(shape.as_list())}."
        )
