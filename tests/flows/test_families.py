"""Properties of single families of flows."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae.flows import make_flow
from tfp_flowvae.flows.stack import Stack

EITHER_WAY = pytest.mark.parametrize("context_size", [None, 3], ids=["own", "amortised"])


def _jacobian(function, z):
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        outputs = tf.unstack(function(z), axis=-1)
    zero = tf.UnconnectedGradients.ZERO
    return np.stack([tape.gradient(y, z, unconnected_gradients=zero) for y in outputs], axis=-2)


@pytest.fixture
def check(roundings, one_eps, log_det_of):
    """A function that checks the log-det, by the Jacobian, and the inverse; returns z's image."""

    def check(layer, z, context, n=roundings):
        y, log_det = layer(z, context)
        wanted, entry = log_det_of(_jacobian(lambda x: layer(x, context)[0], z))
        _, unit = one_eps(lambda x: layer(x, context), z, layer)
        assert np.all(np.abs(log_det - wanted) <= n * (unit + entry))

        def inverse(y):
            return layer.bijector(context).inverse(tf.identity(y))

        (unit,) = one_eps(inverse, y, layer)
        np.testing.assert_allclose(inverse(y), z, rtol=0, atol=2 * n * unit)
        return y

    return check


@EITHER_WAY
def test_an_odd_number_of_reflections_starts_orthogonal(context_size, small_flow, inputs, within):
    layer = small_flow("householder", context_size, length=5)
    z, context = inputs(context_size)
    y, log_det = layer(z, context)
    norm = tf.norm(z, axis=-1)
    np.testing.assert_allclose(tf.norm(y, axis=-1), norm, **within(norm))
    np.testing.assert_array_equal(log_det, tf.zeros_like(log_det))


@EITHER_WAY
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("orthogonal", {"width": 1}),
        ("orthogonal", {"width": 4}),
        ("householder", {"width": None, "reflections": 3}),
        ("triangular", {"width": None}),
    ],
)
def test_every_kind_of_sylvester_flow(
    kind, options, context_size, small_flow, stir, inputs, within, near_identity, check
):
    layer = small_flow("sylvester", context_size, kind=kind, **options)
    z, context = inputs(context_size)
    near = within(z) if context_size is None else near_identity(z, context)
    np.testing.assert_allclose(layer(z, context)[0], z, **near)
    assert np.max(np.abs(check(stir(layer), z, context) - z)) > 0.01


def test_sylvester_weights_hold_two_triangular_matrices_with_nothing_left_over(small_flow, stir):
    layer = stir(small_flow("sylvester", None, length=1, width=3))
    bijector = layer.bijector()
    triangles = layer.weights[1].numpy()[0]
    assert triangles.shape == (3, 4)
    r, r_tilde = np.triu(bijector.r), np.triu(bijector.r_tilde)
    assert np.count_nonzero(r) + np.count_nonzero(r_tilde) == triangles.size
    used = np.concatenate([r[r != 0], r_tilde[r_tilde != 0]])
    np.testing.assert_array_equal(np.sort(used), np.sort(triangles.ravel()))


def test_sylvester_layers_do_not_start_alike(small_flow):
    for kind, width in (("orthogonal", 3), ("householder", None), ("triangular", None)):
        for weight in small_flow("sylvester", None, kind=kind, width=width).weights:
            if np.any(weight.numpy()):
                assert np.max(np.abs(weight[0] - weight[1])) > 0.01, (kind, weight.path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sylvester", {"kind": "square"}),
        ("sylvester", {"width": 5}),
        ("sylvester", {"width": 0}),
        ("sylvester", {"kind": "triangular", "width": 3}),
        ("sylvester", {"kind": "householder", "width": None, "reflections": 0}),
        ("iaf", {"update": "other"}),
        ("realnvp", {"mask": "other"}),
        ("spline", {"bins": 1}),
        ("spline-maf", {"bound": 0.0}),
        ("residual", {"hidden": ()}),
        ("residual", {"lipschitz": 1.0}),
        ("permute", {"order": "other"}),
        ("permute", {"seed": -1}),
    ],
)
def test_what_a_family_does_not_take_is_refused_when_it_is_made(name, options, small_flow):
    key = list(options)[-1]
    with pytest.raises(ValueError, match=rf"Received: .*{key}="):
        small_flow(name, None, **options)


@pytest.mark.parametrize("name", ["realnvp", "nice", "spline"])
def test_an_alternating_mask_keeps_even_and_odd_places_in_turn(
    name, small_flow, stir, inputs, check
):
    z, _ = inputs(None)
    for length, kept in ((1, [0, 2]), (2, [])):
        layer = stir(small_flow(name, None, mask="alternating", length=length), 0.1)
        y = check(layer, z, None)
        fixed = [place for place in range(4) if np.all(y[:, place] == z[:, place])]
        # The scaling at the end of NICE moves all.
        assert fixed == ([] if name == "nice" else kept)


@EITHER_WAY
@pytest.mark.parametrize("name", ["iaf", "maf"])
def test_the_gated_update_in_one_pass_is_that_of_the_paper(
    name, context_size, small_flow, stir, inputs, check, within, assert_same
):
    layer = small_flow(name, context_size, update="gated", length=1)
    z, context = inputs(context_size)
    bijector = layer.bijector(context)
    one_pass = bijector.forward if name == "iaf" else bijector.inverse
    wanted = z / (1.0 + np.exp(-2.0))
    np.testing.assert_allclose(one_pass(tf.identity(z)), wanted, **within(wanted))
    check(stir(layer), z, context)

    def update(z, context=None):
        m, s = tf.unstack(layer._networks[0](z, context=context), axis=-1)
        gate = tf.sigmoid(3.0 * tf.tanh(s / 3.0) + 2.0)
        return gate * z + (1.0 - gate) * m

    assert_same(one_pass(tf.identity(z)), update, layer, z, context)


