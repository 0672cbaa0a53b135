"""Nothing in the project unpickles, or loads what could run code."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PICKLING = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
SOURCES = [
    ROOT / "train.py",
    *(
        p
        for d in ("tfp_flowvae", "benchmarks", "examples")
        for p in sorted((ROOT / d).rglob("*.py"))
    ),
]


def complaints(source):
    """What in a source text could run code from a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            roots = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            roots = [(node.module or "").split(".")[0]]
        else:
            roots = []
        yield from (f"line {node.lineno}: imports {name}" for name in roots if name in PICKLING)
        if not isinstance(node, ast.Call):
            continue
        given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
        if given.get("allow_pickle", False) is not False:
            yield f"line {node.lineno}: allow_pickle"
        if given.get("safe_mode", True) is not True:
            yield f"line {node.lineno}: safe_mode"
        called = ast.unparse(node.func)
        if called in {"np.load", "numpy.load", "np.lib.format.read_array"} and (
            "allow_pickle" not in given
        ):
            yield f"line {node.lineno}: {called} without allow_pickle=False"
        if called == "torch.load" or called.endswith("enable_unsafe_deserialization"):
            yield f"line {node.lineno}: {called}"


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "def f():\n    import dill",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.save(path, x, allow_pickle=flag)",
        "keras.saving.load_model(path, safe_mode=False)",
        "keras.config.enable_unsafe_deserialization()",
        "np.lib.format.read_array(file)",
    ],
)
def test_the_search_finds_unsafe_code(source):
    assert list(complaints(source))


def test_no_source_unpickles():
    assert len(SOURCES) > 100
    found = {
        str(path.relative_to(ROOT)): said
        for path in SOURCES
        if (said := list(complaints(path.read_text(encoding="utf-8"))))
    }
    assert found == {}
