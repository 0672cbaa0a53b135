#!/usr/bin/env python3
"""Trains a flow VAE and exports it: `python train.py --flow iaf`. See `python train.py --help`."""

import sys

from tfp_flowvae.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]], prog="train.py"))