@pytest.mark.parametrize("name", ["spline", "spline-iaf"])
def test_a_spline_leaves_alone_what_is_beyond_its_bound(name, small_flow, stir, inputs, check):
    layer = stir(small_flow(name, None, bound=0.5))
    z, _ = inputs(None)
    y = check(layer, z, None).numpy()
    outside = np.abs(z) > 0.5
    np.testing.assert_array_equal(y[outside], z.numpy()[outside])
    assert np.all(y[~outside] != z.numpy()[~outside])


def test_the_slow_direction_of_a_spline_is_one_sweep(small_flow, stir, inputs):
    bijector = stir(small_flow("spline-maf", None, length=1)).bijector()
    assert bijector.num_passes(inputs(None)[0]) == 1


def test_nice_keeps_volumes_up_to_its_scaling(small_flow, stir, inputs, within):
    layer = stir(small_flow("nice", None))
    scaling = next(weight for weight in layer.weights if weight.path.endswith("log_scale"))
    _, log_det = layer(inputs(None)[0])
    wanted = tf.fill(log_det.shape, tf.reduce_sum(scaling.value))
    np.testing.assert_allclose(log_det, wanted, **within(scaling))


def test_a_residual_flow_keeps_its_bound_in_every_context(small_flow, stir, inputs):
    layer = stir(small_flow("residual", 3, length=1, lipschitz=0.5), scale=3.0)
    z, context = inputs(3)
    bijector = layer.bijector(context)
    slopes = np.linalg.svd(_jacobian(lambda x: bijector.forward(x) - x, z), compute_uv=False)
    assert 0.05 < slopes.max() <= 0.5  # the bound, which is not reached by rounding alone
    assert [kernel.shape.rank for kernel in bijector.kernels] == [2, 2]
    assert [bias.shape.rank for bias in bijector.biases] == [2, 2]


def test_an_amortised_lu_flow_is_the_linear_map_of_its_matrix(
    small_flow, stir, inputs, check, within
):
    layer = stir(small_flow("lu", 3))
    z, context = inputs(3)
    matrix, shift = layer.parameters(context).values()
    lower = np.tril(matrix, -1) + np.eye(4)
    upper = np.triu(matrix, 1) + np.eye(4) * np.exp(matrix)
    wanted = (lower @ upper @ z.numpy()[..., np.newaxis])[..., 0] + shift
    # Sums of products, whose terms are at most this large.
    size = np.abs(lower) @ np.abs(upper) @ np.abs(z.numpy())[..., np.newaxis]
    np.testing.assert_allclose(check(layer, z, context), wanted, **within(size, shift))


def test_a_permutation_is_the_same_for_the_same_seed(small_flow, inputs):
    z, _ = inputs(None)
    orders = {}
    for options in ({"order": "reverse"}, {"order": "alternating"}, {"seed": 0}, {"seed": 1}):
        layer, again = (small_flow("permute", None, **options) for _ in range(2))
        assert layer.weights == []
        y = layer(z)[0].numpy()
        np.testing.assert_array_equal(y, again(z)[0])
        np.testing.assert_array_equal(np.sort(y), np.sort(z))
        orders[str(options)] = y.tobytes()
    assert len(set(orders.values())) == 4
    np.testing.assert_array_equal(small_flow("permute", None, order="reverse")(z)[0], z[:, ::-1])


MIXED = (
    "affine+permute:seed=1+realnvp:1,hidden=8,mask=alternating+lu+sylvester:1,width=2"
    "+spline:1,hidden=8,bins=4+permute:order=reverse+nice:1,hidden=8+residual:1,hidden=8"
    "+householder:2+planar:1"
)


@pytest.mark.parametrize("context_size", [pytest.param(None, id="own", marks=pytest.mark.slow), 3])
def test_a_stack_of_many_families(context_size, stir, inputs, roundings, assert_same, check):
    stack = make_flow(MIXED, 4, context_size)
    double = Stack(
        [type(flow).from_config({**flow.get_config(), "dtype": "float64"}) for flow in stack.flows],
        event_size=4,
        context_size=context_size,
        dtype="float64",
    )
    double.build()
    stir(double, 0.1)
    z, context = inputs(context_size)
    n = len(stack.flows) * roundings
    check(double, z, context, n)
    stack.set_weights(double.get_weights())
    points = inputs(context_size, "float32")
    wanted = [tf.cast(part, tf.float32) for part in double(z, context)]
    assert_same(wanted, stack, stack, *points, n=n)
    batch = [] if context_size is None else [len(z)]
    base = tfp.distributions.MultivariateNormalDiag(tf.zeros([*batch, 4]), tf.ones([*batch, 4]))

    def distribution(context=None):
        return tfp.distributions.TransformedDistribution(base, stack.bijector(context))

    def log_prob(z, context=None):
        return distribution(context).log_prob(z)

    sample, found = distribution(points[1]).experimental_sample_and_log_prob(3, seed=1)
    assert_same(found, log_prob, stack, sample, points[1], n=2 * n)  # there and back


def test_a_stack_of_many_families_comes_back_from_a_file(
    stir, inputs, tmp_path, roundings, assert_same
):
    stack = stir(make_flow(MIXED, 4, context_size=3), 0.1)
    arguments = [keras.Input([4]), keras.Input([3])]
    model = keras.Model(arguments, stack(*arguments))
    model.save(tmp_path / "flow.keras")
    again = keras.models.load_model(tmp_path / "flow.keras")
    points = inputs(3, "float32")
    n = len(stack.flows) * roundings
    assert_same(again(points), stack, stack, *points, n=n)
