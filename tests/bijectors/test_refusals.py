"""What planar, radial and Householder bijectors refuse, and how they say so."""

import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae import bijectors as fvb

K, D = 3, 4
EVENT_SHAPES = {
    fvb.Planar: {"u": (D,), "w": (D,), "b": ()},
    fvb.PlanarFlow: {"u": (K, D), "w": (K, D), "b": (K,)},
    fvb.Radial: {"center": (D,), "alpha": (), "beta": ()},
    fvb.RadialFlow: {"center": (K, D), "alpha": (K,), "beta": (K,)},
    fvb.HouseholderFlow: {"v": (K, D)},
}
every_class = pytest.mark.parametrize("cls", EVENT_SHAPES, ids=lambda cls: cls.__name__)


def draw_parameters(cls, batch=(), dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    draws = {n: rng.normal(size=(*batch, *s)) for n, s in EVENT_SHAPES[cls].items()}
    if "alpha" in draws:
        draws["alpha"] = np.exp(draws["alpha"])
    return {name: draw.astype(dtype) for name, draw in draws.items()}


@every_class
def test_wrong_event_size_of_the_input(cls):
    bijector = cls(**draw_parameters(cls))
    for method in (bijector.forward, bijector.inverse, bijector.forward_log_det_jacobian):
        with pytest.raises(ValueError, match=rf"{cls.__name__}.*D=4.*Received: shape \(2, 3\)"):
            method(tf.zeros([2, 3]))
    with pytest.raises(ValueError, match=r"Received: shape \(2, 1\)"):
        bijector.forward(tf.zeros([2, 1]))  # would broadcast
    with pytest.raises(ValueError, match=r"Received: shape \(\)"):
        bijector.forward_and_log_det(1.0)
    dynamic = tf.function(bijector.forward, input_signature=[tf.TensorSpec([None, None])])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[2,1\].*\[\?,4\]"):
        dynamic(tf.zeros([2, 1]))
    with pytest.raises((TypeError, ValueError), match="int32"):
        bijector.forward(tf.zeros([2, D], tf.int32))


@every_class
def test_wrong_parameters(cls):
    drawn = draw_parameters(cls)
    vector = next(iter(drawn))
    with pytest.raises(TypeError, match=rf"{cls.__name__}.*Received:.*{vector}.dtype=int32"):
        cls(**{**drawn, vector: np.ones_like(drawn[vector], np.int32)})
    with pytest.raises(ValueError, match=rf"{vector} has too few dim.*{vector}.shape=\(\)"):
        cls(**{**drawn, vector: 1.0})
    with pytest.raises(
        ValueError,
        match=rf"D is 0 in {vector}.*{vector}.shape=\({'3, ' * (len(drawn[vector].shape) - 1)}0",
    ):
        cls(**{**drawn, vector: drawn[vector][..., :0]})
    for bad in (np.nan, np.inf):
        broken = drawn[vector].copy()
        broken.flat[1] = bad
        with pytest.raises(ValueError, match=rf"finite.*Received: {vector} holding {bad}"):
            cls(**{**drawn, vector: broken}, validate_args=True)
        variable = tf.Variable(drawn[vector])
        live = cls(**{**drawn, vector: variable}, validate_args=True)
        variable.assign(broken)
        with pytest.raises(ValueError, match=rf"finite.*Received: {vector} holding {bad}"):
            live.forward(tf.zeros([D]))
        with pytest.raises(tf.errors.InvalidArgumentError, match=rf"finite.*{vector}"):
            tf.function(live.forward)(tf.zeros([D]))


@pytest.mark.parametrize("cls", [fvb.PlanarFlow, fvb.RadialFlow, fvb.HouseholderFlow])
def test_empty_stack(cls):
    with pytest.raises(ValueError, match=r"K is 0 in \w+\. Received: \w+\.shape=\(0"):
        cls(**{name: value[:0] for name, value in draw_parameters(cls).items()})


@every_class
def test_parameters_that_do_not_fit_together(cls):
    drawn = draw_parameters(cls, (2,))
    if len(drawn) == 1:
        pytest.skip("has one parameter")
    first, second = list(drawn)[:2]
    with pytest.raises(ValueError, match=r"do not broadcast.*Received:.*shape=\(3"):
        cls(**{**drawn, second: np.ones((3, *EVENT_SHAPES[cls][second]), np.float32)})
    with pytest.raises(TypeError, match=rf"{first}.dtype=float64"):
        cls(**{**drawn, first: drawn[first].astype(np.float64)})
    if "w" in drawn:
        with pytest.raises(ValueError, match=r"D is 4 and, in w, 3\. Received: u.shape="):
            cls(**{**drawn, "w": drawn["w"][..., :3]})
    if EVENT_SHAPES[cls][first] == (K, D):
        with pytest.raises(ValueError, match=r"K is 3 and, in \w+, 2"):
            cls(**{**drawn, second: drawn[second][:, :2]})
