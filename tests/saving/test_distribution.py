"""Any distribution as a SavedModel: its numbers, variables and shapes, in plain TensorFlow."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flowvae as fv
from tfp_flowvae import bijectors as fvb
from tfp_flowvae.errors import UserError
from tfp_flowvae.saving.distribution_endpoints import plain

tfb, tfd = tfp.bijectors, tfp.distributions

SEED = 3
# Eagerly operations run one by one; in a graph they may be fused and reordered. The distributions
# below round a number some tens of times.
ROUNDINGS = 64


class Triangular(tf.Module):
    """Shift and log-scale from the dimensions before, with a variable."""

    def __init__(self, kernel):
        super().__init__()
        self.kernel = kernel

    def __call__(self, y):
        h = tf.tanh(tf.matmul(y, self.kernel * np.triu(np.ones([3, 3], np.float32), 1)))
        return h, 0.5 * h


def coroutine(variable):
    log_scale = variable(0.5)

    def model():
        a = yield tfd.Normal(0.0, tf.exp(log_scale), name="a")
        yield tfd.Sample(tfd.Normal(a, 1.0), [2], name="b")

    return model


def rooted(variable):
    root, loc = tfd.JointDistributionCoroutine.Root, variable(0.5)

    def model():
        a = yield root(tfd.Normal(loc, 1.0, name="a"))
        yield tfd.Independent(tfd.Normal(a[..., tf.newaxis] * tf.ones(2), 1.0), 1, name="b")

    return model


def with_a_closure(variable):
    scale = variable(2.0)
    bijector = tfb.RealNVP(2, shift_and_log_scale_fn=lambda x, size, **_: (x * scale, x))
    return tfd.TransformedDistribution(tfd.MultivariateNormalDiag(tf.zeros(4)), bijector)


# `make(variable)`, where `variable(value)` makes a variable; those of closures are found, too.
TABLE = {
    "normal": lambda variable: tfd.Normal(
        variable(1.0), tfp.util.DeferredTensor(variable(0.3), tf.exp)
    ),
    "batch": lambda variable: tfd.Normal(variable([[0.0], [1.0], [2.0]]), variable([1.0, 2.0])),
    "mvn": lambda variable: tfd.MultivariateNormalTriL(variable([1.0, 2.0, 3.0]), 2 * tf.eye(3)),
    "categorical": lambda variable: tfd.Categorical(variable([0.1, 0.2, 0.3])),
    "bernoulli": lambda variable: tfd.Independent(
        tfd.Bernoulli(variable([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])), 2
    ),
    "poisson": lambda variable: tfd.Poisson(variable([1.0, 2.0])),
    "gamma": lambda variable: tfd.Gamma(variable([1.0, 2.0]), 1.0, validate_args=True),
    "float64": lambda variable: tfd.Beta(variable(np.float64(1.5)), np.float64(2.0)),
    "dirichlet": lambda variable: tfd.Dirichlet(variable([1.0, 2.0, 3.0])),
    "log_normal": lambda variable: tfd.LogNormal(variable(0.5), 1.0),
    "same_family": lambda variable: tfd.MixtureSameFamily(
        tfd.Categorical(variable([0.0, 0.5, 0.2])),
        tfd.MultivariateNormalDiag(variable([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])),
    ),
    "mixture": lambda variable: tfd.Mixture(
        tfd.Categorical([0.0, 0.0]), [tfd.Normal(variable(0.2), 1.0), tfd.Laplace(0.0, 1.0)]
    ),
    "autoregressive": lambda variable: tfd.TransformedDistribution(
        tfd.Sample(tfd.Normal(0.0, 1.0), [3]),
        tfb.MaskedAutoregressiveFlow(Triangular(variable(np.full([3, 3], 0.5, np.float32)))),
    ),
    "chain": lambda variable: tfd.TransformedDistribution(
        tfd.MultivariateNormalDiag(tf.zeros(2)),
        tfb.Chain(
            [
                fvb.PlanarFlow(variable([[0.4, -0.2]]), variable([[0.5, 0.3]]), variable([0.1])),
                tfb.Shift(variable([1.0, 2.0])),
                fvb.HouseholderFlow(variable([[0.6, 0.8]])),
            ]
        ),
    ),
    "closure": with_a_closure,
    "batch_of_flows": lambda variable: tfd.TransformedDistribution(
        tfd.MultivariateNormalDiag(tf.zeros([3, 2])),
        fvb.Planar(variable([0.2, 0.1]), tf.ones(2), 0.0),
    ),
    "named": lambda variable: tfd.JointDistributionNamed(
        {
            "z": tfd.Normal(variable(0.5), 1.0),
            "x": lambda z: tfd.Independent(tfd.Normal(z[..., tf.newaxis] * tf.ones(3), 1.0), 1),
        }
    ),
    "sequential": lambda variable: tfd.JointDistributionSequential(
        [tfd.Gamma(variable(2.0), 1.0), lambda rate: tfd.Poisson(rate)]
    ),
    "coroutine": lambda variable: tfd.JointDistributionCoroutine(rooted(variable)),
    "auto_batched": lambda variable: tfd.JointDistributionCoroutineAutoBatched(coroutine(variable)),
    "transformed_joint": lambda variable: tfd.TransformedDistribution(
        tfd.JointDistributionSequentialAutoBatched([tfd.Normal(0.0, 1.0), tfd.Normal(0.0, 2.0)]),
        tfb.JointMap([tfb.Exp(), tfb.Scale(variable(2.0))]),
    ),
    "markov_chain": lambda variable: tfd.MarkovChain(
        tfd.Normal(variable(0.5), 1.0), lambda _, x: tfd.Normal(x, 1.0), num_steps=4
    ),
}
every_distribution = pytest.mark.parametrize("name", TABLE)


def leaves(value):
    return tf.nest.flatten(plain(value))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A function from a name to the distribution, its variables, and the folder written once."""
    made = {}

    def export(name):
        if name not in made:
            held = []

            def variable(value):
                held.append(tf.Variable(value, name=f"v{len(held)}"))
                return held[-1]

            path = tmp_path_factory.mktemp(name) / "export"
            distribution = TABLE[name](variable)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                fv.export_distribution(distribution, path)
            assert not [w for w in caught if "is exported without" in str(w.message)]
            made[name] = distribution, held, path, tf.saved_model.load(str(path))
        return made[name]

    return export


