"""From a model to a SavedModel that plain TensorFlow runs, and back from its folder."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import keras

from tfp_flowvae._files import KERAS_FILE
from tfp_flowvae._version import __version__
from tfp_flowvae.errors import UserError
from tfp_flowvae.flows.adopted import supplied
from tfp_flowvae.training.model import FastModel


def export(model: FastModel, path: str | Path) -> None:
    """Writes the model into a folder: a SavedModel, and beside it the `.keras` file.

    The SavedModel needs neither this package nor TensorFlow Probability. Each of its endpoints
    returns a dict with one key. Those of a `FlowVAE`:

        sample(n, seed)      -> images      [n, H, W, C]  means of p(x|z), z ~ p(z)
        encode(x, seed)      -> z           [B, D]        z ~ q(z|x)
        decode(z)            -> images      [B, H, W, C]
        reconstruct(x, seed) -> images      [B, H, W, C]  decode(encode(x))
        elbo(x, seed)        -> elbo        [B]           nats, one sample
        log_prior(z)         -> log_prior   [B]           nats

    Those of a `FlowDensity`, where a conditional one takes a `context` `[B, C]` after n and x:

        sample(n, seed)      -> x           [n, D]        or [n, B, D]
        log_prob(x)          -> log_prob    [B]           nats

    `n` and `seed` are int32 scalars (Python ints will do), `x` float32 `[B, H, W, C]` or `[B, D]`,
    taken as it is. Any batch size will do, 0 included.

    Args:
      model: A trained model.
      path: The folder; made if need be. `tfp_flowvae.load(path)` gives the model back.
    """
    model.export(path)


def load(path: str | Path, prior: Any = None, flow: Any = None) -> Any:
    """Gives back the model of a folder or of its `.keras` file, compiled as it was.

    Args:
      path: A folder that `export` wrote, or a `.keras` file.
      prior: Your own distribution that the prior, or a density's base, was made of, or a function
        that makes it, where the file cannot hold it; its variables take the values in the file.
      flow: The same for your own bijector in a stack of flows.

    Returns:
      A `FlowVAE` or a `FlowDensity`.

    Raises:
      UserError: If there is no such file, it holds another model, or it needs `prior` or `flow`.
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
            model = keras.saving.load_model(file)
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
