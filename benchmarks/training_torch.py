"""A rival: a lean PyTorch loop of the same maths and size, eager or by `torch.compile`.

Functions of a dict of tensors instead of modules, images resident as float32, the fused Adam.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from training_cases import (
    BATCH,
    COUPLINGS,
    LATENT,
    LAYERS,
    LENGTH,
    MADE_HIDDEN,
    PIXELS,
    RATE,
    Job,
    made_masks,
    starting_weights,
)
from training_workers import LeftOutError, Turns

try:
    torch: Any = importlib.import_module("torch")
except ImportError:
    torch = None

Weights = dict[str, Any]

_BOUND = 3.0  # of log-scales
_UNIT = math.log(math.e - 1.0)  # its softplus is 1
_LOG_2PI = math.log(2.0 * math.pi)


def linear(weights: Weights, name: str, x: Any) -> Any:
    """x W + b."""
    return torch.addmm(weights[f"{name}_b"], x, weights[name])


def _bounded(raw: Any) -> Any:
    return _BOUND * torch.tanh(raw / _BOUND)


def iaf(weights: Weights, masks: list[Any], z: Any, features: Any) -> tuple[Any, Any]:
    """z <- (z - m) / exp(s), with m and s from a masked network of z and the features."""
    log_det = 0.0
    for k in range(LAYERS):
        mask_in, mask_out = masks[k]
        context = features @ weights[f"made{k}_context"]
        hidden = torch.addmm(weights[f"made{k}_in_b"], z, weights[f"made{k}_in"] * mask_in)
        hidden = torch.nn.functional.elu(hidden + context[:, :MADE_HIDDEN])
        out = torch.addmm(weights[f"made{k}_out_b"], hidden, weights[f"made{k}_out"] * mask_out)
        shift, raw = (out + context[:, MADE_HIDDEN:]).chunk(2, dim=-1)
        log_scale = _bounded(raw)
        z = (z - shift) * torch.exp(-log_scale)
        log_det = log_det - log_scale.sum(-1)
    return z, log_det


def planar(weights: Weights, masks: list[Any], z: Any, features: Any) -> tuple[Any, Any]:
    """z <- z + u^ tanh(w.z + b), the parameters of every step from the features."""
    size = LENGTH * LATENT
    u, w, b = linear(weights, "flow", features).split([size, size, LENGTH], dim=-1)
    u, w = u.reshape(-1, LENGTH, LATENT), w.reshape(-1, LENGTH, LATENT)
    product = (u * w).sum(-1)
    inner = torch.nn.functional.softplus(product + _UNIT) - 1.0  # w.u^ > -1
    u = u + ((inner - product) / (w * w).sum(-1))[..., None] * w
    log_det = 0.0
    for k in range(LENGTH):
        h = torch.tanh((w[:, k] * z).sum(-1) + b[:, k])
        z = z + u[:, k] * h[:, None]
        log_det = log_det + torch.log1p(inner[:, k] * (1.0 - h * h))
    return z, log_det


def householder(weights: Weights, masks: list[Any], z: Any, features: Any) -> tuple[Any, Any]:
    """z <- z - 2 v v.z, mirror after mirror: the map of the compact WY form."""
    mirrors = linear(weights, "flow", features).reshape(-1, LENGTH, LATENT)
    mirrors = torch.nn.functional.normalize(mirrors, dim=-1)
    for k in range(LENGTH):
        mirror = mirrors[:, k]
        z = z - 2.0 * (mirror * z).sum(-1, keepdim=True) * mirror
    return z, 0.0


def realnvp_noise(weights: Weights, z: Any) -> tuple[Any, Any]:
    """From z to the prior's standard normal, through couplings that move one half each."""
    elu, log_det, halves = torch.nn.functional.elu, 0.0, list(z.chunk(2, dim=-1))
    for k in reversed(range(COUPLINGS)):
        kept, moved = halves[k % 2], halves[1 - k % 2]
        hidden = elu(linear(weights, f"mlp{k}_0", kept))
        hidden = elu(linear(weights, f"mlp{k}_1", hidden))
        shift, raw = linear(weights, f"mlp{k}_2", hidden).chunk(2, dim=-1)
        log_scale = _bounded(raw)
        halves[1 - k % 2] = (moved - shift) * torch.exp(-log_scale)
        log_det = log_det - log_scale.sum(-1)
    return torch.cat(halves, dim=-1), log_det