@pytest.fixture
def assert_same(rounding):
    def check(got, wanted):
        for ours, theirs in zip(leaves(got), leaves(wanted), strict=True):
            assert ours.dtype == theirs.dtype
            assert ours.shape == theirs.shape
            if ours.dtype.is_integer:
                np.testing.assert_array_equal(ours, theirs)
            else:
                np.testing.assert_allclose(ours, theirs, **rounding(ROUNDINGS, theirs))

    return check


def draw(distribution, n):
    return distribution.sample(n, seed=[SEED, 0])


@every_distribution
def test_numbers_are_those_of_the_distribution(name, exported, assert_same):
    distribution, _, _, served = exported(name)
    x = draw(distribution, 4)
    log_prob = distribution.log_prob(tf.nest.map_structure(tf.identity, x))
    assert_same(served.sample(4, SEED)["x"], x)
    assert_same(served.sample(tf.constant(4), tf.constant([SEED, 0]))["x"], x)
    assert_same(served.log_prob(plain(x))["log_prob"], log_prob)
    both = served.sample_and_log_prob(4, SEED)
    assert_same(both["x"], x)
    assert_same(both["log_prob"], log_prob)
    assert_same(served.sample(1, SEED)["x"], draw(distribution, 1))


@every_distribution
def test_any_leading_dimensions(name, exported, assert_same):
    distribution, _, _, served = exported(name)
    x = plain(draw(distribution, 4))
    log_prob = served.log_prob(x)["log_prob"]
    nested = tf.nest.map_structure(lambda part: tf.reshape(part, [2, 2, *part.shape[1:]]), x)
    assert_same(
        served.log_prob(nested)["log_prob"], tf.reshape(log_prob, [2, 2, *log_prob.shape[1:]])
    )
    one = tf.nest.map_structure(lambda part: part[0], x)
    assert_same(served.log_prob(one)["log_prob"], log_prob[0])
    none = served.sample(0, SEED)["x"]
    assert [part.shape for part in leaves(none)] == [(0, *part.shape[1:]) for part in leaves(x)]
    assert served.log_prob(none)["log_prob"].shape == (0, *log_prob.shape[1:])


