"""Training on several devices and machines with `tf.distribute`; see docs/distributed.md."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfp_flowvae.errors import UserError, nearest

if TYPE_CHECKING:
    import tensorflow as tf

STRATEGIES = ("none", "mirrored", "multiworker")
_EXAMPLE = (
    '{"cluster": {"worker": ["host1:12345", "host2:12345"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
_TYPES = ("chief", "worker")


def check_strategy(name: str | None) -> None:
    """Checks the name of a strategy and its environment, without importing TensorFlow.

    Raises:
      UserError: If there is no such strategy, or TF_CONFIG is needed and is missing or malformed.
    """
    if name is not None and name not in STRATEGIES:
        raise UserError(
            f"--strategy must be one of {', '.join(STRATEGIES)}.{nearest(name, STRATEGIES)} "
            f"Received: {name!r}."
        )
    if name != "multiworker":
        return
    if "TF_CONFIG" not in os.environ:
        raise UserError(
            "--strategy multiworker reads the cluster from TF_CONFIG, which is not set; set it for "
            f"each worker, for example to {_EXAMPLE}."
        )
    _check_tf_config(os.environ["TF_CONFIG"])


def make_strategy(name: str | None) -> tf.distribute.Strategy | None:
    """Returns the strategy of a name.

    Call it before other functions of TensorFlow: `multiworker` starts a server and waits for all
    workers. Build, compile and train the model in the strategy's `scope()`.

    Args:
      name: `none` or None: one device; `mirrored`: all GPUs of this machine, or else all its
        logical CPU devices; `multiworker`: all devices of all machines of the cluster that
        `TF_CONFIG` describes.

    Returns:
      The strategy; None for one device.

    Raises:
      UserError: If there is no such strategy, TF_CONFIG is needed and is missing or malformed, or
        this worker cannot join the cluster.

    Example:
      >>> strategy = make_strategy("mirrored")
      >>> with strategy.scope():
      ...     density = fv.FlowDensity("affine", event_size=2)
      ...     density.compile("adam")
    """
    check_strategy(name)
    if name in (None, "none"):
        return None
    import tensorflow as tf

    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        raise UserError(
            f"This worker cannot join the cluster: {error.message.splitlines()[0].rstrip('.')}; "
            "the hosts of the cluster must be reachable, and this worker's port must be free."
        ) from error


def check_batch(strategy: tf.distribute.Strategy | None, batch_size: int) -> None:
    """Checks that the replicas can share a global batch equally.

    Example:
      >>> check_batch(None, 100)  # one device takes any size

    Raises:
      UserError: If the number of replicas does not divide the batch size.
    """
    replicas = 1 if strategy is None else strategy.num_replicas_in_sync
    if batch_size % replicas:
        below = batch_size - batch_size % replicas
        near = [str(size) for size in (below, below + replicas) if size]
        raise UserError(
            f"--batch-size is the size for all {replicas} replicas together and must be a multiple "
            f"of {replicas}, such as {' or '.join(near)}. Received: {batch_size}."
        )


def shared_batches(strategy: tf.distribute.Strategy | None, batches: tf.data.Dataset) -> Any:
    """Returns batches for `fit` under a strategy, each divided into the replicas' shares.

    Of B images, replica r of R has the rows from floor(r B / R) up to, but not including,
    floor((r + 1) B / R). If tf.data divides the batches and each worker has several devices, the
    order differs, and so each image gets other noise than on one device.

    Args:
      strategy: The strategy; with None, `batches` are returned unchanged.
      batches: Batches of tensors `[B, ...]`, the same on all workers. The number of the returned
        batches is unknown, so give `fit` its `steps_per_epoch`, and for validation
        `validation_steps` and `batches.repeat()`.

    Returns:
      A `tf.distribute.DistributedDataset`.

    Example:
      >>> batches = tf.data.Dataset.range(8).batch(4)
      >>> [share.shape[0] for share in shared_batches(None, batches)]  # one device has all rows
      [4, 4]
    """
    if strategy is None or strategy.num_replicas_in_sync == 1:
        return batches
    import tensorflow as tf

    replicas = strategy.num_replicas_in_sync

    def pieces(context: tf.distribute.InputContext) -> tf.data.Dataset:
        count = replicas // context.num_input_pipelines
        first = count * context.input_pipeline_id

        def cut(batch: tf.Tensor) -> tf.data.Dataset:
            size = tf.shape(batch, out_type=tf.int64)[0]
            mine = tf.data.Dataset.range(first, first + count)
            return mine.map(lambda r: batch[r * size // replicas : (r + 1) * size // replicas])

        return batches.flat_map(cut)

    return strategy.distribute_datasets_from_function(pieces)


def is_chief(strategy: tf.distribute.Strategy | None) -> bool:
    """Whether this process is the worker that writes files; true without a cluster.

    Example:
      >>> is_chief(make_strategy("mirrored"))
      True
    """
    if strategy is None or not _has_workers(strategy):
        return True
    resolver = strategy.cluster_resolver
    if resolver.task_type == "worker" and "chief" not in resolver.cluster_spec().jobs:
        return resolver.task_id == 0
    return resolver.task_type == "chief"


def any_worker(strategy: tf.distribute.Strategy | None, flag: bool) -> bool:
    """Whether `flag` is true on any worker, for decisions that all workers must take together.

    All workers must call it equally often; all get the same result.

    Example:
      >>> any_worker(make_strategy("mirrored"), False)
      False
    """
    if strategy is None or not _has_workers(strategy):
        return flag
    import tensorflow as tf

    return bool(_sum_over(strategy)(tf.constant(float(flag))) > 0)


@functools.cache
def _sum_over(strategy: tf.distribute.Strategy) -> Callable[[tf.Tensor], tf.Tensor]:
    """A program that sums a scalar over all replicas; TensorFlow warns if this runs eagerly."""
    import tensorflow as tf

    @tf.function(autograph=False)
    def total(value: tf.Tensor) -> tf.Tensor:
        values = strategy.run(lambda: tf.identity(value))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)

    return total


@contextlib.contextmanager
def writing_folder(strategy: tf.distribute.Strategy | None, folder: Path) -> Iterator[Path]:
    """A context that gives the folder to save into: `folder` for the chief, else a temporary one.

    All workers must save, although only the chief's files are kept: saving reads the metrics, which
    are sums over the workers, and all workers must take part in the sum.

    Example:
      >>> from pathlib import Path
      >>> with writing_folder(make_strategy("mirrored"), Path(".")) as folder:
      ...     fv.FlowDensity("affine", event_size=2).save(folder / "model.keras")
    """
    if is_chief(strategy):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="tfp_flowvae_worker_") as temporary:
        yield Path(temporary)


def _has_workers(strategy: tf.distribute.Strategy) -> bool:
    resolver = strategy.cluster_resolver
    return resolver is not None and bool(resolver.task_type)


def _check_tf_config(text: str) -> None:
    """Checks TF_CONFIG: with some mistakes in it TensorFlow fails, with others it waits forever."""
    try:
        config = json.loads(text)
    except ValueError as error:
        raise UserError(f"TF_CONFIG is not JSON: {error}. Received: {text!r}.") from error
    complaint = _complaint(config)
    if complaint:
        raise UserError(f"TF_CONFIG {complaint}; an example is {_EXAMPLE}.")


def _complaint(config: Any) -> str | None:
    """What is wrong with a decoded TF_CONFIG; None if nothing is."""
    if not isinstance(config, dict):
        return f"must be a JSON object, and is {json.dumps(config)}"
    for key in ("cluster", "task"):
        if not isinstance(config.get(key), dict) or not config[key]:
            return f"lacks the object {key!r}"
    for kind, hosts in config["cluster"].items():
        if kind not in _TYPES:
            return f"has tasks of type {kind!r} in its cluster, where only {_TYPES} can be"
        named = isinstance(hosts, list) and all(isinstance(host, str) for host in hosts)
        if not (named and hosts and all(re.fullmatch(r".+:\d+", host) for host in hosts)):
            return f"must give {kind!r} a list of host:port, and gives {json.dumps(hosts)}"
    kind, index = config["task"].get("type"), config["task"].get("index")
    if kind not in config["cluster"]:
        return f"has a task of type {json.dumps(kind)}, which is not in its cluster"
    count = len(config["cluster"][kind])
    whole = isinstance(index, int) and not isinstance(index, bool)
    if not (whole and 0 <= index < count):
        return f"must have a task index from 0 to {count - 1}, and has {json.dumps(index)}"
    return None
