"""From a model to a SavedModel that plain TensorFlow runs, and back from its folder."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from tfp_flowvae._files import KERAS_FILE
from tfp_flowvae._version import __version__
from tfp_flowvae.errors import UserError
from tfp_flowvae.flows.adopted import supplied
from tfp_flowvae.training.model import FastModel


def export(
    model: FastModel,
    path: str | Path,
    format: str = "saved_model",
    functions: Sequence[str] | None = None,
) -> None:
    """Writes the model into a folder: a SavedModel, and beside it the `.keras` file.

    The SavedModel needs neither this package nor TensorFlow Probability. Its methods, which are its
    signatures too, return dicts. Those of a `FlowVAE`:

        sample(n, seed, temperature=1)   -> images  [n, H, W, C]  means of p(x|z), z ~ p(z)
        encode(x, seed)                  -> z       [B, D]        z ~ q(z|x)
        decode(z)                        -> images  [B, H, W, C]
        reconstruct(x, seed)             -> images  [B, H, W, C]  decode(encode(x))
        elbo(x, seed)                    -> elbo          [B]     one sample
        log_prior(z)                     -> log_prior     [B]     log p(z)
        log_prob(x, num_samples, seed)   -> log_prob      [B]     log p(x), importance-weighted
        score(x)                         -> score         [B]     -log p(x) by 100 samples
        sample_posterior(x, n, seed)     -> z       [n, B, D]     z ~ q(z|x)
        log_posterior(z, x, seed=0)      -> log_posterior [B]     log q(z|x); the seed has no effect
        interpolate(x1, x2, steps)       -> images  [steps, B, H, W, C]
        serving_default(x)               -> reconstruction, elbo, z   of one z ~ q(z|x)

    Those of a `FlowDensity`, where a conditional one takes a `context` `[B, C]` after n and x:

        sample(n, seed, temperature=1)   -> x       [n, D] or [n, B, D]
        log_prob(x)                      -> log_prob      [B]
        serving_default(x)               -> log_prob      [B]

    Densities are in nats. `n`, `seed`, `steps` and `num_samples` are int32 scalars and
    `temperature` is a float32 scalar (Python numbers will do); `x` is float32 `[B, H, W, C]` or
    `[B, D]`, taken as it is. Any batch size will do, 0 included. See `FlowDistribution.sample` for
    the temperature and `distributions.interpolate` for the path between two images. `score` and
    `serving_default` have the seed 0 and the same noise for every image, so that the results of an
    image do not depend on the batch that it is in.

    A signature has no defaults: the temperature is part of the signature `sample_at_temperature`,
    and the signature `sample` is without. For TensorFlow Serving's row format, which has no
    scalars, each function that takes scalars has a variant `NAME_rows` that takes one of each for
    each row, such as `encode_rows(x, seed)` with a seed `[B]`. Rows of `sample_rows(n, seed)`,
    `sample_posterior_rows` and `interpolate_rows` come first in the shape, `[B, n, ...]`, and rows
    with fewer images than others end in zeros.

    Functions that a bijector or a distribution of your own does not allow, such as `log_posterior`
    without an inverse, are left out, with a warning; so is the temperature where a prior of your
    own has no mean.

    Args:
      model: A trained model.
      path: The folder; made if need be. `tfp_flowvae.load(path)` gives the model back.
      format: "saved_model"; or "litert" or "onnx", which write some functions of a `FlowVAE` into
        a new folder: see `saving.converted.export_converted`.
      functions: For the other formats, the names of the functions; None for all that convert.

    Raises:
      UserError: If another format cannot be written.

    Example:
      >>> density = fv.FlowDensity("affine", event_size=2)
      >>> fv.export(density, "density")
      >>> served = tf.saved_model.load("density")
      >>> served.log_prob(tf.zeros([5, 2]))["log_prob"].shape
      TensorShape([5])
    """
    if format == "saved_model" and functions is None:
        model.export(path)
        return
    from tfp_flowvae.saving.converted import export_converted

    export_converted(model, path, format, functions)


def load(path: str | Path, prior: Any = None, flow: Any = None, compile: bool = True) -> Any:
    """Gives back the model of a folder or of its `.keras` file.

    Args:
      path: A folder that `export` wrote, or a `.keras` file.
      prior: Your own distribution that the prior, or a density's base, was made of, or a function
        that makes it, where the file cannot hold it; its variables take the values in the file.
      flow: The same for your own bijector in a stack of flows.
      compile: Whether to compile the model as it was, with the state of its optimizer.

    Returns:
      A `FlowVAE` or a `FlowDensity`.

    Raises:
      UserError: If there is no such file, it holds another model, or it needs `prior` or `flow`.

    Example:
      >>> fv.FlowDensity("affine", event_size=2).save("density.keras")
      >>> density = fv.load("density.keras")
      >>> density.log_prob([[0.0, 0.0]])  # -log 2 pi
      <tf.Tensor: shape=(1,), dtype=float32, numpy=array([-1.8379], dtype=float32)>
    """
    path = Path(path)
    file = path / KERAS_FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(
            f"{str(path)!r} holds no {KERAS_FILE}; give the folder of a finished run, or the "
            ".keras file itself."
        )
    if not zipfile.is_zipfile(file):
        raise UserError(f"{str(file)!r} is not a Keras file: it is damaged, or holds other data.")
    try:
        with supplied(prior=prior, flow=flow):
            model = keras.saving.load_model(file, compile=compile)
    except UserError:
        raise
    except (ValueError, OSError, TypeError, KeyError) as error:
        # Where a part cannot be built, Keras's text ends with the reason.
        text = str(error).rpartition("Exception encountered: ")[2]
        reason = " ".join(text.split()).partition(". ")[0].rstrip(".")
        raise UserError(
            f"{str(file)!r} cannot be read by this version of tfp_flowvae, {__version__}: use the "
            f"version that wrote it, and import your own layers first. Keras says: {reason}."
        ) from error
    if not isinstance(model, FastModel):
        raise UserError(
            f"{str(file)!r} holds a {type(model).__name__}, not a FlowVAE or a FlowDensity."
        )
    return model
