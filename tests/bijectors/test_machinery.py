"""Every bijector class of the package in TensorFlow's machinery: loops, XLA, replicas, SavedModels.

A new class is one entry in TABLE: `name: factory`, where `factory(variable)` takes a function that
makes a float64 variable of standard normal numbers from a shape, and returns a bijector of `[D]`.
"""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae import bijectors as fvb

tfb, tfd = tfp.bijectors, tfp.distributions

D = 3
# A bijector rounds a number some hundred times on its way (D terms, K steps, solvers that end at
# rounding, exponentials of XLA's own), and those below magnify an error less than tenfold.
ROUNDINGS = 2000


class Shift(tf.Module):
    """A conditioner of which entry d depends on the entries before it."""

    def __init__(self, kernel):
        super().__init__()
        self.kernel = kernel

    def __call__(self, y, units=D):
        kernel = self.kernel * np.triu(np.ones([D, D]), 1)
        return tf.linalg.matvec(kernel[: y.shape[-1], D - units :], y, transpose_a=True)


class ShiftAndLogScale(Shift):
    def __call__(self, y, units=D):
        shift = super().__call__(y, units)
        return shift, tf.tanh(shift)


TABLE = {
    "ActNorm": lambda v: fvb.ActNorm(v(D), v(D), tf.Variable(True)),
    "AdditiveCoupling": lambda v: fvb.AdditiveCoupling(fvb.half_mask(D), Shift(v(D, D))),
    "ContractiveResidual": lambda v: fvb.ContractiveResidual(
        [v(D, 4), v(4, D)], [v(4), v(D)], lipschitz=0.5
    ),
    "Coupling": lambda v: fvb.Coupling(fvb.half_mask(D), ShiftAndLogScale(v(D, D))),
    "HouseholderFlow": lambda v: fvb.HouseholderFlow(v(2, D)),
    "HouseholderSylvester": lambda v: fvb.HouseholderSylvester(v(2, D), v(D, D), v(D, D), v(D)),
    "HouseholderSylvesterFlow": lambda v: fvb.HouseholderSylvesterFlow(
        v(2, 2, D), v(2, D, D), v(2, D, D), v(2, D)
    ),
    "LULinear": lambda v: fvb.LULinear(
        v(D, D), v(D), v(D, D), permutation=tf.range(D)[::-1], shift=v(D)
    ),
    "MarginalInverseCDF": lambda v: fvb.MarginalInverseCDF(
        tf.Variable(np.linspace([-2.0] * D, [2.0] * D, 5).T),
        tf.Variable(np.linspace([-1.0] * D, [3.0] * D, 5).T ** 3),
    ),
    "OrthogonalSylvester": lambda v: fvb.OrthogonalSylvester(v(D, 2), v(2, 2), v(2, 2), v(2)),
    "OrthogonalSylvesterFlow": lambda v: fvb.OrthogonalSylvesterFlow(
        v(2, D, 2), v(2, 2, 2), v(2, 2, 2), v(2, 2)
    ),
    "ParallelMaskedAutoregressiveFlow": lambda v: fvb.ParallelMaskedAutoregressiveFlow(
        ShiftAndLogScale(v(D, D))
    ),
    "Planar": lambda v: fvb.Planar(v(D), v(D), v()),
    "PlanarFlow": lambda v: fvb.PlanarFlow(v(2, D), v(2, D), v(2)),
    "Radial": lambda v: fvb.Radial(v(D), tf.Variable(np.float64(0.8)), v()),
    "RadialFlow": lambda v: fvb.RadialFlow(v(2, D), tf.Variable([0.8, 1.2], dtype="float64"), v(2)),
    "RationalQuadraticSpline": lambda v: fvb.RationalQuadraticSpline(
        tf.Variable([0.7, 1.3, 2.0], dtype="float64"),
        tf.Variable([1.2, 0.8, 2.0], dtype="float64"),
        tf.Variable([0.5, 2.0], dtype="float64"),
        range_min=-2.0,
    ),
    "Rotation": lambda v: fvb.Rotation(
        tf.Variable(np.linalg.qr(np.arange(9.0).reshape(D, D) ** 1.5 + np.eye(D))[0])
    ),
    "TriangularSylvester": lambda v: fvb.TriangularSylvester(
        v(D, D), v(D, D), v(D), permutation=tf.range(D)[::-1]
    ),
}
# In test_image.py.
ELSEWHERE = {
    "ChannelCoupling",
    "CheckerboardCoupling",
    "Invertible1x1Convolution",
    "LogisticMixtureLogit",
    "Logit",
    "MultiScale",
    "Squeeze",
}
# Couplings and autoregressive flows hold a Python function, as TFP's do.
OF_FUNCTIONS = {"AdditiveCoupling", "Coupling", "ParallelMaskedAutoregressiveFlow"}
# Of each kind one: plain, with a conditioner, solved in passes, and a loop.
QUICK = ("ActNorm", "Coupling", "ParallelMaskedAutoregressiveFlow", "PlanarFlow")
every_class = pytest.mark.parametrize("name", TABLE)
some_classes_quickly = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in TABLE],
)


