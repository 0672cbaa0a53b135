"""The run's folder: claimed, written aside, renamed; nothing half done."""

import pytest

from tfp_flowvae.cli.folder import RunFolder
from tfp_flowvae.errors import UserError


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def publish(path=None, stem="digits-iaf", overwrite=False):
    with RunFolder(path, stem, overwrite) as folder:
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


def test_an_error_leaves_nothing(tmp_path):
    def fail():
        with RunFolder(None, "x") as folder:
            (folder.staging / "file").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list((tmp_path / "saved_models").iterdir()) == []


def test_an_error_leaves_a_folder_of_the_users_as_it_was(tmp_path):
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
    assert [p.name for p in tmp_path.rglob("*")] == ["full", "file"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write to"):
        publish(tmp_path / "file" / "below")
