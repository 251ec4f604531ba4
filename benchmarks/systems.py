"""Time of a training step of each system. The systems take turns, so that other load slows all of them alike.

python benchmarks/systems.py [--campaign synthcity] [--data data/synthcity] [--json FILE]
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import torch

from spinet.config import PRESETS
from spinet.config.baselines import TITLES
from spinet.config.overrides import override
from spinet.experiments.tables import CAMPAIGNS, SYSTEMS, find_campaign
from spinet.files import write_json
from spinet.speed.memory import keep_freed_memory
from spinet.synthcity import generate
from spinet.training.run import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--campaign", default="synthcity", choices=sorted(CAMPAIGNS), help="settings of the runs")
    parser.add_argument("--data", type=Path, help="default: SynthCity, made for the benchmark")
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--steps", type=int, default=8, help="of each system; two more are not measured")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    keep_freed_memory()  # as in `spinet train`
    start = override(PRESETS["tiny"], find_campaign(arguments.campaign))
    times: dict[str, list[float]] = defaultdict(list)
    with TemporaryDirectory() as folder:
        data = arguments.data
        if data is None:
            data = Path(folder) / "synthcity"
            generate(data, num_train=16, num_val=1, size=PRESETS["tiny"].data.size, progress=False)
        runs = {}
        for row in SYSTEMS.rows:
            config = override(start, row.changes(start.config)).config
            runs[row.title] = Run(
                replace(config, train=replace(config.train, iterations=arguments.steps + 2)),
                data,
                Path(folder) / row.name,
                init=None,
                resume=False,
                experiment=row.name,
                device=arguments.device,
                base=None,
            )
            runs[row.title].training.train()
        for iteration in range(arguments.steps + 2):
            for title, run in runs.items():
                began = perf_counter()
                run.step(iteration, stop=False).losses.read()
                times[title].append(perf_counter() - began)
    seconds = {title: median(of_system[2:]) for title, of_system in times.items()}
    for title, value in seconds.items():
        print(f"{title:36} {1000 * value:8.0f} ms {value / seconds[TITLES['spinet']]:6.2f}")
    if arguments.json:
        device = torch.cuda.get_device_name() if arguments.device.type == "cuda" else "CPU"
        facts = {"campaign": arguments.campaign, "device": device, "threads": torch.get_num_threads()}
        write_json({**facts, "torch": torch.__version__, "seconds": seconds}, arguments.json)


if __name__ == "__main__":
    main()
