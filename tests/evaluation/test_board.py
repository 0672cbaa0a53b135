"""What TensorBoard is given: images, histograms and the projector's files, read back."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfp_flowvae.evaluation.board import Board, write_projector
from tfp_flowvae.evaluation.diagnostics import Diagnostics
from tfp_flowvae.evaluation.plots import image_grid, reconstruction_rows

pytest.importorskip("tensorboard")


def events_of(folder):
    """The events of a run: for each tag, by epoch, the values of its tensor."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), {"tensors": 0}).Reload()
    return {
        tag: {event.step: tf.make_ndarray(event.tensor_proto) for event in events.Tensors(tag)}
        for tag in events.Tags()["tensors"]
    }


@pytest.fixture
def config_of():
    def read(folder):
        from google.protobuf import text_format
        from tensorboard.plugins.projector import ProjectorConfig

        text = (folder / "projector_config.pbtxt").read_text()
        return text_format.Parse(text, ProjectorConfig()).embeddings[0]

    return read


def test_images_histograms_and_latents_are_those_of_the_model(
    make_vae, digits, tmp_path, config_of
):
    vae = make_vae("planar", "realnvp")
    vae.compile("adam")
    labels = [f"digit {i}" for i in range(200)]
    rows = []
    history = vae.fit(
        digits[:100],
        batch_size=50,
        epochs=21,
        verbose=0,
        callbacks=[
            Diagnostics(digits[100:], None, 100, 0),
            Board(tmp_path, digits[:200], 7, labels),
        ],
    )
    folder = tmp_path / "test"
    events = events_of(folder)
    assert set(events) == {"base_kl", "samples", "reconstructions"}
    assert list(events["samples"]) == [0, *range(1, 21, 2)]
    assert list(events["reconstructions"]) == list(events["samples"])
    rows = reconstruction_rows(digits[:20], vae.reconstruct(digits[:20], 7).numpy())
    last = {
        "samples": image_grid(vae.sample(64, 7).numpy()),
        "reconstructions": np.concatenate(rows),
    }
    for name, wanted in last.items():
        # One more epoch has been trained since: the pictures differ, but not in their shapes.
        _, _, picture = events[name][19]
        assert tf.io.decode_png(picture).shape == wanted.shape
    assert list(events["base_kl"]) == list(range(21))
    for epoch, buckets in events["base_kl"].items():
        values = [history.history[f"base_kl_{i}"][epoch] for i in range(4)]
        assert buckets[:, 2].sum() == 4
        np.testing.assert_array_equal(
            buckets[[0, -1], [0, 1]], np.float32([min(values), max(values)])
        )
    embedding = config_of(folder)
    latents = np.loadtxt(folder / embedding.tensor_path, delimiter="\t")
    # Six digits are written.
    np.testing.assert_allclose(latents, vae.encode(digits[:200], 7), rtol=5e-6)
    assert (folder / embedding.metadata_path).read_text().splitlines() == labels
    sprite = np.asarray(Image.open(folder / embedding.sprite.image_path))
    assert list(embedding.sprite.single_image_dim) == [8, 8]
    assert sprite.shape == (15 * 8, 15 * 8, 3)
    np.testing.assert_array_equal(sprite[8:16, 24:32, 1], 255 * digits[18, :, :, 0])


def test_pictures_are_those_of_the_epoch(make_vae, digits, tmp_path):
    vae = make_vae()
    vae.compile("adam")
    vae.fit(digits, epochs=1, verbose=0, callbacks=[Board(tmp_path, digits, 7)])
    _, _, picture = events_of(tmp_path / "test")["samples"][0]
    np.testing.assert_array_equal(tf.io.decode_png(picture), image_grid(vae.sample(64, 7).numpy()))


def test_nothing_is_written_of_a_model_that_is_not_finite(make_vae, digits, tmp_path):
    vae = make_vae()
    vae.compile("adam")
    vae.set_weights([np.full_like(weight, np.nan) for weight in vae.get_weights()])
    vae.fit(digits, epochs=1, verbose=0, callbacks=[Board(tmp_path, digits, 7)])
    assert events_of(tmp_path / "test") == {}
    assert [file.name.split(".")[0] for file in (tmp_path / "test").iterdir()] == ["events"]


def test_large_pictures_are_made_smaller_and_labels_may_lack(tmp_path, config_of):
    images = np.zeros([3, 200, 100, 3], np.float32)
    images[1, :100] = (1.0, 0.5, 0.0)
    write_projector(tmp_path, np.eye(3), images)
    embedding = config_of(tmp_path)
    assert not embedding.metadata_path
    assert list(embedding.sprite.single_image_dim) == [32, 64]
    sprite = np.asarray(Image.open(tmp_path / embedding.sprite.image_path))
    assert sprite.shape == (128, 64, 3)
    np.testing.assert_array_equal(sprite[0, 32:, 0], np.full(32, 255))
    assert not sprite[40:].any()