_POSTERIORS = {"iaf": iaf, "planar": planar, "householder": householder}


def free_energy(case: str, weights: Weights, masks: list[Any], x: Any, noise: Any) -> Any:
    """The mean over the batch of log q(z|x) - log p(z) - log p(x|z), for x `[B, 784]`."""
    functional = torch.nn.functional
    features = functional.elu(linear(weights, "enc0", x))
    features = functional.elu(linear(weights, "enc1", features))
    loc, raw = linear(weights, "head", features).chunk(2, dim=-1)
    scale = functional.softplus(raw + _UNIT)
    z = loc + scale * noise
    log_posterior = _normal(noise) - torch.log(scale).sum(-1)
    if case in _POSTERIORS:
        z, log_det = _POSTERIORS[case](weights, masks, z, features)
        log_posterior = log_posterior - log_det
    if case == "realnvp-prior":
        unit, log_det = realnvp_noise(weights, z)
        log_prior = _normal(unit) + log_det
    else:
        log_prior = _normal(z)
    hidden = functional.elu(linear(weights, "dec0", z))
    hidden = functional.elu(linear(weights, "dec1", hidden))
    logits = linear(weights, "dec2", hidden)
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    return (log_posterior - log_prior).mean() + cross_entropy / x.shape[0]


def _normal(z: Any) -> Any:
    return -0.5 * ((z * z).sum(-1) + LATENT * _LOG_2PI)


def eager(job: Job, turns: Turns) -> None:
    """A contender: an epoch of the eager loop in each turn."""
    _train(job, turns, compiled=False)


def compiled(job: Job, turns: Turns) -> None:
    """A contender: the same with the loss, and so its gradient, compiled by TorchInductor."""
    _train(job, turns, compiled=True)


def _train(job: Job, turns: Turns, compiled: bool) -> None:
    if torch is None:
        raise LeftOutError("PyTorch is not installed")
    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    images = torch.from_numpy(job.images("train").reshape(-1, PIXELS)).float()
    weights = {
        name: torch.from_numpy(value).requires_grad_()
        for name, value in starting_weights(job.case).items()
    }
    masks = [tuple(map(torch.from_numpy, made_masks(k))) for k in range(LAYERS)]
    optimizer = torch.optim.Adam(weights.values(), lr=RATE, eps=1e-7, fused=True)

    def loss_of(weights: Weights, x: Any, noise: Any) -> Any:
        return free_energy(job.case, weights, masks, x, noise)

    loss_of = _compile(loss_of, weights, images[:BATCH]) if compiled else loss_of
    steps = len(images) // BATCH

    def epoch() -> float:
        order = torch.randperm(len(images)).reshape(steps, BATCH)
        total = torch.zeros(())
        for i in range(steps):
            x, noise = images[order[i]], torch.randn(BATCH, LATENT)
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(weights, x, noise)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return float(total) / steps

    turns.ready(sum(value.numel() for value in weights.values()))
    turns.take(epoch)


def _compile(function: Callable[..., Any], weights: Weights, x: Any) -> Callable[..., Any]:
    """The compiled function, tried out: TorchInductor needs a C++ compiler."""
    made = torch.compile(function)
    try:
        made(weights, x, torch.from_numpy(np.zeros([BATCH, LATENT], np.float32))).backward()
    # Whatever it runs into, its rivals are measured all the same.
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise LeftOutError(f"torch.compile does not work here: {reason[0][:200]}") from error
    return made
