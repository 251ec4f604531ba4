"""SynthCity: the embedded data set, street scenes drawn by a program and written in Cityscapes' own layout.

A scene is composed in metres (`scene`), of things made of polygons (`mesh`, `vehicles`, `people`, `street`) under a
light (`light`); it is painted far to near through a pinhole camera (`render`) and filed (`write`); `survey` counts what
is in it. It holds all 19 classes of Cityscapes' evaluation under their ids, void as there (the own bonnet, borders,
clutter, rails, bridges), occlusion, crowds and rows of cars: most objects touch another of their class, so that classes
and connected components do not suffice.

The same seed gives the same pixels on every machine and with any number of workers. They come of arithmetic that IEEE
754 fixes (integers; + - * / and square roots of float64); angles pass through sines rounded to 2^-16; chance takes raw
words of PCG64, whose stream NumPy guarantees, seeded by (seed, split, index); OpenCV fills polygons of integer
coordinates (1/16 pixel), averages 2 x 2 bytes and resizes by its bit-exact path.
"""

from spinet.data.synthcity.write import VERSION, generate, render_scene

__all__ = ["VERSION", "generate", "render_scene"]
