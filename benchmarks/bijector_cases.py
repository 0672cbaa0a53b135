"""What `bijectors.py` measures: for each family our bijector, its rivals and their parameters."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import bijectors as fvb
from tfp_flowvae.flows.conditioner import AutoregressiveConditioner
from tfp_flowvae.networks import MADE

BATCH = 100
HIDDEN = 320
BINS = 8
FORWARD, INVERSE, GRADIENT = PARTS = ("forward", "inverse", "gradient")
NO_LIMIT = 1_000_000
# A chain of more parts takes XLA minutes to compile; that is what the stacks are for.
LONGEST_CHAIN = 10

Builder = Callable[..., tfb.Bijector]
Draw = Callable[..., tf.Tensor]


@dataclass(frozen=True)
class Rival:
    """A bijector to be compared with ours, from the same parameters.

    Attributes:
      name: For the table.
      build: From the parameters.
      parts: What it has at all.
      longest: The largest K that XLA compiles in seconds.
      xla: Whether XLA has all its operations; a plain graph otherwise.
    """

    name: str
    build: Builder
    parts: tuple[str, ...] = PARTS
    longest: int = NO_LIMIT
    xla: bool = True


@dataclass(frozen=True)
class Case:
    """One family.

    Attributes:
      draw: The parameters for `(draw, D, K)`, `draw(*shape)` being normal numbers. Those that begin
        with BATCH are different for every point, as an amortised posterior's; others are shared.
      build: Our bijector from the parameters.
      rivals: TFP's own, a chain of single steps, or the formula taken literally.
      lengths: The K it takes; 1 alone where K means nothing.
      parts: What to measure.
      largest: The largest D it takes.
    """

    draw: Callable[[Draw, int, int], Sequence[tf.Tensor]]
    build: Builder
    rivals: Sequence[Rival] = ()
    lengths: tuple[int, ...] = (1,)
    parts: tuple[str, ...] = PARTS
    largest: int = NO_LIMIT


def _draw_steps(draw: Draw, size: int, length: int) -> list[tf.Tensor]:
    return [draw(BATCH, length, *tail) / np.sqrt(size) for tail in ((size,), (size,), ())]


def _chain_of(step: Builder) -> Builder:
    """K single steps from stacks of their parameters, `[BATCH, K, ...]`."""

    def build(*stacks: tf.Tensor) -> tfb.Bijector:
        steps = zip(*(tf.unstack(stack, axis=1) for stack in stacks), strict=True)
        return tfb.Chain([step(*parameters) for parameters in steps][::-1])

    return build


def _stack(name: str, build: Builder, step: Builder) -> Case:
    chain = Rival(f"chain of {name}", _chain_of(step), longest=LONGEST_CHAIN)
    return Case(_draw_steps, build, (chain,), lengths=(1, 10, 80))


def _radial(center: tf.Tensor, _: tf.Tensor, beta: tf.Tensor) -> tfb.Bijector:
    kind = fvb.RadialFlow if center.shape.rank > 2 else fvb.Radial
    return kind(center, tf.ones_like(beta), beta)


class _LiteralSylvester(tfb.Bijector):
    """z + A h(B z + b) with the log-det of its D x D Jacobian, as one writes it down at first."""

    def __init__(self, outer: tf.Tensor, inner: tf.Tensor, b: tf.Tensor) -> None:
        self._outer, self._inner, self._b = outer, inner, b
        super().__init__(forward_min_event_ndims=1)

    def _forward(self, x: tf.Tensor) -> tf.Tensor:
        return x + tf.linalg.matvec(self._outer, tf.tanh(self._units(x)))

    def _forward_log_det_jacobian(self, x: tf.Tensor) -> tf.Tensor:
        slopes = 1.0 - tf.tanh(self._units(x)) ** 2
        product = tf.matmul(self._outer * slopes[..., tf.newaxis, :], self._inner)
        return tf.linalg.slogdet(tf.eye(x.shape[-1]) + product)[1]

    def _units(self, x: tf.Tensor) -> tf.Tensor:
        return tf.linalg.matvec(self._inner, x) + self._b


def _literal(build: Builder) -> Builder:
    """The same map as one of our Sylvester flows, with Q as a matrix."""

    def literal(*parameters: tf.Tensor) -> tfb.Bijector:
        flow = build(*parameters)
        if isinstance(flow, fvb.OrthogonalSylvester):
            q = flow.orthonormal_q()
        elif isinstance(flow, fvb.HouseholderSylvester):
            unit_vectors = tf.eye(flow.v.shape[-1])[:, tf.newaxis]
            q = tf.transpose(fvb.HouseholderFlow(flow.v).forward(unit_vectors), [1, 2, 0])
        else:
            q = tf.eye(flow.b.shape[-1], batch_shape=[BATCH])
        inner = tf.matmul(flow.constrained_r_tilde(), q, transpose_b=True)
        return _LiteralSylvester(tf.matmul(q, flow.constrained_r()), inner, flow.b)

    return literal


def _sylvester(kind: Builder, shape_of_frame: Callable[[int, int], tuple[int, ...]] | None) -> Case:
    def draw_all(draw: Draw, size: int, length: int) -> list[tf.Tensor]:
        width = min(size, 8) if kind is fvb.OrthogonalSylvester else size
        frame = [] if shape_of_frame is None else [draw(BATCH, *shape_of_frame(size, length))]
        return [*frame, *(draw(BATCH, width, width) / width for _ in "rr"), draw(BATCH, width)]

    rival = Rival("log-det of a D x D Jacobian", _literal(kind), parts=(FORWARD,), xla=False)
    lengths = (1, 10, 80) if kind is fvb.HouseholderSylvester else (1,)
    return Case(draw_all, kind, (rival,), lengths)


def _draw_network(params: int) -> Callable[[Draw, int, int], list[tf.Tensor]]:
    """The weights of a coupling's network, which all points share; the output's as `[H, M, P]`."""

    def draw_all(draw: Draw, size: int, length: int) -> list[tf.Tensor]:
        kept = size // 2
        first, last = draw(kept, HIDDEN), 0.5 * draw(HIDDEN, size - kept, params)
        biases = 0.1 * draw(HIDDEN), 0.1 * draw(size - kept, params)
        return [first / np.sqrt(kept), biases[0], last / np.sqrt(HIDDEN), biases[1]]

    return draw_all


def _coupling(params: int, ours: Callable[..., Any], theirs: Callable[..., Any]) -> Case:
    """From the kept entries' number, the mask and the network to the two bijectors."""

    def arguments(*weights: tf.Tensor) -> tuple[int, np.ndarray, Callable[..., tf.Tensor]]:
        first, bias, last, end = weights
        size = first.shape[0] + last.shape[1]

        def network(kept: tf.Tensor, units: int, **_: Any) -> tf.Tensor:
            hidden = tf.nn.relu(tf.matmul(kept, first) + bias)
            out = tf.matmul(hidden, tf.reshape(last, [HIDDEN, -1]))
            return tf.reshape(out, [-1, units, params]) + end

        return size // 2, fvb.half_mask(size), network

    rival = Rival("tfb.RealNVP", lambda *weights: theirs(*arguments(*weights)))
    return Case(_draw_network(params), lambda *weights: ours(*arguments(*weights)), (rival,))