def make(name):
    rng = np.random.default_rng(len(name))
    return TABLE[name](lambda *shape: tf.Variable(0.7 * rng.standard_normal(shape)))


def points(*shape):
    return tf.constant(np.random.default_rng(1).standard_normal([*shape, D]))


def evaluate(bijector, x):
    y, log_det = fvb.forward_and_log_det(bijector, x)
    return y, log_det, *fvb.inverse_and_log_det(bijector, y)


def looped(bijector, x):
    """The third iterate, and back."""
    there, back = bijector.forward, bijector.inverse
    for apply in (there, back):
        _, x = tf.while_loop(lambda i, _: i < 3, lambda i, x, f=apply: (i + 1, f(x)), (0, x))
    return x


@pytest.fixture
def assert_same(rounding):
    def check(got, wanted):
        for ours, theirs in zip(tf.nest.flatten(got), tf.nest.flatten(wanted), strict=True):
            np.testing.assert_allclose(ours, theirs, **rounding(ROUNDINGS, theirs))

    return check


def test_the_table_has_every_class():
    public = (getattr(fvb, name) for name in fvb.__all__)
    classes = {c.__name__ for c in public if inspect.isclass(c) and issubclass(c, tfb.Bijector)}
    # BatchNormalization holds a Keras layer, as TFP's does; others take images or single numbers.
    assert set(TABLE) == classes - {"BatchNormalization"} - ELSEWHERE


def is_composite(bijector):
    return all(part is not bijector for part in tf.nest.flatten(bijector, expand_composites=True))


@every_class
def test_is_a_composite_tensor_where_that_of_tfp_is(name):
    assert is_composite(make(name)) == (name not in OF_FUNCTIONS)


def test_which_of_tfp_are_composite_tensors():
    conditioner = ShiftAndLogScale(tf.eye(D, dtype=tf.float64))
    assert not is_composite(tfb.RealNVP(1, shift_and_log_scale_fn=conditioner))
    assert not is_composite(tfb.MaskedAutoregressiveFlow(conditioner))
    assert is_composite(tfb.Householder(tf.ones(D)))
    assert is_composite(tfb.ScaleMatvecLU(tf.eye(D), tf.range(D)))


@every_class
def test_parameter_properties_name_every_parameter_that_is_an_array(name):
    bijector = make(name)
    declared = type(bijector).parameter_properties(dtype=tf.float64)
    arrays = {k for k, v in bijector.parameters.items() if isinstance(v, tf.Variable)}
    assert arrays - {"initialized"} <= set(declared)


@some_classes_quickly
def test_chains_start_near_zero_before_it(name):
    base = tfd.MultivariateNormalDiag(tf.zeros(D, tf.float64))
    target = tfd.TransformedDistribution(base, make(name))
    start = tfp.experimental.mcmc.init_near_unconstrained_zero(target).sample(5, seed=(1, 2))
    assert start.shape == (5, D)
    assert np.all(np.isfinite(target.log_prob(start)))


