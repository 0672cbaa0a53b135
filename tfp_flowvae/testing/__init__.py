"""Checks that tests of user code can call.

from tfp_flowvae.testing import check_bijector
"""

from tfp_flowvae.testing.check import PROPERTIES, check_bijector
from tfp_flowvae.testing.compare import Tolerance

__all__ = ["PROPERTIES", "Tolerance", "check_bijector"]