def _affine(network: Callable[..., tf.Tensor]) -> Callable[..., Any]:
    def shift_and_log_scale(*arguments: Any, **keywords: Any) -> tuple[tf.Tensor, tf.Tensor]:
        shift, raw = tf.unstack(network(*arguments, **keywords), axis=-1)
        return shift, tf.tanh(raw)

    return shift_and_log_scale


def _shift(network: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    return lambda *arguments, **keywords: network(*arguments, **keywords)[..., 0]


def _of_tfp(transform: fvb.SplineTransform) -> Callable[..., tfb.Bijector]:
    """TFP's own spline of the same knots."""
    names = ("bin_widths", "bin_heights", "knot_slopes", "range_min")

    def make(*arguments: Any, **_: Any) -> tfb.Bijector:
        spline = transform(*arguments)
        return tfb.RationalQuadraticSpline(**{name: getattr(spline, name) for name in names})

    return make


@functools.cache
def _made(size: int, params: int) -> MADE:
    """A MADE whose weights are all random: it starts with an output of zero."""
    rng = np.random.default_rng(0)
    with tf.init_scope():
        made = MADE(size, hidden=(HIDDEN,), params=params)
        made.build()
        for weight in made.weights:
            weight.assign(rng.normal(scale=0.5 / np.sqrt(weight.shape[0]), size=weight.shape))
    return made


def _autoregressive(kind: Callable[..., Any], spline: bool) -> Builder:
    """A flow from parameters that only tell D: a MADE has variables of its own."""

    def build(zeros: tf.Tensor) -> tfb.Bijector:
        size = zeros.shape[0]
        if not spline:
            return kind(AutoregressiveConditioner(_made(size, 2)))
        made = _made(size, 3 * BINS - 1)
        transform = fvb.SplineTransform(AutoregressiveConditioner(made, read=tf.identity), BINS)
        is_ours = kind is fvb.ParallelMaskedAutoregressiveFlow
        return kind(bijector_fn=transform if is_ours else _of_tfp(transform))

    return build


def _autoregressive_case(spline: bool) -> Case:
    rival = Rival(  # in the other direction, and so in its gradient, ours is theirs
        "tfb.MaskedAutoregressiveFlow",
        _autoregressive(tfb.MaskedAutoregressiveFlow, spline),
        parts=(FORWARD,),
    )
    ours = _autoregressive(fvb.ParallelMaskedAutoregressiveFlow, spline)
    return Case(lambda draw, size, length: [tf.zeros(size)], ours, (rival,))


def _draw_factors(draw: Draw, size: int, length: int) -> list[tf.Tensor]:
    lower, upper = (draw(size, size) / size for _ in "lu")
    return [lower, 0.1 * draw(size), upper]


def _packed_lu(lower: tf.Tensor, log_diag: tf.Tensor, upper: tf.Tensor) -> tfb.Bijector:
    packed = tf.linalg.band_part(lower, -1, 0) + tf.linalg.band_part(upper, 0, -1)
    packed = tf.linalg.set_diag(packed, tf.exp(log_diag))
    return tfb.ScaleMatvecLU(packed, tf.range(log_diag.shape[0]))


def _draw_residual(draw: Draw, size: int, length: int) -> list[tf.Tensor]:
    sizes = (size, 64, 64, size)
    shapes = list(itertools.pairwise(sizes))
    return [*(draw(*s) / np.sqrt(s[0]) for s in shapes), *(0.1 * draw(s[1]) for s in shapes)]


CASES: dict[str, Case] = {
    "planar": _stack("Planar", fvb.PlanarFlow, fvb.Planar),
    "radial": _stack("Radial", _radial, _radial),
    "householder": _stack(
        "tfb.Householder",
        lambda v, *_: fvb.HouseholderFlow(v),
        lambda v, *_: tfb.Householder(v),
    ),
    "sylvester_orthogonal": _sylvester(
        fvb.OrthogonalSylvester, lambda size, _: (size, min(size, 8))
    ),
    "sylvester_householder": _sylvester(
        fvb.HouseholderSylvester, lambda size, length: (length, size)
    ),
    "sylvester_triangular": _sylvester(fvb.TriangularSylvester, None),
    "coupling": _coupling(
        2,
        lambda kept, mask, network: fvb.Coupling(mask, _affine(network)),
        lambda kept, mask, network: tfb.RealNVP(kept, shift_and_log_scale_fn=_affine(network)),
    ),
    "additive_coupling": _coupling(
        1,
        lambda kept, mask, network: fvb.AdditiveCoupling(mask, _shift(network)),
        lambda kept, mask, network: tfb.RealNVP(
            kept,
            shift_and_log_scale_fn=lambda *a, **k: (_shift(network)(*a, **k), None),
            is_constant_jacobian=True,
        ),
    ),
    "spline_coupling": _coupling(
        3 * BINS - 1,
        lambda kept, mask, net: fvb.Coupling(mask, bijector_fn=fvb.SplineTransform(net, BINS)),
        lambda kept, mask, net: tfb.RealNVP(
            kept, bijector_fn=_of_tfp(fvb.SplineTransform(net, BINS))
        ),
    ),
    "autoregressive": _autoregressive_case(spline=False),
    "spline_autoregressive": _autoregressive_case(spline=True),
    "lu_linear": Case(_draw_factors, fvb.LULinear, (Rival("tfb.ScaleMatvecLU", _packed_lu),)),
    "act_norm": Case(
        lambda draw, size, _: [0.1 * draw(size), draw(size)],
        fvb.ActNorm,
        (
            Rival(
                "chain of Shift and Scale",
                lambda log_scale, shift: tfb.Chain([tfb.Shift(shift), tfb.Scale(None, log_scale)]),
            ),
        ),
    ),
    "contractive_residual": Case(
        _draw_residual,
        lambda *weights: fvb.ContractiveResidual(weights[:3], weights[3:]),
        parts=(FORWARD,),
        largest=40,
    ),
}
