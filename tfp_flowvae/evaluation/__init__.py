"""The value of a trained model, in numbers and pictures."""
