"""Workers other than the chief resume from its run and leave no files behind."""

from __future__ import annotations

import pytest

from tfp_flowvae.errors import UserError
from tfp_flowvae.runs.worker import WorkerFolder


def test_a_worker_resumes_from_the_chiefs_run_and_writes_elsewhere(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    with WorkerFolder(tmp_path, resume=True) as folder:
        # The chief and the other workers look for run.json in the same folder.
        assert folder.earlier.parent == tmp_path
        assert folder.path == tmp_path
        folder.write_config("other")
        (folder.staging / "model.keras").write_text("mine")
        folder.publish()
        assert not folder.has_state
        assert tmp_path not in folder.staging.parents
        assert tmp_path not in folder.checkpoints.parents
        kept = folder.home
    assert sorted(tmp_path.rglob("*")) == before
    assert not kept.exists()


def test_without_resume_a_worker_starts_anew_and_resume_needs_a_run(tmp_path):
    with WorkerFolder(tmp_path) as folder:
        assert folder.earlier == folder.checkpoints
    with pytest.raises(UserError, match="holds no run to resume"):
        WorkerFolder(tmp_path, resume=True)
