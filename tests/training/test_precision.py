from __future__ import annotations

import keras
import pytest

from tfp_flowvae.training.precision import precision_warning, set_precision


@pytest.fixture(autouse=True)
def _policy():
    previous = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(previous)


def test_sets_kerass_policy_and_leaves_xla_where_it_has_no_fast_products(monkeypatch):
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: [])
    assert set_precision("float32")
    assert not set_precision("mixed_bfloat16")
    assert keras.config.dtype_policy().name == "mixed_bfloat16"
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: [kind])
    assert set_precision("mixed_bfloat16")


@pytest.mark.parametrize(
    ("flags", "warns"), [("fpu avx2", True), ("fpu avx512_bf16", False), ("amx_bf16", False)]
)
def test_warns_where_bfloat16_is_slow(flags, warns, tmp_path, monkeypatch):
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: [])
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nmodel name : One\nflags\t\t: {flags}\n")
    warning = precision_warning("mixed_bfloat16", cpuinfo)
    assert (warning is not None) == warns
    assert precision_warning("float32", cpuinfo) is None
    assert precision_warning("mixed_bfloat16", tmp_path / "missing") is None
    if warns:
        assert "AMX" in warning
        assert "mixed_bfloat16" in warning
