"""From a `FlowVAE` to a SavedModel that plain TensorFlow runs, and back from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfp_flowvae.errors import UserError
from tfp_flowvae.flows.adopted import supplied
from tfp_flowvae.models import FlowVAE

KERAS_FILE = "model.keras"
ENDPOINTS = ("sample", "encode", "decode", "reconstruct", "elbo", "log_prior")


def export(model: FlowVAE, path: str | Path) -> None:
    """Writes the model into a folder: a SavedModel, and beside it the `.keras` file.

    The SavedModel needs neither this package nor TensorFlow Probability. Its endpoints, each
    answering with a dict, by the names given here:

        sample(n, seed)      -> images      [n, H, W, C]  means of p(x|z), z ~ p(z)
        encode(x, seed)      -> z           [B, D]        z ~ q(z|x)
        decode(z)            -> images      [B, H, W, C]
        reconstruct(x, seed) -> images      [B, H, W, C]  decode(encode(x))
        elbo(x, seed)        -> elbo        [B]           nats, one sample
        log_prior(z)         -> log_prior   [B]           nats

    `n` and `seed` are int32 scalars (Python ints will do), `x` float32 `[B, H, W, C]`, taken as it
    is. Any batch size will do, 0 included.

    Args:
      model: A trained model.
      path: The folder; made if need be. `tfp_flowvae.load(path)` gives the model back.
    """
    path = Path(path)
    served = _served(model)
    signatures = {name: getattr(served, name) for name in ENDPOINTS}
    # TensorFlow Serving asks for this name where a request gives none.
    signatures["serving_default"] = signatures[ENDPOINTS[0]]
    tf.saved_model.save(served, str(path), signatures=signatures)
    model.save(path / KERAS_FILE)


def _served(model: FlowVAE) -> tf.train.Checkpoint:
    """The endpoints as functions, and the variables that they use in the model's order.

    `keras.export.ExportArchive` lists the variables in the order of a set of their addresses, so
    that two runs with the same weights make different files, and it writes each of them twice.
    """
    images = tf.TensorSpec([None, *model.image_shape], tf.float32, name="x")
    latents = tf.TensorSpec([None, model.event_size], tf.float32, name="z")
    count, seed = tf.TensorSpec([], tf.int32, name="n"), tf.TensorSpec([], tf.int32, name="seed")
    functions = {
        "sample": (lambda n, seed: {"images": model.sample(n, seed)}, [count, seed]),
        "encode": (lambda x, seed: {"z": model.encode(x, seed)}, [images, seed]),
        "decode": (lambda z: {"images": model.decode(z)}, [latents]),
        "reconstruct": (lambda x, seed: {"images": model.reconstruct(x, seed)}, [images, seed]),
        "elbo": (lambda x, seed: {"elbo": model.elbo(x, seed=seed)}, [images, seed]),
        "log_prior": (lambda z: {"log_prior": model.prior_layer(z)}, [latents]),
    }
    served = tf.train.Checkpoint()
    served.variables = [variable.value for variable in model.variables]
    served.trainable_variables = [variable.value for variable in model.trainable_variables]
    served.non_trainable_variables = [variable.value for variable in model.non_trainable_variables]
    for name in ENDPOINTS:
        function, signature = functions[name]
        setattr(served, name, tf.function(function, input_signature=signature, autograph=False))
    return served


def load(path: str | Path, prior: Any = None, flow: Any = None) -> FlowVAE:
    """Gives back the `FlowVAE` of a run's folder or of its `.keras` file, compiled as it was.

    Args:
      path: A folder that `export` wrote, or a `.keras` file.
      prior: What `models.AdoptedPrior` was given, a distribution or a function that makes one,
        where the file cannot hold it; its variables take the values in the file.
      flow: The same for a bijector of one's own in a stack of flows.

    Raises:
      UserError: If there is no such file, it is not a flow VAE, or it needs `prior` or `flow`.
    """
    path = Path(path)
    file = path / KERAS_FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(
            f"{str(path)!r} holds no {KERAS_FILE}; give the folder of a finished run, or the "
            ".keras file itself."
        )
    try:
        with supplied(prior=prior, flow=flow):
            model = keras.saving.load_model(file)
    except UserError:
        raise
    except (ValueError, OSError, TypeError, KeyError) as error:
        raise UserError(
            f"{str(file)!r} is not a model that Keras can load: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(model, FlowVAE):
        raise UserError(f"{str(file)!r} holds a {type(model).__name__}, not a FlowVAE.")
    return model
