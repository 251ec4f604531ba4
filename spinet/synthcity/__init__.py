"""SynthCity: the built-in data set. A program draws street scenes and writes them in Cityscapes' layout.

`compose` builds a `scene` in metres: a street's `plan`, its `ground`, objects at the `roadside`, the `traffic`, and a
`light`. Objects are polygons in space (`mesh`), from `buildings` to `people`. `render` paints a scene from far to near
through a pinhole camera. `write` stores scenes as files; `endless` draws them during training; `survey` counts what the
images contain.

The images contain all 19 classes of Cityscapes' evaluation with their ids, and void as in Cityscapes (the ego vehicle's
bonnet, borders, clutter, rails, bridges). They have occlusion, crowds and rows of cars. Most objects touch another of
their class, so classes and connected components are not enough to separate them.

The same seed gives the same pixels on every machine and with any number of workers. All arithmetic is fixed by IEEE 754
(integers; + - * / and square roots of float64). Sines are rounded to 2^-16. Random draws use raw words of PCG64, whose
stream NumPy guarantees, seeded by (seed, split, index). OpenCV fills polygons with integer coordinates (1/16 pixel),
averages 2 x 2 bytes and resizes by its bit-exact path.
"""

from spinet.synthcity.endless import EndlessCity
from spinet.synthcity.write import VERSION, generate, render_scene

__all__ = ["VERSION", "EndlessCity", "generate", "render_scene"]
