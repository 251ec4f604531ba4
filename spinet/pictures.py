"""The public names to read images and write predictions; their code is in `spinet.inference.files`."""

from spinet.inference.files import PredictionWriter, read_pictures

__all__ = ["PredictionWriter", "read_pictures"]
