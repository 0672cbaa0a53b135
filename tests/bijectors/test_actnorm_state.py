"""ActNorm's flag and values in checkpoints, SavedModels, replicas and control flow."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from numpy.testing import assert_allclose, assert_array_equal

from tfp_flowvae import bijectors as fvb

tfb, tfd = tfp.bijectors, tfp.distributions

MEAN, STD = np.array([5.0, -2.0, 0.0]), np.array([0.1, 4.0, 1.0])


def data(count=200):
    return np.float32(MEAN + STD * np.random.default_rng(count).standard_normal((count, 3)))


def test_checkpoint_keeps_flag_and_values(tmp_path):
    act_norm = fvb.ActNorm.create(3)
    act_norm.initialize(data())
    path = tf.train.Checkpoint(bijector=act_norm).write(str(tmp_path / "checkpoint"))
    other = fvb.ActNorm.create(3)
    tf.train.Checkpoint(bijector=other).read(path).assert_consumed()
    other.initialize(7.0 * data())
    assert_array_equal(other.log_scale, act_norm.log_scale)


def test_saved_model_keeps_flag_and_values_and_can_initialize(tmp_path, rounding):
    module = tf.Module()
    module.bijector = fvb.ActNorm.create(3)
    spec = tf.TensorSpec([None, 3], tf.float32)
    module.initialize = tf.function(module.bijector.initialize, input_signature=[spec])
    module.forward = tf.function(module.bijector.forward, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "before"))
    module.initialize(data())
    tf.saved_model.save(module, str(tmp_path / "after"))
    wanted = module.forward(data())
    for name in ("before", "after"):
        loaded = tf.saved_model.load(str(tmp_path / name))
        loaded.initialize(data() if name == "before" else 7.0 * data())
        # A product and a sum of numbers of this size, after a scale and a shift that are computed
        # from the data before: both rounded anew.
        assert_allclose(loaded.forward(data()), wanted, **rounding(4, data() / np.float32(STD)))


# Logical devices have to be set up before TensorFlow starts: a process of its own.
DISTRIBUTED = """
    import numpy as np, tensorflow as tf
    from tfp_flowvae import bijectors as fvb

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        act_norm = fvb.ActNorm.create(3)
    parts = [np.float32(np.random.default_rng(i).normal(i, 1 + i, [10 + i, 3])) for i in (0, 1)]
    x = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(parts[context.replica_id_in_sync_group])
    )
    initialize = tf.function(lambda x: strategy.run(act_norm.initialize, args=(x, "inverse")))
    for scale in (1.0, 5.0):
        initialize(strategy.run(lambda x: scale * x, args=(x,)))
        whole = np.concatenate(parts)
        # Sums of 21 terms, and of their squares in units of the standard deviation.
        error = 21 * np.finfo(np.float32).eps * np.max(np.abs(whole), axis=0)
        spread = error / whole.std(0)
        assert len(strategy.experimental_local_results(act_norm.shift)) == 2
        for copy in strategy.experimental_local_results(act_norm.shift):
            assert np.all(np.abs(copy - whole.mean(0)) <= error)
        for copy in strategy.experimental_local_results(act_norm.log_scale):
            assert np.all(np.abs(copy - np.log(whole.std(0))) <= spread)
    with strategy.scope():
        other = fvb.ActNorm.create(3)
    other.initialize(whole, "inverse")  # the whole batch, outside of the replicas
    for copy in strategy.experimental_local_results(other.shift):
        assert np.all(np.abs(copy - whole.mean(0)) <= error)
    print("equal on both")
"""


@pytest.mark.slow
def test_replicas_share_the_statistics_of_the_global_batch():
    command = [sys.executable, "-c", textwrap.dedent(DISTRIBUTED)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert "equal on both" in result.stdout, result.stderr[-2000:]


WAYS = {
    "returned": lambda thing: tf.function(lambda: thing)(),
    "cond": lambda thing: tf.function(lambda p: tf.cond(p, lambda: thing, lambda: thing))(
        tf.constant(True)
    ),
    "while_loop": lambda thing: tf.function(
        lambda: tf.while_loop(lambda i, _: i < 2, lambda i, t: (i + 1, t), (0, thing))[1]
    )(),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_works_as_a_composite_tensor(direction, way):
    act_norm = fvb.ActNorm.create(3)
    act_norm.initialize(data(), direction)
    there = WAYS[way](act_norm)
    assert isinstance(there, fvb.ActNorm)
    assert bool(there.initialized)
    for got, wanted in zip(
        there.forward_and_log_det(data()), act_norm.forward_and_log_det(data()), strict=True
    ):
        assert_array_equal(got, wanted)
    with pytest.raises(TypeError, match=r"Received: log_scale of type \w*Tensor\."):
        there.initialize(data())
    base = tfd.MultivariateNormalDiag(tf.zeros([3]))
    for bijector in (act_norm, tfb.Invert(act_norm), tfb.Chain([tfb.Scale(2.0), act_norm])):
        model = tfd.TransformedDistribution(base, bijector)
        assert_array_equal(WAYS[way](model).log_prob(data()), model.log_prob(data()))
