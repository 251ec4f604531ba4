"""§5.2 Inference: from an image to a panoptic map."""
