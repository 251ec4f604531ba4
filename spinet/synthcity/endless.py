"""Training scenes drawn on demand: a data set without repeated scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from cityscapesscripts.helpers.labels import id2label

from spinet.data.segments import Categories, DataError, Sample, look_up
from spinet.files import read_json
from spinet.synthcity.write import MANIFEST, render_scene


class EndlessCity:
    """The training scenes of a SynthCity folder, continued with further scenes.

    Scene i equals the i-th scene of the folder's training split if the folder has that many; it is drawn again, not
    read.

    Args:
        root: folder of a SynthCity, which gives size and seed.
        categories: categories of the data set in that folder.

    Raises:
        DataError: the folder is not a SynthCity.
    """

    def __init__(self, root: str | Path, categories: Categories) -> None:
        path = Path(root) / MANIFEST
        if not path.is_file():
            raise DataError(f"{path}: missing; input.endless needs a folder made by: spinet data synth")
        manifest = read_json(path, error=DataError)
        self.seed: int = manifest["seed"]
        self.size: tuple[int, int] = tuple(manifest["size"])
        self.label_of = categories.label_of

    def __len__(self) -> int:
        return 2**20  # more than any training uses; a scene has no cost until it is drawn

    def read(self, index: int) -> Sample:
        """Scene `index`, with the segments that the official Cityscapes script would create."""
        image, _, instances = render_scene(self.seed, index, self.size, "train")
        found = [int(value) for value in np.unique(instances)]
        labels = [id2label[value if value < 1000 else value // 1000] for value in found]
        kept = [(value, label) for value, label in zip(found, labels, strict=True) if not label.ignoreInEval]
        ids = np.array([value for value, _ in kept], dtype=np.int32)
        known = np.where(np.isin(instances, ids), instances, 0).astype(np.int32)
        return Sample(
            image_id=f"scene {index}",
            image=torch.from_numpy(image).permute(2, 0, 1),
            segment_map=torch.from_numpy(look_up(known, ids, Path(f"scene {index}"))),
            labels=torch.tensor([self.label_of[label.id] for _, label in kept], dtype=torch.int64),
            crowd=torch.tensor([label.hasInstances and value < 1000 for value, label in kept]),
        )
