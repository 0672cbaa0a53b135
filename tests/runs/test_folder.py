"""The folder of a run: results are written aside and renamed, never incomplete."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tfp_flowvae.errors import UserError
from tfp_flowvae.runs.folder import RunFolder
from tfp_flowvae.runs.store import CheckpointStore

RESULTS = ("history.csv", "saved_model.pb", "run.json", "variables/data")


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def publish(path=None, stem="digits-iaf", overwrite=False):
    with RunFolder(path, stem, overwrite) as folder:
        folder.write_config("{}")
        (folder.staging / "file").write_text("new")
        folder.publish()
    return folder.path


def test_numbered_names_follow_each_other(tmp_path):
    names = [publish().name for _ in range(3)]
    assert names == ["digits-iaf-001", "digits-iaf-002", "digits-iaf-003"]
    assert sorted(p.name for p in (tmp_path / "saved_models").iterdir()) == names


def test_numbered_names_are_safe_in_a_shell():
    assert publish(stem="my data-householder:4+iaf:2").name == "my-data-householder-4-iaf-2-001"


def test_two_runs_at_once_get_two_names():
    with RunFolder(None, "x") as one, RunFolder(None, "x") as two:
        assert one.path != two.path


@pytest.mark.parametrize("path", [None, Path("a/b/run")])
def test_the_folders_that_were_made_are_removed_after_an_error(path, tmp_path):
    def fail():
        with RunFolder(path, "x") as folder:
            (folder.staging / "file").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
    finished = publish(path)
    if path is None:
        with pytest.raises(RuntimeError):
            fail()
    assert [entry.name for entry in finished.parent.iterdir()] == [finished.name]


@pytest.mark.parametrize("theirs", [True, False])
def test_an_error_is_not_hidden_when_the_folder_was_deleted(theirs, tmp_path):
    def fail():
        with RunFolder(tmp_path / "run", "x") as folder:
            shutil.rmtree(folder.path)
            raise RuntimeError("mine")

    if theirs:
        (tmp_path / "run").mkdir()
    with pytest.raises(RuntimeError, match="mine"):
        fail()


def test_an_error_leaves_an_existing_folder_unchanged(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(RuntimeError), RunFolder(tmp_path / "mine", "x"):
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_takes_an_empty_folder_and_makes_parents(tmp_path):
    (tmp_path / "empty").mkdir()
    assert (publish(tmp_path / "empty") / "file").exists()
    assert (publish(tmp_path / "a" / "b") / "file").exists()


def test_refuses_a_full_folder_and_a_file(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing").write_text("old")
    with pytest.raises(UserError, match=r"not empty.*--overwrite"):
        publish(tmp_path / "full")
    with pytest.raises(UserError, match="is a file"):
        publish(tmp_path / "full" / "thing", overwrite=True)
    assert [p.name for p in tmp_path.rglob("*")] == ["full", "thing"]


def test_overwrite_replaces_only_at_the_end(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing").write_text("old")
    with pytest.raises(RuntimeError), RunFolder(tmp_path / "full", "x", overwrite=True):
        raise RuntimeError
    assert (tmp_path / "full" / "thing").read_text() == "old"
    publish(tmp_path / "full", overwrite=True)
    assert visible(tmp_path / "full") == ["config.json", "file"]


def test_an_unwritable_place_is_an_error_of_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write to"):
        publish(tmp_path / "file" / "below")


def save(folder, epoch=1):
    """Saves a checkpoint in the folder of a run."""
    state = {"epoch": epoch, "step": 0, "rows": [], "config": {}}
    CheckpointStore(folder.checkpoints).save(epoch, state, {})


def begin(path, epochs=1, **kwargs):
    """Starts a run, saves its last checkpoint and writes its results aside."""
    folder = RunFolder(path, "x", **kwargs)
    folder.write_config(str(epochs))
    save(folder, epochs)
    for name in RESULTS:
        (folder.staging / name).parent.mkdir(exist_ok=True)
        (folder.staging / name).write_text(str(epochs))
    return folder


def visible(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())


def finished(path, epochs):
    """Whether a folder holds the complete results of this many epochs and nothing else."""
    texts = {name: (path / name).read_text() for name in (*RESULTS, "config.json")}
    number = len(CheckpointStore(path / "checkpoints").files())
    extra = [name for name in visible(path) if name not in texts and "checkpoints/" not in name]
    return set(texts.values()) == {str(epochs)} and extra == [] and number in (1, 2)


def test_a_run_with_a_checkpoint_stays_and_can_be_resumed(tmp_path):
    with pytest.raises(RuntimeError), begin(tmp_path / "a"):
        raise RuntimeError
    assert visible(tmp_path / "a") == ["checkpoints/step-0000000001.checkpoint", "config.json"]
    with pytest.raises(UserError, match="--resume to continue the run in it, or --overwrite"):
        RunFolder(tmp_path / "a", "x")
    with begin(tmp_path / "a", 2, resume=True) as folder:
        folder.publish()
    assert finished(tmp_path / "a", 2)
    # The old results stay until the new ones are complete.
    with begin(tmp_path / "a", 3, resume=True) as folder:
        assert (tmp_path / "a" / "run.json").read_text() == "2"
        folder.publish()
    assert finished(tmp_path / "a", 3)


@pytest.mark.parametrize("resume", [True, False], ids=["grown", "replaced"])
@pytest.mark.parametrize("survived", range(14))
def test_killed_while_results_are_moved_in(tmp_path, monkeypatch, resume, survived):
    """A process that dies after this many renames, as by kill -9, can be resumed to the end."""
    path, rename, left = tmp_path / "run", Path.rename, [survived]
    with begin(path, 1) as folder:
        folder.publish()
    (path / "mine").write_text("mine") if not resume else None

    def until_killed(self, target):
        if left[0] == 0:
            raise SystemExit
        left[0] -= 1
        return rename(self, target)

    folder = begin(path, 2, **({"resume": True} if resume else {"overwrite": True}))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", until_killed)
        try:
            folder.publish()
            killed = False
        except SystemExit:
            killed = True
    folder._lock.release()  # as a dead process does
    # No reader finds a model without its variables, or a mixture of two models.
    if (path / "saved_model.pb").exists():
        model = (path / "saved_model.pb").read_text()
        assert (path / "variables" / "data").read_text() == model
    if (path / "run.json").exists():
        record = (path / "run.json").read_text()
        assert all((path / name).read_text() == record for name in RESULTS)
    if killed:
        with begin(path, 2, resume=True) as folder:
            folder.publish()
    else:
        folder.__exit__(None, None, None)
    assert finished(path, 2)


def test_publishing_renames_fewer_files_than_the_kill_test_covers(tmp_path, monkeypatch):
    """So the kill test reaches the last rename."""
    counted, rename = [], Path.rename
    monkeypatch.setattr(Path, "rename", lambda s, t: (counted.append(s), rename(s, t))[1])
    with begin(tmp_path / "run", 1) as folder:
        folder.publish()
    counted.clear()
    with begin(tmp_path / "run", 2, overwrite=True) as folder:
        folder.publish()
    assert 8 <= len(counted) < 14


def test_a_killed_overwriting_run_can_be_resumed(tmp_path):
    path = tmp_path / "run"
    with begin(path, 1) as folder:
        folder.publish()
    killed = begin(path, 2, overwrite=True)
    killed._lock.release()
    assert (path / "run.json").read_text() == "1"
    with begin(path, 2, resume=True) as folder:
        assert folder.home != path
        folder.publish()
    assert finished(path, 2)


def test_a_second_run_in_the_same_folder_is_refused_and_the_first_continues(tmp_path):
    with begin(tmp_path / "a") as first:
        for kwargs in ({}, {"overwrite": True}, {"resume": True}):
            with pytest.raises(UserError, match="Another run is writing to"):
                RunFolder(tmp_path / "a", "x", **kwargs)
        first.publish()
    assert finished(tmp_path / "a", 1)


def test_the_lock_dies_with_its_process(tmp_path):
    code = (
        "import os, signal, pathlib\n"
        "from tfp_flowvae.runs.folder import RunFolder\n"
        "folder = RunFolder(pathlib.Path('a'))\n"
        "folder.write_config('1')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert (tmp_path / "a" / ".lock").exists()
    with begin(tmp_path / "a", 1, resume=True) as folder:
        folder.publish()
    assert finished(tmp_path / "a", 1)


def test_resuming_a_folder_without_a_run_changes_nothing(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thing").write_text("")
    for path in ("mine", "nowhere"):
        with pytest.raises(UserError, match="holds no run to resume"):
            RunFolder(tmp_path / path, resume=True)
    assert visible(tmp_path) == ["mine/thing"]
    assert not (tmp_path / "nowhere").exists()


def test_a_resumed_run_that_fails_before_a_checkpoint_keeps_its_config(tmp_path):
    killed = RunFolder(tmp_path / "a")
    killed.write_config("1")
    killed._lock.release()
    with pytest.raises(RuntimeError), RunFolder(tmp_path / "a", resume=True):
        raise RuntimeError
    assert visible(tmp_path / "a") == ["config.json"]
