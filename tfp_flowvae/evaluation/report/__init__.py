"""A self-contained HTML page about a trained model."""

from tfp_flowvae.evaluation.report.page import render
from tfp_flowvae.evaluation.report.subject import DensitySubject, Subject

__all__ = ["DensitySubject", "Subject", "render"]
