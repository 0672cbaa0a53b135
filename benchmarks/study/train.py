"""`train.py` with the study's own flow: `python -m benchmarks.study.train --flow ...`."""

import sys

from tfp_flowvae.cli import main

from .unconstrained import register

if __name__ == "__main__":
    register()
    sys.exit(main(["train", *sys.argv[1:]]))
