"""Imports point up the list of folders in CONTRIBUTING.md, and there is no import cycle."""

import ast
import graphlib
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "tfp_flowvae"
FOLDERS = re.findall(rf"^    {PACKAGE}/(\w+)/ ", (ROOT / "CONTRIBUTING.md").read_text(), re.M)


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in (ROOT / PACKAGE).rglob("*.py")}


def imports_of(path, modules=frozenset(MODULES)):
    """The modules of the package that a file imports, inside functions and TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else node.module for name in submodules}
    return found & modules


IMPORTS = {module: imports_of(path) for module, path in MODULES.items()}


def folder_of(module):
    """The folder of a module; None for the modules beside the folders."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in FOLDERS else None


def downward(module, imported):
    """Whether an import points down the list of folders."""
    below, above = folder_of(module), folder_of(imported)
    return None not in (below, above) and FOLDERS.index(above) > FOLDERS.index(below)


def test_the_list_has_every_folder():
    folders = {path.parent.name for path in (ROOT / PACKAGE).glob("*/__init__.py")}
    assert set(FOLDERS) == folders
    assert len(FOLDERS) == len(folders)


def test_imports_point_up_the_list():
    wrong = [f"{m} imports {i}" for m, found in IMPORTS.items() for i in found if downward(m, i)]
    assert wrong == []


def test_there_is_no_import_cycle():
    try:
        graphlib.TopologicalSorter(IMPORTS).prepare()
    except graphlib.CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from None


def test_the_search_sees_every_kind_of_import(tmp_path):
    source = tmp_path / "module.py"
    source.write_text(
        "import tfp_flowvae.spec\n"
        "if TYPE_CHECKING:\n    from tfp_flowvae.runs import config\n"
        "def f():\n    from tfp_flowvae.flows import FLOWS\n"
    )
    seen = {"tfp_flowvae.spec", "tfp_flowvae.runs.config", "tfp_flowvae.flows"}
    assert imports_of(source) == seen
    assert downward("tfp_flowvae.flows.spec", "tfp_flowvae.runs.config")
    assert not downward("tfp_flowvae.runs.config", "tfp_flowvae.flows.spec")
    assert not downward("tfp_flowvae.runs.config", "tfp_flowvae.spec")
