"""What scripts import to read images and to write predictions; it lives in `spinet.inference.files`."""

from spinet.inference.files import PredictionWriter, read_pictures

__all__ = ["PredictionWriter", "read_pictures"]
