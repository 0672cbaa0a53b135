"""The Python blocks of the documentation run, top to bottom in one namespace, as they stand."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import keras
import pytest
import tensorflow_probability as tfp

from tfp_flowvae import bijectors as fvb

ROOT = Path(__file__).parents[1]
PAGES = ["docs/from-tfp.md"]


def blocks_of(page):
    """Each Python block, with as many blank lines before it as there are lines of the page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S):
        yield "\n" * text.count("\n", 0, found.start(1)) + found.group(1)


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    namespace = {"__name__": "page"}
    blocks = list(blocks_of(page))
    assert blocks
    with warnings.catch_warnings():
        # The page shows both.
        warnings.filterwarnings("ignore", "`tf.layers.dense` is deprecated", UserWarning)
        warnings.filterwarnings("ignore", "The model does not have any trainable", UserWarning)
        for block in blocks:
            exec(compile(block, str(ROOT / page), "exec"), namespace)


def test_the_errors_that_the_page_on_tfp_quotes():
    tfb, tfd = tfp.bijectors, tfp.distributions
    made = tfb.AutoregressiveNetwork(params=2, hidden_units=[4])
    flow = tfb.MaskedAutoregressiveFlow(made)
    maf = tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [2]), flow)
    names = {"keras": keras, "tfb": tfb, "made": made, "maf": maf}
    text = (ROOT / "docs/from-tfp.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(.+?)` \| `(.+?)\.` \|$", text, re.M)
    assert len(rows) == 3
    for code, message in rows:
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            eval(code, names)
        assert message in str(caught.value).replace("`", "")


def test_the_page_of_the_bijectors_lists_them_all():
    text = (ROOT / "docs/bijectors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", text, re.M)
    listed = [name for row in rows for name in re.findall(r"\w+", row)]
    assert sorted(listed) == sorted(fvb.__all__)


def test_the_pictures_of_the_readme_are_there_and_small():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[([^\]]+)\]\((docs/images/[^)]+)\)", text)
    assert {path for _, path in pictures} >= {f"docs/images/{n}.png" for n in ("flow", "samples")}
    assert all(len(alt) > 20 for alt, _ in pictures)
    assert sum((ROOT / path).stat().st_size for _, path in pictures) < 300_000