@every_distribution
def test_variables_can_be_assigned(name, exported, assert_same):
    distribution, held, path, _ = exported(name)
    served = tf.saved_model.load(str(path))
    loaded = {variable.name: variable for variable in served.trainable_variables}
    assert set(loaded) == {variable.name for variable in held}
    assert len(served.variables) == len(held)
    x = draw(distribution, 4)
    before = served.log_prob(plain(x))["log_prob"]
    old = [variable.numpy() for variable in held]
    try:
        for variable in held:
            moved = 1.1 * variable + 0.05
            variable.assign(moved)
            loaded[variable.name].assign(moved)
        after = served.log_prob(plain(x))["log_prob"]
        assert_same(after, distribution.log_prob(tf.nest.map_structure(tf.identity, x)))
        assert np.all(np.any(np.abs(after - before) > 0.0))
    finally:
        for variable, value in zip(held, old, strict=True):
            variable.assign(value)


@every_distribution
def test_the_distribution_comes_back(name, exported, assert_same):
    distribution, held, path, served = exported(name)
    loaded = fv.load_distribution(path)
    assert isinstance(loaded, tfd.Distribution)
    for kind in ("dtype", "event_shape", "batch_shape"):
        assert leaves(getattr(loaded, kind)) == leaves(getattr(distribution, kind))
    assert len(loaded.trainable_variables) == len(held)
    assert_same(loaded.sample(4, seed=SEED), served.sample(4, SEED)["x"])
    x, log_prob = loaded.experimental_sample_and_log_prob([2, 3], seed=SEED)
    assert log_prob.shape[:2] == [2, 3]
    assert_same(loaded.log_prob(x), log_prob)


TRANSFORMED = [
    "mvn",
    "log_normal",
    "autoregressive",
    "chain",
    "batch_of_flows",
    "transformed_joint",
]


@pytest.mark.parametrize("name", TRANSFORMED)
def test_bijectors_both_ways(name, exported, assert_same):
    distribution, _, path, served = exported(name)
    z = distribution.distribution.sample([2, 2], seed=[SEED, 0])
    x = distribution.bijector.forward(z)
    assert_same(served.forward(plain(z))["x"], x)
    wanted = distribution.bijector.inverse(tf.nest.map_structure(tf.identity, x))
    assert_same(served.inverse(plain(x))["z"], wanted)
    loaded = fv.load_distribution(path)
    assert_same(loaded.forward(plain(z)), x)
    assert_same(loaded.inverse(plain(x)), wanted)


def test_others_have_no_forward(exported):
    _, _, _, served = exported("normal")
    assert not hasattr(served, "forward")


PLAIN = """
import tensorflow as tf
answers = []
for path in sys.argv[1:]:
    served = tf.saved_model.load(path)
    x = served.sample(3, 3)["x"]
    log_prob = served.log_prob(x)["log_prob"]
    assert served.sample(0, 3) and served.sample_and_log_prob(2, [1, 2])
    for variable in served.trainable_variables:
        variable.assign_add(0.1 * tf.ones_like(variable))
    moved = served.log_prob(x)["log_prob"]
    parts = [*tf.nest.flatten(x), log_prob, moved]
    answers.append([part.numpy().tolist() for part in parts])
"""


def test_runs_where_only_tensorflow_is(exported, answers_of_plain_tensorflow, rounding):
    names = ("chain", "auto_batched", "sequential", "gamma")  # of each kind
    answers = answers_of_plain_tensorflow(PLAIN, *(str(exported(name)[2]) for name in names))
    for name, answer in zip(names, answers, strict=True):
        distribution, _, _, _ = exported(name)
        x = draw(distribution, 3)
        wanted = [*leaves(x), distribution.log_prob(tf.nest.map_structure(tf.identity, x))]
        for got, value in zip(answer, wanted, strict=False):
            np.testing.assert_allclose(got, value, **rounding(ROUNDINGS, value))
        assert np.all(np.abs(np.subtract(answer[-1], answer[-2])) > 0.0)


