"""How `fit` goes fast and far: many steps to a program, many devices, precision; no model."""
