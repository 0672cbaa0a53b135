"""Finds settings that conflict, before TensorFlow is imported."""

from __future__ import annotations

from tfp_flowvae.distributions.registry import BASES
from tfp_flowvae.errors import UserError
from tfp_flowvae.likelihoods import LIKELIHOODS
from tfp_flowvae.models.names import objective_conflict
from tfp_flowvae.networks.registry import NETWORKS
from tfp_flowvae.runs.settings import Settings
from tfp_flowvae.spec import Spec


def check_together(settings: Settings) -> None:
    """Checks the settings against each other.

    Raises:
      UserError: For the first conflict.
    """
    _check_base("--base", settings.base, "posterior")
    _check_base("--prior", settings.prior_spec.base.name, "prior")
    _check_objective(settings)
    if not settings.allow_slow:
        _check_directions(settings)
    _check_networks(settings)
    if LIKELIHOODS[settings.likelihood].takes_levels and settings.binarization != "none":
        raise UserError(
            f"The likelihood {settings.likelihood!r} models grey levels: give --binarization none, "
            f"or --likelihood bernoulli. Received: --binarization {settings.binarization}."
        )


def _check_base(flag: str, name: str, use: str) -> None:
    if not getattr(BASES[name], use):
        fitting = [other for other, entry in BASES.items() if getattr(entry, use)]
        raise UserError(
            f"The base {name!r} cannot be the base of a {use}: choose {' or '.join(fitting)}. "
            f"Received: {flag} {name}."
        )


def _check_directions(settings: Settings) -> None:
    """Refuses flows that need one pass for each latent dimension in a training step."""
    posterior, prior = settings.posterior_spec.flows, settings.prior_spec.flows
    _check_direction("--flow", posterior, "fast_sample", "each step samples from the posterior")
    _check_direction("--prior", prior, "fast_density", "each step takes the density of the prior")
    if settings.gradient == "stl" or settings.bound == "dreg":
        flag = "--gradient stl" if settings.gradient == "stl" else "--bound dreg"
        why = f"{flag} takes the posterior's density in each step"
        _check_direction("--flow", posterior, "fast_density", why)


def _check_direction(flag: str, specs: tuple[Spec, ...], direction: str, why: str) -> None:
    for spec in specs:
        if not getattr(spec.entry, direction):
            raise UserError(
                f"{flag} cannot be {spec.name!r}: {why}, and for that {spec.name} needs one pass "
                f"for each latent dimension; use {spec.entry.alternative!r} there instead, "
                "or --allow-slow."
            )


def _check_objective(settings: Settings) -> None:
    complaint = objective_conflict(
        settings.bound,
        settings.gradient,
        settings.samples,
        settings.free_bits,
        settings.min_information,
    )
    if complaint:
        raise UserError(complaint)
    plain = str(settings.posterior_spec) == str(settings.prior_spec) == "none"
    if settings.free_bits and settings.labels:
        raise UserError(
            "--free-bits needs the standard normal prior, and with --labels the prior depends on "
            "the class: use --min-information instead. Received: --free-bits "
            f"{settings.free_bits:g} and --labels."
        )
    if settings.free_bits and not plain:
        raise UserError(
            "--free-bits needs a KL that is a sum over the latent dimensions: give --flow none, "
            "--base normal and --prior none, or use --min-information instead. Received: --flow "
            f"{settings.flow}, --base {settings.base}, --prior {settings.prior}."
        )
    check_weight_decay(settings)
    if settings.full_weight_epoch > settings.epochs:
        raise UserError(_unfinished_warmup(settings))


def check_weight_decay(settings: Settings) -> None:
    """Raises `UserError` if there is a weight decay and the optimizer takes none."""
    if settings.weight_decay is not None and settings.optimizer != "adamw":
        raise UserError(
            "--weight-decay needs --optimizer adamw. Received: --weight-decay "
            f"{settings.weight_decay:g} with --optimizer {settings.optimizer}."
        )


def _unfinished_warmup(settings: Settings) -> str:
    """The error message for a warm-up that is not over when training ends."""
    if settings.warmup == "linear":
        return (
            "--warmup-epochs must be at most --epochs, or the full bound is never trained. "
            f"Received: {settings.warmup_epochs} and {settings.epochs}."
        )
    cycles, rise, last = settings.cycles, settings.warmup_epochs, settings.full_weight_epoch
    shorter = settings.epochs // (2 * cycles - 1)
    fewer = f"--cycles {(settings.epochs + 1) // 2} --warmup-epochs 1"
    return (
        f"The last of --cycles {cycles} rises of --warmup-epochs {rise}, with pauses as long "
        f"between them, ends after {last} epochs: give at least --epochs {last}, or at most "
        f"{f'--warmup-epochs {shorter}' if shorter else fewer}. "
        f"Received: --epochs {settings.epochs}."
    )


def _check_networks(settings: Settings) -> None:
    kinds = (settings.encoder, settings.decoder or settings.encoder)
    if settings.channels is not None and not any("channels" in NETWORKS[k].options for k in kinds):
        takers = [name for name, entry in NETWORKS.items() if "channels" in entry.options]
        raise UserError(
            f"--channels needs a convolutional network: choose --encoder {' or '.join(takers)}. "
            f"Received: --encoder {settings.encoder}."
        )
