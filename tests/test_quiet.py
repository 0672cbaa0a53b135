"""What a run's process imports, seen from a process of its own."""

import subprocess
import sys

PROGRAM = """
import sys
from tfp_flowvae._quiet import import_tensorflow
{before}
import_tensorflow()
print([name in sys.modules for name in ("keras", "sklearn", "matplotlib")])
import keras, matplotlib.pyplot, sklearn.datasets, tensorflow
print(len(sklearn.datasets.load_digits().images), keras.ops.add(1.0, 2.0).numpy())
"""


def _run(before):
    program = PROGRAM.format(before=before)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def test_keras_comes_without_what_it_does_not_need_and_both_can_be_used_after():
    lines, shown = _run("")
    assert "cuInit" not in shown
    assert lines == ["[True, False, False]", "1797 3.0"]


def test_what_is_there_stays_there():
    lines, _ = _run("import sklearn")
    assert lines == ["[True, True, False]", "1797 3.0"]
