"""`python -m tfp_flowvae`: the same as the console script `tfp-flowvae`."""

from tfp_flowvae.cli import entry_point

if __name__ == "__main__":
    entry_point()
