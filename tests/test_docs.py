"""The Python blocks of the documentation run, top to bottom in one namespace, as they stand."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import keras
import pytest
import tensorflow_probability as tfp

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
