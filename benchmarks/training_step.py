"""Time of each part of a training step: targets and losses compared with the network's forward and backward pass.

python benchmarks/training_step.py [--preset tiny] [--device cpu] [--data data/synthcity]

One more step runs under PyTorch's profiler, for the share of time in convolutions and their gradients.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, cast

import torch
from torch.profiler import ProfilerActivity, profile

from spinet.config import PRESETS
from spinet.data import Batch, open_dataset
from spinet.data.stream import PositionSampler, TrainStream, make_train_loader
from spinet.files import write_json
from spinet.machine import resolve, synchronise
from spinet.model.filter_sampling import Locations
from spinet.objective.targets import Counts
from spinet.speed.memory import keep_freed_memory
from spinet.synthcity import generate
from spinet.systems import build_model
from spinet.training.run import train_transform
from spinet.training.step import Prepare, make_optimizer


def measure(preset: str, data: Path, steps: int, device: torch.device) -> tuple[dict[str, float], float]:
    """Median seconds of each part of a step, and the share of convolutions."""
    config = PRESETS[preset].config
    dataset = open_dataset(data, "train")
    model = build_model(config, dataset.categories, weights_follow=True)
    model.network.to(device)
    training = model.for_training().to(device)
    cast(Any, training).to(memory_format=torch.channels_last)  # as in training
    prepare, optimizer = Prepare(model.target_builder()), make_optimizer(training, config.train)
    size = config.train.images_per_device
    sampler = PositionSampler(start_iteration=0, end_iteration=steps + 3, batch_size=size, images_per_device=size)
    stream = TrainStream(dataset=dataset, transform=train_transform(config.input), seed=0)
    times: dict[str, list[float]] = defaultdict(list)
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    profiler = profile(activities=kinds)
    for step, batch in enumerate(make_train_loader(stream, sampler, prepare=as_it_is, workers=0)):
        if step == steps + 2:
            profiler.start()
        marks = [perf_counter()]

        def mark(name: str, marks: list[float] = marks) -> None:
            synchronise(device)
            marks.append(perf_counter())
            times[name].append(marks[-1] - marks[-2])

        part = prepare(batch)  # in training a worker of the loader does this while the device computes
        mark("targets")
        part = part.to(device)
        batch, targets, counts = part.batch, part.targets, Counts(*torch.tensor(part.counts, device=device))
        mark("upload")
        with torch.autocast(device.type, torch.bfloat16, enabled=resolve(config.train.precision, device) == "bf16"):
            features = model.network(batch.images, batch.windows)
            mark("network forward")
            things, stuff = zip(
                *(
                    model.network.single_shot(features, i, Locations(t.sample_level, t.sample_y, t.sample_x))
                    for i, t in enumerate(targets.images)
                ),
                strict=True,
            )
        mark("single-shot convolution")
        phi = features.all_phi.float()
        # the objective's backward pass stops at the network's outputs
        leaves = [
            [t.detach().float().requires_grad_() for t in group]
            for group in (features.class_logits, things, stuff, [phi])
        ]
        losses = training.objective(
            class_logits=leaves[0],
            thing_logits=leaves[1],
            stuff_logits=torch.stack(leaves[2]),
            phi=leaves[3][0],
            targets=targets,
            counts=counts,
        )
        mark("losses forward")
        losses["total"].backward()
        mark("losses backward")
        outputs = [*features.class_logits, *things, *stuff, phi]
        gradients = [leaf.grad for group in leaves for leaf in group]
        torch.autograd.backward(outputs, [g.to(o.dtype) for g, o in zip(gradients, outputs, strict=True)])
        mark("network backward")
        torch.nn.utils.clip_grad_norm_(training.parameters(), config.train.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        mark("optimizer")
    profiler.stop()
    return {name: median(values[2:-1]) for name, values in times.items()}, convolution_share(profiler, device)


def as_it_is(batch: Batch) -> Batch:
    return batch


def convolution_share(profiler: profile, device: torch.device) -> float:
    """Share of the time of all operations in convolutions, their gradients, and their copies."""
    spent = {"cuda": "self_device_time_total", "cpu": "self_cpu_time_total"}[device.type]
    whole = {"cuda": "device_time_total", "cpu": "cpu_time_total"}[device.type]
    events = profiler.key_averages()
    inside = sum(
        getattr(event, whole) for event in events if event.key in ("aten::_convolution", "aten::convolution_backward")
    )
    return inside / sum(getattr(event, spent) for event in events)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="tiny", choices=sorted(PRESETS))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    keep_freed_memory()  # as in `spinet train`
    with TemporaryDirectory() as folder:
        data = arguments.data
        if data is None:
            data = Path(folder) / "synthcity"
            generate(data, num_train=16, num_val=0, size=PRESETS[arguments.preset].data.size, progress=False)
        times, share = measure(arguments.preset, data, arguments.steps, arguments.device)
    images = PRESETS[arguments.preset].config.train.images_per_device
    total = sum(seconds for name, seconds in times.items() if name != "targets")  # the loader's workers make targets
    for name, seconds in times.items():
        aside = "by the loader" if name == "targets" else f"{100 * seconds / total:5.1f} %"
        print(f"{name:24} {1000 * seconds:8.1f} ms {aside}")
    own = sum(seconds for name, seconds in times.items() if name in ("targets", "losses forward", "losses backward"))
    network = sum(seconds for name, seconds in times.items() if name.startswith("network"))
    print(f"convolutions and their gradients: {share:.1%} of a step's time")
    if arguments.json:
        device = torch.cuda.get_device_name() if arguments.device.type == "cuda" else "CPU"
        facts = {"preset": arguments.preset, "device": device, "torch": torch.__version__, "images": images}
        write_json({**facts, "seconds": times, "convolution_share": share}, arguments.json)
    print(f"{arguments.preset}: {images / total:.2f} images/s; targets and losses / network = {own / network:.3f}")


if __name__ == "__main__":
    main()
