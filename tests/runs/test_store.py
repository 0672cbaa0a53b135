"""Checkpoint files: written completely or not at all, checked, the last two kept."""

import errno
import io
import os
import random
import resource
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

from tfp_flowvae import _files as files
from tfp_flowvae.errors import UserError
from tfp_flowvae.runs import store
from tfp_flowvae.runs.store import CheckpointStore

STATE = {"epoch": 1, "step": 0, "rows": [{"loss": 0.1, "kl": float("nan")}], "config": {"seed": 0}}
ARRAYS = {
    "model/0000/dense/kernel": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "model/0001/seeds": np.array([2**32 - 1, 0], np.uint32),
    "optimizer/0000/iteration": np.array(12, np.int64),
    "best/0000/none": np.zeros((0, 3), np.float16),
}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def write(folder, *steps):
    kept = CheckpointStore(folder)
    return [kept.save(n, {**STATE, "epoch": n}, ARRAYS) for n in steps]


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_reads_what_was_written(folder):
    write(folder, 3)
    found = CheckpointStore(folder).newest()
    assert set(found.arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found.arrays[name], array, strict=True)
    assert found.state["epoch"] == 3
    assert found.state["rows"][0]["loss"] == 0.1
    assert np.isnan(found.state["rows"][0]["kl"])
    assert not found.stopped_early


def test_an_empty_folder_has_no_checkpoint(folder):
    assert CheckpointStore(folder).newest() is None
    assert CheckpointStore(folder).files() == []


def test_the_last_two_are_kept_in_the_order_of_the_steps(folder):
    last = write(folder, 9, 10, 99, 100)
    assert names(folder) == [last[2].name, last[3].name]
    assert CheckpointStore(folder).newest().path == last[3]
    assert oct(last[3].stat().st_mode) == oct(last[2].stat().st_mode)


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "flipped":
        content[random.Random(0).randrange(len(content))] ^= 16
    elif how == "truncated":
        del content[len(content) // 2 :]
    elif how == "empty":
        content.clear()
    else:
        content += b"\0"
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["flipped", "truncated", "empty", "longer"])
def test_a_damaged_checkpoint_is_skipped_with_a_warning(how, folder, capsys):
    good, bad = write(folder, 1, 2)
    damage(bad, how)
    kept = CheckpointStore(folder)
    assert kept.newest().path == good
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert bad.name in warning
    assert good.name in warning
    # The damaged file is not one of the two good ones that are kept.
    kept.save(3, STATE, ARRAYS)
    assert names(folder) == [good.name, "step-0000000003.checkpoint"]


def test_every_flipped_bit_is_detected(folder):
    (path,) = write(folder, 1)
    content = path.read_bytes()
    for position in random.Random(1).sample(range(len(content)), 200):
        broken = bytearray(content)
        broken[position] ^= 1 << position % 8
        path.write_bytes(broken)
        with pytest.raises(UserError, match="are damaged"):
            CheckpointStore(folder).newest()


def test_only_damaged_checkpoints_are_an_error_of_one_sentence(folder):
    for path in write(folder, 1, 2):
        damage(path, "truncated")
    with pytest.raises(UserError, match=r"are damaged.*step-0000000002.*step-0000000001") as caught:
        CheckpointStore(folder).newest()
    assert "\n" not in str(caught.value)


class Planted:
    """Unpickling it fails the test."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_objects_are_neither_written_nor_read(folder):
    planted = np.array([Planted()], object)
    with pytest.raises(ValueError, match="Object arrays"):
        CheckpointStore(folder).save(1, STATE, {"model/x": planted})
    assert names(folder) == []
    # A file made by someone else, with the right checksum.
    (path,) = write(folder, 1)
    member = io.BytesIO()
    np.lib.format.write_array(member, planted, allow_pickle=True)
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        state = archive.read("state.json")
    payload = io.BytesIO()
    with zipfile.ZipFile(payload, "w") as archive:
        archive.writestr("state.json", state)
        archive.writestr("model/x.npy", member.getvalue())
    total = store.hashlib.sha256(payload.getvalue()).hexdigest()
    path.write_bytes(store._MARK + total.encode() + b"\n" + payload.getvalue())
    with pytest.raises(UserError, match="Object arrays"):
        CheckpointStore(folder).newest()


@pytest.fixture
def small_files():
    """Makes the kernel refuse files of more than 500 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_size_limit_leaves_the_last_checkpoint(folder, request):
    kept = CheckpointStore(folder)
    kept.save(1, STATE, ARRAYS)
    before = {p: p.read_bytes() for p in folder.iterdir()}
    request.getfixturevalue("small_files")
    with pytest.raises(UserError, match=r"File too large; step-0000000001\.checkpoint is intact"):
        kept.save(2, STATE, ARRAYS)
    assert {p: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_last_checkpoint(call, folder, monkeypatch):
    kept = CheckpointStore(folder)
    kept.save(1, STATE, ARRAYS)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(*((files.os, "fsync") if call == "fsync" else (files.Path, "replace")), full)
        with pytest.raises(UserError, match="No space left on device") as caught:
            kept.save(2, STATE, ARRAYS)
    assert "step-0000000002" in str(caught.value)
    assert names(folder) == ["step-0000000001.checkpoint"]
    kept.save(2, STATE, ARRAYS)
    assert CheckpointStore(folder).newest().path.name == "step-0000000002.checkpoint"


def test_an_unwritable_place_is_an_error_of_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write the checkpoint .*file"):
        CheckpointStore(tmp_path / "file" / "checkpoints").save(1, STATE, ARRAYS)


WRITER = """
import sys, pathlib, numpy as np
from tfp_flowvae.runs.store import CheckpointStore
kept = CheckpointStore(pathlib.Path(sys.argv[1]))
found = kept.newest()
n = 0 if found is None else found.state["epoch"]
print("ready", flush=True)
while True:
    n += 1
    state = {"epoch": n, "step": 0, "rows": [], "config": {}}
    kept.save(n, state, {f"model/{i}": np.full(200_000, n, np.float32) for i in range(10)})
"""


def test_a_writer_killed_at_any_moment_leaves_an_intact_checkpoint(folder, capsys):
    chance, done, unfinished = random.Random(0), 0, 0
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE
        )
        assert process.stdout.readline() == b"ready\n"
        time.sleep(chance.uniform(0.1, 0.3))
        if unfinished == 0:  # at least one kill is certain to fall within a write
            deadline = time.monotonic() + 20
            while not list(folder.glob(".step-*")) and time.monotonic() < deadline:
                pass
        process.send_signal(signal.SIGKILL)
        process.communicate()
        unfinished += len(list(folder.glob(".step-*")))
        found = CheckpointStore(folder).newest()
        assert capsys.readouterr().err == ""
        assert found.state["epoch"] >= done
        done = found.state["epoch"]
        assert all((array == done).all() for array in found.arrays.values())
        assert len(CheckpointStore(folder).files()) <= 3  # killed before it tidied
    assert unfinished > 0
    CheckpointStore(folder).newest()
    write(folder, done + 1)
    assert not list(folder.glob(".step-*"))
