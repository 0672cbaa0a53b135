"""An mkdocs hook: each example, a notebook written as a script, becomes a page with its results.

The cells are those of examples/NAME.py, the picture is docs/images/examples/NAME.png, which
`docs/make_images.py` makes, and the figures are the section NAME of examples/README.md.
"""

from __future__ import annotations

from pathlib import Path

import jupytext
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

EXAMPLES = Path(__file__).parents[1] / "examples"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages `examples/NAME.md`, which the navigation names."""
    for script in sorted(EXAMPLES.glob("[!_]*.py")):
        notebook = jupytext.read(script, fmt="py:percent")
        name, cells = script.stem, jupytext.writes(notebook, fmt="md")
        content = f"""{cells}
## What comes out

![The picture that {script.name} writes](../images/examples/{name}.png)

--8<-- "examples/README.md:{name}"
"""
        files.append(File.generated(config, f"examples/{name}.md", content=content))
    return files
