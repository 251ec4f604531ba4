"""SynthCity: the embedded data set, street scenes drawn by a program and written in Cityscapes' own layout.

A scene (`scene`) is composed in metres (`compose`): a street's `plan`, its `ground`, what stands at the `roadside`,
the `traffic`, under a `light`. Its things are polygons in space (`mesh`), from `buildings` to `people`. It is painted
far to near through a pinhole camera (`render`) and filed (`write`), or drawn when training asks for it (`endless`);
`survey` counts what the pictures hold.

They hold all 19 classes of Cityscapes' evaluation under their ids, void as there (the own bonnet, borders,
clutter, rails, bridges), occlusion, crowds and rows of cars: most objects touch another of their class, so that classes
and connected components do not suffice.

The same seed gives the same pixels on every machine and with any number of workers. They come of arithmetic that IEEE
754 fixes (integers; + - * / and square roots of float64); angles pass through sines rounded to 2^-16; chance takes raw
words of PCG64, whose stream NumPy guarantees, seeded by (seed, split, index); OpenCV fills polygons of integer
coordinates (1/16 pixel), averages 2 x 2 bytes and resizes by its bit-exact path.
"""

from spinet.synthcity.endless import EndlessCity
from spinet.synthcity.write import VERSION, generate, render_scene

__all__ = ["VERSION", "EndlessCity", "generate", "render_scene"]
