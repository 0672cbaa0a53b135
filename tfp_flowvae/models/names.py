"""The words that options take and how they go together, without importing TensorFlow."""

from __future__ import annotations

BOUNDS = ("elbo", "iwae", "dreg")
GRADIENTS = ("total", "stl")
WARMUPS = ("none", "linear", "cyclic")
NOISE_FUNCTIONS = ("decode", "encode", "log_prior", "sample_from_noise")
DEQUANTIZE = ("uniform", "variational")
CONVERTED_FORMATS = ("litert", "onnx")


def objective_conflict(
    bound: str, gradient: str, samples: int, free_bits: float, min_information: float
) -> str | None:
    """What does not go together in an objective, in a sentence, or None."""
    if bound != "elbo" and samples == 1:
        return (
            f"The bound {bound!r} is the plain elbo with one sample: ask for at least 2 samples. "
            "Received: 1."
        )
    if bound != "elbo" and (free_bits or min_information):
        return (
            "Free bits and a minimum of information need a KL term of its own, which only the "
            f"bound 'elbo' has. Received: the bound {bound!r}."
        )
    if bound == "iwae" and gradient == "stl":
        return (
            "The bound 'iwae' has a biased gradient with 'stl' (Tucker et al. 2019): use the bound "
            "'dreg', its unbiased counterpart, with the gradient 'total'. "
            "Received: the bound 'iwae' and the gradient 'stl'."
        )
    if bound == "dreg" and gradient != "total":
        return (
            "The bound 'dreg' has a gradient of its own: leave the gradient at 'total'. "
            f"Received: {gradient!r}."
        )
    if free_bits and min_information:
        return (
            "Give free bits for each dimension or a minimum of information in total, not both. "
            f"Received: {free_bits:g} and {min_information:g}."
        )
    return None
