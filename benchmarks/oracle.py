"""PQ with parts of the network's output replaced by the truth: where the points are lost.

python benchmarks/oracle.py --weights runs/mine/model.safetensors --data ROOT --json FILE
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm.auto import tqdm

from spinet.data import open_dataset
from spinet.data.segments import decode_ids
from spinet.evaluation import PanopticQuality, summarize
from spinet.evaluation.oracle import ORACLES, with_truth
from spinet.files import write_json
from spinet.inference.predict import run_network
from spinet.weights import load_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--images", type=int, help="number of images; default: all")
    parser.add_argument("--json", type=Path, help="also write the scores to this file")
    arguments = parser.parse_args()
    model = load_model(arguments.weights)
    dataset = open_dataset(arguments.data, arguments.split).with_categories(model.categories)
    number = min(arguments.images or len(dataset), len(dataset))
    measures = {name: PanopticQuality(model.categories) for name in ORACLES}
    for index in tqdm(range(number), unit="image"):
        sample, segments = dataset[index], dataset.records[index].segments_info
        true_ids, output = decode_ids(dataset.read(index).panoptic), run_network(model, sample.pixels)
        for name, parts in ORACLES.items():
            found = with_truth(model, output, sample, parts)
            measures[name].update(true_ids, segments, found.ids, found.segments)
    results = {name: measure.result() for name, measure in measures.items()}
    if arguments.json:
        scores = {name: {**summarize(result), "sizes": result["sizes"]} for name, result in results.items()}
        facts = {"data": arguments.data.name, "split": arguments.split, "images": number, "scores": scores}
        write_json(facts, arguments.json)
    print(f"{'true parts':24} {'PQ':>6} {'PQ_th':>6} {'PQ_st':>6}")
    for name, result in results.items():
        print(f"{name:24} " + " ".join(f"{summarize(result)[quality]:6.1f}" for quality in ("PQ", "PQ_th", "PQ_st")))


if __name__ == "__main__":
    main()
