from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds

from tfp_flowvae.data import catalog
from tfp_flowvae.data.catalog import check_catalog, in_catalog, open_catalog, resolve_data_dir
from tfp_flowvae.errors import UserError


@pytest.fixture
def offline(monkeypatch):
    """No server answers, and TFDS must not try a download, which would take minutes."""
    asked = []

    def head(url, timeout):
        asked.append(url)
        assert timeout <= 10
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.setattr(requests, "head", head)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", never)
    return asked


def read_catalog(name, data_dir):
    parts, _ = open_catalog(name, data_dir)
    return {split: np.concatenate(list(part.images(None))) for split, part in parts.items()}


def never(*args, **kwargs):
    raise AssertionError("a download was tried")


def test_reads_a_prepared_data_set_by_name(tiny_dir, offline):
    parts = read_catalog("tiny_pictures", str(tiny_dir))
    sizes = {split: len(images) for split, images in parts.items()}
    assert sizes == {"train": 13, "valid": 4, "test": 5}
    assert check_catalog("tiny_pictures", str(tiny_dir))
    for images in parts.values():
        assert images.dtype == np.uint8
        assert images.shape[1:] == (3, 5, 3)
        expected = {10 * i + 60 for i in range(len(images))}
        assert {int(image[0, 0, 0]) for image in images} == expected
        assert (images == images[:, :1, :1, :1]).all()
    again = read_catalog("tiny_pictures", str(tiny_dir))
    np.testing.assert_array_equal(again["train"], parts["train"])
    assert not offline


def test_data_dir(tiny_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tiny_dir))
    assert resolve_data_dir(None) == tiny_dir
    assert resolve_data_dir(str(tmp_path)) == tmp_path
    assert in_catalog("tiny_pictures", None)
    assert not in_catalog("tiny_pictures", str(tmp_path))
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_data_dir(None) == tmp_path / "tensorflow_datasets"
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data_dir must be a folder.*file', which is a file\.$"):
        check_catalog("mnist", str(tmp_path / "file"))


@pytest.mark.parametrize("function", [check_catalog, read_catalog])
@pytest.mark.parametrize("name", ["mnist", "mnist:3.0.1", "fashion_mnist", "emnist/balanced"])
def test_out_of_reach(function, name, tmp_path, offline):
    with pytest.raises(UserError) as caught:
        function(name, str(tmp_path / "tfds"))
    message = str(caught.value)
    assert f"'{name}' is not in '{tmp_path}/tfds' and cannot be downloaded here" in message
    base = name.split(":")[0].split("/")[0]
    assert f"tfds.load('{name}'" in message
    assert f"copy 'tfds/{base}' to '{tmp_path}/tfds/{base}'" in message
    assert "--data-dir" in message
    assert message.endswith("does not answer.")
    assert len(offline) == 1
    assert not (tmp_path / "tfds").exists()


def test_a_failing_download(tmp_path, monkeypatch):
    def fail(self):
        raise AssertionError("\n\nManual directory is empty.\nInstructions: ...")

    monkeypatch.setattr(requests, "head", lambda url, timeout: None)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    assert not check_catalog("mnist", str(tmp_path))
    with pytest.raises(UserError, match=r"cannot be.*Received: Manual directory is empty\.$"):
        read_catalog("mnist", str(tmp_path))


def test_downloads_when_needed(tiny_builder, tmp_path, monkeypatch):
    builder = tiny_builder(data_dir=str(tmp_path))
    monkeypatch.setattr(catalog, "_builder", lambda name, data_dir: builder)
    assert not builder.is_prepared()
    assert len(read_catalog("tiny_pictures", str(tmp_path))["train"]) == 13
    assert builder.is_prepared()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("minst", r"that TensorFlow Datasets knows\. Received: 'minst'\. Did you mean 'mnist'"),
        ("iris", r"must have an 'image' feature.*Received: 'features', 'label'\.$"),
        ("imagenet2012", r"one size with 1 or 3 channels.*shape \(None, None, 3\)\.$"),
        ("mnist:9.9.9", r"cannot make 'mnist:9\.9\.9'; check its name, config and version\."),
        ("mnist/nonesuch", r"cannot make 'mnist/nonesuch'.*Received: .*nonesuch not found"),
        ("huggingface:mnist", r"that TensorFlow Datasets knows\. Received: 'huggingface:mnist'"),
    ],
)
def test_wrong_names_are_refused(name, message, tmp_path, offline):
    for function in (check_catalog, read_catalog):
        with pytest.raises(UserError, match=message):
            function(name, str(tmp_path))
    assert not offline


@pytest.mark.parametrize(
    ("available", "chosen"),
    [
        (("train", "test"), {"train": "train", "test": "test"}),
        (("test",), {"train": "test"}),
        (("train", "val", "extra"), {"train": "train", "valid": "val"}),
        (("small1", "test"), None),
        ((), None),
    ],
)
def test_splits(available, chosen, monkeypatch):
    class Builder:
        class info:  # noqa: N801
            splits = dict.fromkeys(available)

    if chosen is None:
        with pytest.raises(UserError, match=r"must have a 'train' split, or just one split\. Rec"):
            catalog._choose_splits(Builder, "some")
    else:
        assert catalog._choose_splits(Builder, "some") == chosen


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "missing", "emptied"])
def test_damaged_files(damage, tiny_dir, tmp_path):
    folder = shutil.copytree(tiny_dir, tmp_path / "tfds")
    record = next(folder.glob("tiny_pictures/*/*train*tfrecord*"))
    content = record.read_bytes()
    if damage == "truncated":
        record.write_bytes(content[:-7])
    elif damage == "overwritten":
        record.write_bytes(content[:20] + bytes(40) + content[60:])
    elif damage == "emptied":
        record.write_bytes(b"")
    else:
        record.unlink()
    with pytest.raises(UserError, match=r"'tiny_pictures' in '.*' are damaged; .*Received: "):
        read_catalog("tiny_pictures", str(folder))


def test_a_damaged_description(tiny_dir, tmp_path):
    folder = shutil.copytree(tiny_dir, tmp_path / "tfds")
    description = next(folder.glob("tiny_pictures/*/dataset_info.json"))
    description.write_text(json.dumps({"name": "tiny_pictures"})[:-5])
    with pytest.raises(UserError, match=r"cannot make 'tiny_pictures'.*Received: "):
        read_catalog("tiny_pictures", str(folder))


def test_checks_do_not_load_tensorflow(tmp_path):
    """Names and prepared folders are checked before the slow import."""
    code = (
        "import sys\n"
        "from tfp_flowvae.data import check_dataset, load_images\n"
        "from tfp_flowvae.errors import UserError\n"
        "check_dataset('digits')\n"
        "for wrong in ('minst', 'iris', 'no.npz', '.'):\n"
        "    try:\n"
        "        check_dataset(wrong)\n"
        "    except UserError:\n"
        "        continue\n"
        "    raise SystemExit(wrong)\n"
        "load_images('digits')\n"
        "raise SystemExit('tensorflow' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=tmp_path)