@some_classes_quickly
@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_compiled(name, xla, assert_same):
    bijector, x = make(name), points(4)
    compiled = tf.function(lambda x: evaluate(bijector, x), jit_compile=xla, autograph=False)
    assert_same(compiled(x), evaluate(bijector, x))


@some_classes_quickly
def test_vectorized_map(name, assert_same):
    bijector, x = make(name), points(4)
    mapped = tf.vectorized_map(lambda row: evaluate(bijector, row), x)
    assert_same(mapped, evaluate(bijector, x))


@some_classes_quickly
def test_while_loop(name, assert_same):
    bijector, x = make(name), points(4)
    compiled = tf.function(lambda x: looped(bijector, x), autograph=False)
    assert_same(compiled(x), looped(bijector, x))


@some_classes_quickly
def test_on_a_replica(name, assert_same):
    strategy, x = tf.distribute.MirroredStrategy(["CPU:0"]), points(4)
    with strategy.scope():
        bijector = make(name)
    assert bijector.trainable_variables
    got = strategy.run(tf.function(lambda: evaluate(bijector, x), autograph=False))
    assert_same(got, evaluate(make(name), x))


def on_two_devices():
    """Compares two replicas, each with points of its own, with one device; run in a process."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy, x = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), points(2, 4)
    for name in TABLE:
        with strategy.scope():
            bijector = make(name)

        def run(bijector=bijector):
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            return evaluate(bijector, x[replica])

        got = strategy.run(tf.function(run, autograph=False))
        for part, wanted in zip(got, evaluate(make(name), x), strict=True):
            ours = np.stack(strategy.experimental_local_results(part))
            limit = ROUNDINGS * np.finfo(np.float64).eps * np.max(np.abs(wanted))
            np.testing.assert_allclose(ours, wanted, rtol=0.0, atol=limit, err_msg=name)


@pytest.mark.slow
def test_on_two_replicas(launch):
    script = f"import runpy; runpy.run_path({__file__!r})['on_two_devices']()"
    process = launch("-c", script)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output


METHODS = (
    "forward",
    "inverse",
    "forward_log_det_jacobian",
    "inverse_log_det_jacobian",
)


class Holder(tf.Module):
    """A bijector, and functions of it in the three ways that people write them."""

    def __init__(self, bijector):
        super().__init__()
        self.bijector = bijector
        spec = tf.TensorSpec([None, D], tf.float64)
        for method in METHODS:
            setattr(self, method, tf.function(getattr(bijector, method), input_signature=[spec]))
        self.free = tf.function(lambda x: fvb.forward_and_log_det(bijector, x))

    @tf.function(input_signature=[tf.TensorSpec([None, D], tf.float64)])
    def both(self, x):
        return fvb.forward_and_log_det(self.bijector, x)


def check_saved(bijector, folder, assert_same):
    holder, x = Holder(bijector), points(4)
    wanted = holder.free(x)  # what has no signature is saved as it was called
    tf.saved_model.save(holder, str(folder))
    loaded = tf.saved_model.load(str(folder))
    for method in METHODS:
        for rows in (x, x[:1]):
            found = getattr(loaded, method)(rows)
            assert_same(found, getattr(bijector, method)(tf.identity(rows)))
    assert_same((loaded.free(x), loaded.both(x)), (wanted, wanted))


@some_classes_quickly
def test_a_module_that_holds_it_is_saved_by_plain_tensorflow(name, tmp_path, assert_same):
    check_saved(make(name), tmp_path, assert_same)


@pytest.mark.parametrize(
    "bijector",
    [
        lambda: tfb.Householder(tf.Variable(points())),
        lambda: tfb.RealNVP(1, shift_and_log_scale_fn=ShiftAndLogScale(tf.Variable(points(D)))),
        lambda: tfb.MaskedAutoregressiveFlow(ShiftAndLogScale(tf.Variable(points(D)))),
    ],
    ids=["householder", "real_nvp", "autoregressive"],
)
@pytest.mark.slow
def test_and_so_is_one_that_holds_one_of_tfp(bijector, tmp_path, assert_same):
    check_saved(bijector(), tmp_path, assert_same)
