"""What several bijectors share: root finding, fixed points, activations, triangular matrices."""
