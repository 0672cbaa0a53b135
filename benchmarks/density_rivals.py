"""The rivals of `density.py`: FlowDensity, zuko and normflows, each with the same architecture.

MAF-5: five affine autoregressive layers, whose masked networks have two hidden layers of 64 units.
Spline-5: five couplings by halves with 8 bins and networks of the same size; zuko's reach from -5
to 5, the others' from -4 to 4. The data is standardised by its mean and scale for all.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

HIDDEN, LENGTH, BINS, BOUND = 64, 5, 8, 4.0


def _installed(name: str) -> Any:
    """The module, or None without the `bench` extra."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


torch, zuko, normflows = _installed("torch"), _installed("zuko"), _installed("normflows")


def set_threads(threads: int) -> None:
    """Sets how many threads each rival computes with, before TensorFlow is imported."""
    for pool in ("INTRAOP", "INTEROP"):
        os.environ[f"TF_NUM_{pool}_THREADS"] = str(threads)
    if torch is not None:
        torch.set_num_threads(threads)


class Ours:
    """`FlowDensity`, trained by Keras's `fit`."""

    def __init__(
        self,
        flow: str,
        size: int,
        mean: np.ndarray,
        scale: np.ndarray,
        rate: float,
        steps: int,
        seed: int,
    ) -> None:
        import keras

        import tfp_flowvae as fv

        keras.utils.set_random_seed(seed)
        spec = {
            "maf": f"maf:{LENGTH},hidden={HIDDEN}x{HIDDEN}",
            "spline": f"spline:{LENGTH},hidden={HIDDEN}x{HIDDEN},bins={BINS},bound={BOUND:g}",
        }[flow]
        self._model = fv.FlowDensity(spec, event_size=size, seed=seed)
        self._model.adapt(np.stack([mean - scale, mean + scale]))  # the mean and scale of all rows
        self._model.compile(
            keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps))
        )
        self._draws = 0

    def train(self, batches: np.ndarray) -> None:
        """One step on each batch `[S, B, D]`."""
        rows = batches.reshape(-1, batches.shape[-1])
        self._model.fit(rows, batch_size=batches.shape[1], shuffle=False, verbose=0)

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """log p(x), `[N]`, nats."""
        return np.asarray(self._model.log_prob(x), np.float64)

    def sample(self) -> Any:
        """1000 draws."""
        self._draws += 1
        return self._model.sample(1000, seed=self._draws).numpy()

    def weights(self) -> int:
        """How many numbers are trained."""
        return sum(int(np.prod(w.shape)) for w in self._model.trainable_weights)


class _Torch:
    """What the two on PyTorch share: Adam with the same schedule, one step on each batch."""

    def __init__(
        self,
        flow: str,
        size: int,
        mean: np.ndarray,
        scale: np.ndarray,
        rate: float,
        steps: int,
        seed: int,
    ) -> None:
        torch.manual_seed(seed)
        self._mean, self._scale = torch.as_tensor(mean), torch.as_tensor(scale)
        self._log_scale = float(np.log(scale.astype(np.float64)).sum())
        self._module = self._make(flow, size)
        # The same epsilon as Keras's.
        self._optimizer = torch.optim.Adam(self._module.parameters(), rate, eps=1e-7)
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, steps)

    def _make(self, flow: str, size: int) -> Any:
        raise NotImplementedError

    def _density(self, x: Any) -> Any:
        raise NotImplementedError

    def _draw(self, n: int) -> Any:
        raise NotImplementedError

    def _standard(self, x: np.ndarray) -> Any:
        return (torch.as_tensor(x) - self._mean) / self._scale

    def train(self, batches: np.ndarray) -> None:
        """One step on each batch `[S, B, D]`."""
        for batch in self._standard(batches):
            self._optimizer.zero_grad(set_to_none=True)
            loss = -self._density(batch).mean()
            loss.backward()
            self._optimizer.step()
            self._schedule.step()

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """log p(x), `[N]`, nats."""
        with torch.no_grad():
            values = self._density(self._standard(x)).double().numpy()
        return values - self._log_scale

    def sample(self) -> Any:
        """1000 draws."""
        with torch.no_grad():
            return (self._draw(1000) * self._scale + self._mean).numpy()

    def weights(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self._module.parameters() if p.requires_grad)


class Zuko(_Torch):
    """`zuko.flows.MAF`, and `NSF` in two passes, which are couplings."""

    def _make(self, flow: str, size: int) -> Any:
        hidden = {"hidden_features": (HIDDEN, HIDDEN), "activation": torch.nn.ELU}
        if flow == "maf":
            return zuko.flows.MAF(size, transforms=LENGTH, **hidden)
        return zuko.flows.NSF(size, transforms=LENGTH, bins=BINS, passes=2, **hidden)

    def _density(self, x: Any) -> Any:
        return self._module().log_prob(x)

    def _draw(self, n: int) -> Any:
        return self._module().sample((n,))


class NormFlows(_Torch):
    """`normflows`: masked affine autoregressive layers, and couplings of splines."""

    def _make(self, flow: str, size: int) -> Any:
        layers = []
        for _ in range(LENGTH):
            if flow == "maf":
                # By itself its density is the slow direction, of D passes.
                layer = normflows.flows.MaskedAffineAutoregressive(
                    size,
                    HIDDEN,
                    num_blocks=2,
                    use_residual_blocks=False,
                    activation=torch.nn.functional.elu,
                )
                layers.append(normflows.flows.Reverse(layer))
            else:
                layers.append(
                    normflows.flows.CoupledRationalQuadraticSpline(
                        size, 1, HIDDEN, num_bins=BINS, tail_bound=BOUND, activation=torch.nn.ELU
                    )
                )
            layers.append(normflows.flows.Permute(size, mode="swap"))
        return normflows.NormalizingFlow(normflows.distributions.DiagGaussian(size), layers)

    def _density(self, x: Any) -> Any:
        return self._module.log_prob(x)

    def _draw(self, n: int) -> Any:
        return self._module.sample(n)[0]


def _rivals() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {"tfp_flowvae": Ours}
    if zuko is not None:
        found["zuko"] = Zuko
    if normflows is not None:
        found["normflows"] = NormFlows
    return found


RIVALS: Mapping[str, Callable[..., Any]] = _rivals()
