"""SynthCity: the embedded data set, street scenes drawn by a program and written in Cityscapes' own layout."""

from spinet.data.synthcity.write import VERSION, generate, render_scene

__all__ = ["VERSION", "generate", "render_scene"]
