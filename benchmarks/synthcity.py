"""Speed of writing SynthCity on one core, and the contents of its images.

python benchmarks/synthcity.py [scenes] [height]      (defaults: 100 scenes of 256 x 512)
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import cv2
from cityscapesscripts.helpers.labels import id2label

from spinet.synthcity import render_scene
from spinet.synthcity.survey import Survey
from spinet.synthcity.write import write_scene


def main() -> None:
    scenes = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    height = int(sys.argv[2]) if len(sys.argv) > 2 else 256
    size = (height, 2 * height)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        write_scene(("val", 0), Path(folder), size, seed=0)  # warm-up: noise tiles and first shapes
        wall, processor = time.perf_counter(), time.process_time()
        for index in range(scenes):
            write_scene(("train", index), Path(folder), size, seed=0)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(f"{size[0]} x {size[1]}, including files: {scenes / processor:.1f} scenes/s of CPU time", end="")
    print(f", {scenes / wall:.1f} of wall time")

    survey = Survey()
    for index in range(scenes):
        _, labels, instances = render_scene(0, index, size, "val")
        survey.add(labels, instances)
    print(f"instances per scene {survey.instances.total() / scenes:.1f}, groups per scene {survey.groups / scenes:.2f}")
    print(f"touching another of their class {survey.share_touching():.0%}, small {survey.share_small():.0%}")
    print(f"{'class':<22}{'in scenes':>10}{'of pixels':>11}{'a scene':>9}{'small':>7}{'touching':>10}")
    for label in sorted(survey.presence):
        seen, covered = survey.presence[label] / scenes, survey.coverage[label] / scenes
        row = f"{id2label[label].name:<22}{seen:>10.0%}{covered:>11.2%}"
        if count := survey.instances[label]:
            row += f"{count / scenes:>9.2f}{survey.small[label] / count:>7.0%}{survey.touching[label] / count:>10.0%}"
        print(row)


if __name__ == "__main__":
    main()