def test_gradients_after_loading(exported, assert_same):
    """Those of custom gradients too: of the planar inverse, and of a gamma sample's shape."""
    for name in ("chain", "gamma"):
        distribution, held, _, served = exported(name)
        loaded = {variable.name: variable for variable in served.trainable_variables}
        x = draw(distribution, 4)
        with tf.GradientTape(persistent=True) as tape:
            ours = served.log_prob(x)["log_prob"], served.sample(4, SEED)["x"]
            theirs = distribution.log_prob(tf.identity(x)), draw(distribution, 4)
        for mine, value in zip(ours, theirs, strict=True):
            got = tape.gradient(mine, [loaded[variable.name] for variable in held])
            assert_same(got, tape.gradient(value, held))


def test_a_loaded_distribution_in_another(exported):
    _, _, path, _ = exported("chain")
    loaded = fv.load_distribution(path)
    moved = tfd.TransformedDistribution(loaded, tfb.Scale(2.0))
    x, log_prob = moved.experimental_sample_and_log_prob(5, seed=(1, 2))
    wanted = loaded.log_prob(0.5 * x) - 2 * np.log(2.0)
    # eps times ten operations on numbers up to 10 or so
    np.testing.assert_allclose(log_prob, wanted, atol=100 * np.finfo(np.float32).eps)
    assert len(moved.trainable_variables) == 5


def test_a_function_of_a_context(tmp_path, assert_same):
    keras.utils.set_random_seed(0)
    layer = fv.FlowDistribution("realnvp:1,hidden=4", event_size=2, context_size=3)
    layer.build((None, 2), (None, 3))
    fv.export_distribution(layer.distribution, tmp_path / "out", tf.TensorSpec([None, 3]))
    served = tf.saved_model.load(str(tmp_path / "out"))
    loaded = fv.load_distribution(tmp_path / "out")
    assert len(served.trainable_variables) == len(layer.trainable_variables)
    assert len(loaded.trainable_variables) == len(layer.trainable_variables)
    for batch in (0, 1, 5):
        context = tf.constant(np.random.default_rng(batch).normal(size=(batch, 3)), tf.float32)
        wanted = layer.distribution(context)
        x = draw(wanted, 4)
        assert_same(served.sample(4, SEED, context)["x"], x)
        log_prob = wanted.log_prob(tf.identity(x))
        assert_same(served.log_prob(x, context)["log_prob"], log_prob)
        assert loaded(context).batch_shape == [batch]
        assert_same(loaded(context).log_prob(x), log_prob)
        assert_same(served.inverse(x, context)["z"], wanted.bijector.inverse(tf.identity(x)))


def test_a_nest_of_contexts_and_a_function_of_tfp_alone(tmp_path):
    spec = {"loc": tf.TensorSpec([None, 2]), "scale": tf.TensorSpec([])}
    fv.export_distribution(
        lambda context: tfd.MultivariateNormalDiag(
            context["loc"], scale_diag=context["scale"] * tf.ones(2)
        ),
        tmp_path / "out",
        spec,
    )
    context = {"loc": tf.zeros([3, 2]), "scale": tf.constant(2.0)}
    loaded = fv.load_distribution(tmp_path / "out")(context)
    assert loaded.sample(5, seed=0).shape == (5, 3, 2)
    wanted = tfd.MultivariateNormalDiag(tf.zeros([3, 2]), 2.0 * tf.ones(2)).log_prob(tf.ones(2))
    np.testing.assert_array_equal(loaded.log_prob(tf.ones(2)), wanted)
    served = tf.saved_model.load(str(tmp_path / "out"))
    inputs = served.signatures["log_prob"].structured_input_signature[1]
    assert set(inputs) == {"x", "context_loc", "context_scale"}


def test_signatures(exported):
    served = exported("named")[-1]
    for name, inputs, outputs in (
        ("sample", {"n", "seed"}, {"x_x", "x_z"}),
        ("log_prob", {"x_x", "x_z"}, {"log_prob"}),
        ("sample_and_log_prob", {"n", "seed"}, {"x_x", "x_z", "log_prob"}),
    ):
        signature = served.signatures[name]
        assert set(signature.structured_input_signature[1]) == inputs
        assert set(signature.structured_outputs) == outputs
    x = served.sample(2, SEED)["x"]
    by_signature = served.signatures["log_prob"](x_x=x["x"], x_z=x["z"])["log_prob"]
    np.testing.assert_array_equal(by_signature, served.log_prob(x)["log_prob"])


