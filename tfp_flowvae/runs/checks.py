"""What of a config does not go together: found before anything heavy is imported or built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfp_flowvae.distributions.registry import BASES
from tfp_flowvae.errors import UserError
from tfp_flowvae.likelihoods import LIKELIHOODS
from tfp_flowvae.models.names import objective_conflict
from tfp_flowvae.networks.registry import NETWORKS
from tfp_flowvae.spec import Spec

if TYPE_CHECKING:
    from tfp_flowvae.runs.config import TrainConfig


def check_together(config: TrainConfig) -> None:
    """Checks the values of a config against each other.

    Raises:
      UserError: For the first two that do not go together.
    """
    for flag, name, use in (
        ("--base", config.base, "posterior"),
        ("--prior", config.prior_spec.base.name, "prior"),
    ):
        if not getattr(BASES[name], use):
            fitting = [other for other, entry in BASES.items() if getattr(entry, use)]
            raise UserError(
                f"The base {name!r} cannot stand in a {use}: choose {' or '.join(fitting)}. "
                f"Received: {flag} {name}."
            )
    _check_objective(config)
    if not config.allow_slow:
        posterior = "a posterior samples in every step"
        _check_direction("--flow", config.posterior_spec.flows, "fast_sample", posterior)
        prior = "a prior scores in every step"
        _check_direction("--prior", config.prior_spec.flows, "fast_density", prior)
        if config.gradient == "stl" or config.bound == "dreg":
            flag = "--gradient stl" if config.gradient == "stl" else "--bound dreg"
            why = f"{flag} takes the posterior's density in every step"
            _check_direction("--flow", config.posterior_spec.flows, "fast_density", why)
    _check_networks(config)
    entry = LIKELIHOODS[config.likelihood]
    if entry.takes_levels and config.binarization != "none":
        raise UserError(
            f"The likelihood {config.likelihood!r} is one of grey levels: give --binarization "
            f"none, or --likelihood bernoulli. Received: --binarization {config.binarization}."
        )


def _check_direction(flag: str, specs: tuple[Spec, ...], direction: str, why: str) -> None:
    for spec in specs:
        if not getattr(spec.entry, direction):
            raise UserError(
                f"{flag} cannot be {spec.name!r}: {why}, which takes {spec.name} one step after "
                f"another for each latent dimension; use {spec.entry.alternative!r} there instead, "
                "or --allow-slow."
            )


def _check_objective(config: TrainConfig) -> None:
    complaint = objective_conflict(
        config.bound, config.gradient, config.samples, config.free_bits, config.min_information
    )
    if complaint:
        raise UserError(complaint)
    plain = str(config.posterior_spec) == str(config.prior_spec) == "none"
    if config.free_bits and not plain:
        raise UserError(
            "--free-bits needs a KL that is a sum over dimensions, hence --flow none, --base "
            "normal and --prior none; --min-information works with all. "
            f"Received: --flow {config.flow}, --base {config.base}, --prior {config.prior}."
        )
    if config.weight_decay is not None and config.optimizer != "adamw":
        raise UserError(
            "--weight-decay is that of --optimizer adamw. "
            f"Received: --weight-decay {config.weight_decay:g} with --optimizer {config.optimizer}."
        )
    if config.full_weight_epoch > config.epochs:
        raise UserError(_unfinished_warmup(config))


def _unfinished_warmup(config: TrainConfig) -> str:
    """What is wrong where the weight of the KL is still to rise when training ends."""
    if config.warmup == "linear":
        return (
            "--warmup-epochs must be at most --epochs, or the full bound is never trained. "
            f"Received: {config.warmup_epochs} and {config.epochs}."
        )
    shorter = config.epochs // (2 * config.cycles - 1)
    fewer = f"--cycles {(config.epochs + 1) // 2} --warmup-epochs 1"
    return (
        f"The last of --cycles {config.cycles} rises of --warmup-epochs {config.warmup_epochs}, "
        f"with pauses as long between them, ends after {config.full_weight_epoch} epochs: give at "
        f"least --epochs {config.full_weight_epoch}, or at most "
        f"{f'--warmup-epochs {shorter}' if shorter else fewer}. "
        f"Received: --epochs {config.epochs}."
    )


def _check_networks(config: TrainConfig) -> None:
    kinds = (config.encoder, config.decoder or config.encoder)
    if config.channels is not None and not any("channels" in NETWORKS[k].options for k in kinds):
        takers = [name for name, entry in NETWORKS.items() if "channels" in entry.options]
        raise UserError(
            f"--channels are those of convolutions: choose --encoder {' or '.join(takers)}. "
            f"Received: --encoder {config.encoder}."
        )
