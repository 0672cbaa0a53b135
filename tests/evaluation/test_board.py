"""What TensorBoard is given: images, histograms and the projector's files, read back."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfp_flowvae.evaluation.board import Board, write_projector
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


def train(model, board, logs):
    """Calls the board as `fit` does, with the logs of each epoch; no weight changes."""
    board.set_model(model)
    board.set_params({"epochs": len(logs)})
    board.on_train_begin()
    for epoch, values in enumerate(logs):
        board.on_epoch_end(epoch, values)
    board.on_train_end()


def test_images_histograms_and_latents_are_those_of_the_model(
    make_vae, stir, digits, tmp_path, config_of
):
    vae = stir(make_vae("planar"))
    labels = [f"digit {i}" for i in range(200)]
    kl = np.random.default_rng(0).random([21, 4]).astype(np.float32)
    logs = [
        {"loss": 1.0, "kl": 9.0, **{f"base_kl_{i}": v for i, v in enumerate(row)}} for row in kl
    ]
    train(vae, Board(tmp_path, digits[:200], 7, labels), logs)
    folder = tmp_path / "test"
    events = events_of(folder)
    assert set(events) == {"base_kl", "samples", "reconstructions"}
    rows = reconstruction_rows(digits[:20], vae.reconstruct(digits[:20], 7).numpy())
    pictures = {
        "samples": image_grid(vae.sample(64, 7).numpy()),
        "reconstructions": np.concatenate(rows),
    }
    for name, wanted in pictures.items():
        assert list(events[name]) == [0, *range(1, 21, 2)]
        for _, _, picture in events[name].values():
            np.testing.assert_array_equal(tf.io.decode_png(picture), wanted)
    assert list(events["base_kl"]) == list(range(21))
    for epoch, buckets in events["base_kl"].items():  # Each bucket: left edge, right edge, count.
        assert buckets[:, 2].sum() == 4
        np.testing.assert_array_equal(buckets[[0, -1], [0, 1]], [kl[epoch].min(), kl[epoch].max()])
    embedding = config_of(folder)
    latents = np.loadtxt(folder / embedding.tensor_path, delimiter="\t")
    # Six digits are written.
    np.testing.assert_allclose(latents, vae.encode(digits[:200], 7), rtol=5e-6)
    assert (folder / embedding.metadata_path).read_text().splitlines() == labels
    sprite = np.asarray(Image.open(folder / embedding.sprite.image_path))
    assert list(embedding.sprite.single_image_dim) == [8, 8]
    assert sprite.shape == (15 * 8, 15 * 8, 3)
    np.testing.assert_array_equal(sprite[8:16, 24:32, 1], 255 * digits[18, :, :, 0])


def test_nothing_is_written_of_a_model_that_is_not_finite(make_vae, digits, tmp_path):
    vae = make_vae()
    vae.set_weights([np.full_like(weight, np.nan) for weight in vae.get_weights()])
    train(vae, Board(tmp_path, digits, 7), [{"loss": np.nan, "base_kl_0": np.nan}])
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
