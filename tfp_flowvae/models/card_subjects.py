"""What the cards of the models tell of them."""

from __future__ import annotations

import re
from typing import Any

from tfp_flowvae.models.card import Subject, parts_of

_LIKELIHOOD = "A high likelihood alone does not show that {} is typical of the data."
_COMPARE = (
    "A figure compares only with figures of the same data, prepared and measured in the same way."
)


def vae_subject(vae: Any) -> Subject:
    """What a card tells of a `FlowVAE`."""
    height, width, channels = vae.image_shape
    likelihood = _words(type(vae.likelihood).__name__)
    parts = {
        "images": f"{height} x {width}, {channels} {'channel' if channels == 1 else 'channels'}",
        "z": f"{vae.latent_size} dimensions",
        "encoder": type(vae.encoder).__name__,
        "posterior q(z|x)": parts_of(vae.posterior_layer),
        "prior p(z)": parts_of(vae.prior_layer),
        "decoder": type(vae.decoder).__name__,
        "likelihood p(x|z)": likelihood,
        "parameters": f"{vae.count_params():,}",
        "seed": vae.seed,
    }
    one, each, y = "", "", ""
    if vae.num_classes is not None:
        parts["classes y"] = f"{vae.num_classes}, in the context of posterior and prior"
        one, each, y = "label, ", "labels, ", " label,"
    elif vae.context_size is not None:
        parts["context y"] = f"{vae.context_size} columns, for posterior and prior"
        one, each, y = "context, ", "context, ", " context,"
    usage = [
        f'served.sample(64, {one}0)["images"]  # n,{y} seed -> means of p(x|z)',
        f'served.encode(x, {each}0)["z"]  # x,{y} seed',
        f'served.log_prob(x, {each}1000, 0)["log_prob"]  # x,{y} importance samples, seed -> nats',
    ]
    limits = [
        f"Images are float32 `[B, {height}, {width}, {channels}]` in [0, 1] and are taken as they "
        "are, neither scaled nor made binary.",
        *(
            ["The likelihood is that of binary images: for grey ones log p(x) is none."]
            if likelihood == "bernoulli"
            else []
        ),
        *_labels(vae.num_classes, "images"),
        _COMPARE,
        _LIKELIHOOD.format("an image"),
    ]
    summary = (
        f"A variational autoencoder of images with {vae.latent_size} latent dimensions, whose "
        f"posterior is {parts_of(vae.posterior_layer)} and whose prior is "
        f"{parts_of(vae.prior_layer)}. The SavedModel needs only TensorFlow."
    )
    tags = ["variational-autoencoder", "generative-model"]
    return Subject("unconditional-image-generation", tags, summary, parts, usage, limits)


def density_subject(density: Any) -> Subject:
    """What a card tells of a `FlowDensity`."""
    given, classes = density.context_size, density.num_classes
    condition = {"p(x|context)": given, "p(x|y)": classes}
    parts = {
        "density": next((p for p, size in condition.items() if size is not None), "p(x)"),
        "x": f"{density.event_size} columns",
        **({} if given is None else {"context": f"{given} columns"}),
        **({} if classes is None else {"classes y": classes}),
        "base and flows": parts_of(density.layer),
        "parameters": f"{density.count_params():,}",
        "seed": density.seed,
    }
    one = each = "" if given is None else ", context"
    if classes is not None:
        one, each = ", label", ", labels"
    usage = [
        f'served.sample(1000{one}, 0)["x"]  # n, the seed last',
        f'served.log_prob(x{each})["log_prob"]  # nats, in the units of the data',
    ]
    limits = [
        "Densities are in the units of the columns that the model was fitted to.",
        *_labels(classes, "examples"),
        _COMPARE,
        _LIKELIHOOD.format("a row"),
    ]
    summary = (
        f"A normalizing flow, {parts_of(density.layer)}, that gives the density of "
        f"{density.event_size} columns{_given_in_words(density)} and draws from it. The "
        "SavedModel needs only TensorFlow."
    )
    return Subject("tabular-regression", ["density-estimation"], summary, parts, usage, limits)


def image_density_subject(density: Any) -> Subject:
    """What a card tells of an `ImageDensity`."""
    height, width, channels = density.event_shape
    classes = density.num_classes
    parts = {
        "images": f"{height} x {width}, {channels} {'channel' if channels == 1 else 'channels'}, "
        f"{density.levels} levels",
        **({} if classes is None else {"classes y": classes}),
        "base and flows": parts_of(density.layer),
        "dequantisation": _words(type(density.dequantize).__name__),
        "parameters": f"{density.count_params():,}",
        "seed": density.seed,
    }
    one, each, label = ("", "", "") if classes is None else ("label, ", "labels, ", " label,")
    of_z = "" if classes is None else ", labels"
    usage = [
        f'served.sample(64, {one}0, 0.8)["images"]  # n,{label} seed, temperature -> whole numbers',
        f'served.log_prob(x, {each}1, 0)["log_prob_bound"]  # x,{label} samples, seed -> nats',
        f'served.decode(served.encode(x, {each}0)["z"]{of_z})["images"]  # x again',
    ]
    limits = [
        f"Images are float32 `[B, {height}, {width}, {channels}]` of whole numbers from 0 to "
        f"{density.levels - 1}.",
        "The log-probability is a lower bound, because of the dequantisation.",
        *_labels(classes, "images"),
        _COMPARE,
        _LIKELIHOOD.format("an image"),
    ]
    summary = (
        f"A normalizing flow of images, {parts_of(density.layer)}, that bounds the probability of "
        "an image and draws images. The SavedModel needs only TensorFlow."
    )
    tags = ["density-estimation", "generative-model"]
    return Subject("unconditional-image-generation", tags, summary, parts, usage, limits)


def _labels(num_classes: int | None, examples: str) -> list[str]:
    """What the user of a model with classes has to know of labels."""
    if num_classes is None:
        return []
    return [
        f"Labels are int32, 0 to {num_classes - 1}, or -1 where the class is not known: p(x) is "
        f"then the density that the model has learned for such {examples}, not the mean of p(x|y) "
        "over the classes."
    ]


def _given_in_words(density: Any) -> str:
    if density.num_classes is not None:
        return " given a class"
    return "" if density.context_size is None else " given a context"


def _words(name: str) -> str:
    """`LogisticMixture` as `logistic mixture`."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower()
