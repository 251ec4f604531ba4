"""The main job: SynthCity, a trained SPINet, its quality on held-out scenes, and a picture of what it sees."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from spinet.components import components
from spinet.config import TINY
from spinet.data import PanopticDataset, open_dataset
from spinet.data.segments import decode_ids
from spinet.data.synthcity import generate
from spinet.figures.overlay import draw_panoptic, sheet
from spinet.inference import predict
from spinet.results import results_table
from spinet.runs import atomic_write
from spinet.train import train
from spinet.weights import Model, load_model

NUM_TRAIN, NUM_VAL, SIZE = 600, 100, (256, 512)


def reproduce(*, data: Path, out: Path) -> list[Path]:
    """Runs the main job, or what of it is not done yet, and returns the files to look at.

    Writes under `out`: checkpoints, `model.safetensors`, `record.json`, `results.md`, `overlays.jpg`.
    """
    generate(data, num_train=NUM_TRAIN, num_val=NUM_VAL, size=SIZE, seed=0, workers=2)
    record = train(TINY, data=data, out=out, resume=True, experiment="reproduce")
    atomic_write(out / "results.md", results_table([record]).encode())
    picture = overlay_sheet(load_model(out / "model.safetensors"), open_dataset(data, "val"))
    _, content = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    atomic_write(out / "overlays.jpg", content.tobytes())
    return [out / name for name in ("model.safetensors", "record.json", "results.md", "overlays.jpg")]


def overlay_sheet(model: Model, dataset: PanopticDataset, *, rows: int = 6) -> np.ndarray:
    """Held-out scenes: image, ground truth, SPINet, semantics plus connected components."""
    pictures = []
    for index in np.linspace(0, len(dataset) - 1, rows).round().astype(int).tolist():
        raw, segments = dataset.read(index), dataset.records[index].segments_info
        prediction = predict(model, raw.image)
        ids, parts = components(
            prediction, model.categories, model.config.inference, model.config.objective.semantic_classes
        )
        drawn = (
            (decode_ids(raw.panoptic), segments),
            (prediction.ids, prediction.segments),
            (ids, parts),
        )
        pictures.append([raw.image, *(draw_panoptic(raw.image, a, b, model.categories) for a, b in drawn)])
    return sheet(pictures, titles=["image", "ground truth", "SPINet", "semantics + components"])
