"""The sections that show how the model was trained."""

from __future__ import annotations

import math

from tfp_flowvae.evaluation.diagnostics import PAIRED
from tfp_flowvae.evaluation.report import charts
from tfp_flowvae.evaluation.report.latents import Latents
from tfp_flowvae.evaluation.report.sections import Figure, Section
from tfp_flowvae.evaluation.report.subject import Subject


def curves(subject: Subject) -> Section:
    """Curves over epochs."""
    history, title = subject.history, "Training"
    if not history:
        return Section(title, ["There is no history.csv, so there are no training curves."])
    size, most = subject.model.latent_size, math.log(PAIRED)
    bound = {"elbo": "training", "val_elbo": "validation"}
    parts = {"kl": "training", "val_kl": "validation"}
    terms = {"log_likelihood": "training", "val_log_likelihood": "validation"}
    figures = [
        Figure(
            charts.curves(history, bound, "Free energy: -ELBO", sign=-1.0),
            "Free energy over epochs, training and validation.",
        ),
        Figure(
            charts.curves(history, terms, "Reconstruction: -E[log p(x|z)]", sign=-1.0),
            "The reconstruction term over epochs, training and validation.",
        ),
        Figure(
            charts.curves(history, parts, "KL(q(z|x) || p(z))"),
            "The KL term over epochs, training and validation.",
        ),
    ]
    if "active_units" in history:
        figures.append(
            Figure(
                charts.from_zero(
                    history, "active_units", "Active units", f"dimensions, of {size}", size
                ),
                "The number of active units over epochs.",
            )
        )
    if "mutual_information" in history:
        figures.append(
            Figure(
                charts.from_zero(
                    history, "mutual_information", "Mutual information I(x; z)", "nats", most
                ),
                "Mutual information over epochs.",
                f"An estimate from {PAIRED} images, which cannot exceed log {PAIRED} = {most:.1f} "
                "nats.",
            )
        )
    text = "The free energy is the sum of the two terms beside it; all are means over images."
    if "val_elbo" in history:
        text += " Training values are means over the steps of an epoch, while the weights change."
    return Section(title, [text], (), figures)


def densities(subject: Subject, found: Latents) -> Section:
    """Figures 3 and 4 of Henrion & Welleck, and the KL of each dimension."""
    history, title = subject.history, "What the flow does to the posterior"
    figures = []
    if "log_prior_std" in history:
        for colour, (name, heading, alt, caption) in enumerate(_DENSITIES):
            drawn = charts.mean_and_deviation(history, name, heading, colour)
            figures.append(Figure(drawn, f"{alt} over epochs.", caption))
        figures.append(
            Figure(charts.kl_over_epochs(history), "Heat map of the KL of each dimension by epoch.")
        )
    figures.append(
        Figure(
            charts.kl_per_dimension(found),
            "Bars: the KL of each latent dimension.",
            f"Mean over {len(found.prior):,} test images.",
        )
    )
    text = [
        "z0 is a draw from the base of q(z|x), and the flow makes zK of it: log qK(zK) = log q0(z0)"
        " - sum of log-dets. The first charts are figures 3 and 4 of the study of flow-based "
        "autoencoders by Henrion and Welleck: a wide band under the prior is a sign of unstable "
        "training, and negative log-dets mean that the flow contracts a broad base.",
        "The KL is that of each dimension of the base from N(0, 1). Without a flow, and with a "
        "standard normal prior, these are the KLs of the latent dimensions and add up to the KL "
        "term; with a flow, they only show how much of the base depends on the image.",
    ]
    if "log_prior_std" not in history:
        text[0] = "There is no record of log-densities over epochs, in history.csv, to draw."
    return Section(title, text, (), figures)


_DENSITIES = (
    (
        "log_prior",
        "log p(zK), under the prior",
        "The log-density of zK under the prior, mean and standard deviation",
        "As in figure 3 of the study",
    ),
    (
        "log_base",
        "log q0(z0), before the flow",
        "The log-density of z0 under the base, mean and standard deviation",
        "As in figure 4 of the study, left",
    ),
    (
        "log_posterior",
        "log qK(zK), after the flow",
        "The log-density of zK under the posterior, mean and standard deviation",
        "As in figure 4 of the study, centre",
    ),
    (
        "log_det",
        "sum of log |det|, of the flow",
        "The sum of the log-determinants, mean and standard deviation",
        "As in figure 4 of the study, right",
    ),
)