class WithoutDensity(tfd.Distribution):
    def __init__(self, event_shape=()):
        self.shape = tf.TensorShape(event_shape)
        super().__init__(tf.float32, tfd.NOT_REPARAMETERIZED, False, True, name="WithoutDensity")

    def _event_shape(self):
        return self.shape

    def _batch_shape(self):
        return tf.TensorShape([])

    def _sample_n(self, n, seed=None):
        return tf.random.stateless_uniform([n], tfp.random.sanitize_seed(seed))


class WithoutSamples(WithoutDensity):
    _sample_n = tfd.Distribution._sample_n

    def _log_prob(self, x):
        return -tf.square(x)


def test_what_is_not_implemented_is_left_out_and_named(tmp_path):
    message = "'WithoutDensity' is exported without log_prob, sample_and_log_prob: NotImpl"
    with pytest.warns(UserWarning, match=message):
        fv.export_distribution(WithoutDensity(), tmp_path / "sampler")
    loaded = fv.load_distribution(tmp_path / "sampler")
    assert loaded.sample(3, seed=0).shape == (3,)
    with pytest.raises(NotImplementedError, match="log_prob is not part of the exported"):
        loaded.log_prob(0.0)
    with pytest.warns(UserWarning, match="'WithoutSamples' is exported without sample, sample_and"):
        fv.export_distribution(WithoutSamples(name="WithoutSamples"), tmp_path / "density")
    loaded = fv.load_distribution(tmp_path / "density")
    np.testing.assert_array_equal(loaded.log_prob([0.0, 2.0]), [0.0, -4.0])
    assert loaded.dtype == tf.float32


def test_wrong_event_size(exported):
    served = exported("mvn")[-1]
    for shape in ([4, 2], []):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"x must have shape \[..., 3\]"):
            served.log_prob(tf.ones(shape))


def unknown_event_shape():
    shape = tf.Variable([1.0], shape=[None])
    return tfd.MultivariateNormalDiag(shape)


@pytest.mark.parametrize(
    ("distribution", "context_spec", "message"),
    [
        (unknown_event_shape, None, "with a known event shape"),
        (lambda: tfb.Exp(), None, "takes a tfd.Distribution, or a function from a context"),
        (lambda: tfd.Normal(0.0, 1.0), tf.TensorSpec([]), "A distribution takes no context"),
        (lambda: lambda c: tfd.Normal(c, 1.0), None, "needs context_spec, a tf.TensorSpec"),
        (
            lambda: lambda c: tfd.MultivariateNormalDiag(tf.zeros(2) + c),
            tf.TensorSpec([None, 3]),
            r"does not take a context of context_spec=TensorSpec\(shape=\(None, 3\)",
        ),
        (lambda: lambda c: c, tf.TensorSpec([]), "must return a tfd.Distribution for a context"),
        (
            lambda: tfd.TransformedDistribution(
                tfd.Normal(0.0, 1.0),
                tfb.Inline(forward_fn=lambda x: tf.numpy_function(np.exp, [x], tf.float32)),
            ),
            None,
            "runs Python code",
        ),
    ],
)
def test_refusals(distribution, context_spec, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        fv.export_distribution(distribution(), tmp_path / "out", context_spec)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(tmp_path):
    with pytest.raises(UserError, match="exists; choose another path"):
        fv.export_distribution(tfd.Normal(0.0, 1.0), tmp_path)


def test_a_folder_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    def fails(served, path, signatures):
        tf.io.gfile.makedirs(path)
        (tmp_path / "seen").write_text(path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", fails)
    with pytest.raises(UserError, match=r"Cannot write .*: No space left on device"):
        fv.export_distribution(tfd.Normal(0.0, 1.0), tmp_path / "out")
    assert (tmp_path / "seen").read_text() != str(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["seen"]


def test_load_refuses_what_is_no_distribution(tmp_path):
    with pytest.raises(UserError, match="holds no SavedModel"):
        fv.load_distribution(tmp_path)
    tf.saved_model.save(tf.Module(), str(tmp_path))
    with pytest.raises(UserError, match="holds another SavedModel than export_distribution"):
        fv.load_distribution(tmp_path)
