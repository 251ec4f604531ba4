"""Table 2, measured here: time per image of SPINet and of the systems that it is compared with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import torch
from tqdm.auto import tqdm

from spinet.baselines.panoptic_deeplab import PanopticDeepLab
from spinet.config import PRESETS, ConfigError, PresetName
from spinet.data.segments import Sample
from spinet.inference.predict import postprocess, run_network
from spinet.machine import exact_float32, tf32
from spinet.model.layers import num_parameters
from spinet.records import new_record
from spinet.speed.accounting import macs_of
from spinet.speed.memory import keep_freed_memory
from spinet.speed.optimize import optimize_for_inference
from spinet.speed.staging import stage
from spinet.speed.summary import BENCHMARK
from spinet.speed.yardstick import Yardstick, counting_moves, peak_memory
from spinet.synthcity.mosaic import CATEGORIES, mosaic
from spinet.system import Model
from spinet.systems import build_model
from spinet.weights import freeze, load_model

Exact = Literal["fp32", "bf16"]

Kind = tuple[str, Exact, bool]
"""System, precision, and whether the network is optimised."""

DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16}

FASTER = "panoptic_deeplab, thing pixels"
"""Panoptic-DeepLab that groups only thing pixels. The map equals that of the published grouping of all pixels."""


@dataclass(frozen=True)
class Contender:
    """A network to time in one precision, and the same network before optimisation, for the counts."""

    system: str
    precision: Exact
    optimized: bool
    model: Model
    plain: Model

    @property
    def rules(self) -> dict[str, Any]:
        """By system: the context in which its post-processing reads the outputs of this one network."""
        rules: dict[str, Any] = {self.system: nullcontext}
        if isinstance(self.model.network, PanopticDeepLab):
            rules[FASTER] = lambda: _grouping_things(self.model.network)
        return rules


@exact_float32()
def benchmark(
    *,
    systems: Sequence[str],
    size: tuple[int, int],
    instances: Sequence[int],
    preset: PresetName = "cityscapes_r50",
    weights: Sequence[Path] = (),
    precision: Sequence[Exact] = ("fp32",),
    device: str = "cpu",
    threads: int | None = None,
    repeats: int = 5,
    optimize: Sequence[bool] = (True,),
    compile: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Times every system on an image with each number of things: batch 1, in turns, in this process.

    The timed function is `spinet.predict`. "network" is the time from the uint8 image in memory to the network's
    outputs on the device; for two-stage detectors it includes proposals, non-maximum suppression and the mask head.
    "post" is the time from there to segments and map in CPU memory. The image is a `mosaic`. All layers run, then
    `stage` replaces their outputs by those of a trained network. A round runs every system once and then the
    `Yardstick`. After one warm-up round (three if compiled), `repeats` rounds give medians and quartiles. All systems
    share the process's threads and its memory, which is kept: see `keep_freed_memory`.

    The floor of a network is the larger of two times: its multiply-accumulates at the yardstick's rate, and the bytes
    that its layers move at the rate of the yardstick's copy. Multiply-accumulates and bytes are those of the network
    before optimisation. Peak memory is the size of the parameters plus the growth in one more, untimed run.

    Args:
        systems: "spinet" and names of baselines, untrained, with the sizes of `preset`.
        size: height, width, in pixels; the network gets the image without resizing.
        instances: numbers of things.
        weights: files of trained networks to time as well.
        threads: threads of PyTorch; by default PyTorch's own choice.
        optimize: whether to run `optimize_for_inference`; with both values each network is timed both ways.
        compile: whether optimised networks also use `torch.compile`.

    Returns:
        The conditions; `rates`: multiply-accumulates and bytes per second of the yardstick; `rows`: seconds and bytes.

    Raises:
        ConfigError: a system does not exist, or there is nothing to time.
        ValueError: the image is too small for the number of things.
    """
    if not (systems or weights) or not instances or not precision or not optimize or repeats < 1:
        raise ConfigError("nothing to time: give systems or weights, instances, precisions, and at least 1 repeat")
    if threads is not None:
        torch.set_num_threads(threads)
    start, kept = perf_counter(), keep_freed_memory()
    torch.manual_seed(seed)
    configs = [PRESETS[preset].with_system(system) for system in systems]
    models = [build_model(config, CATEGORIES, weights_follow=True) for config in configs]
    models += [load_model(path, device=device) for path in weights]
    contenders = [
        _contender(model, exact, torch.device(device), optimize=optimized, compile=compile)
        for model in models
        for exact in precision
        for optimized in optimize
    ]
    rows: list[dict[str, Any]] = []
    rates: list[dict[str, Any]] = []
    warm = 3 if compile else 1  # compiled networks are captured as a CUDA graph after their first run
    progress = tqdm(total=len(instances) * len(contenders) * (repeats + warm + 1), unit="run")
    for count in instances:
        sample = mosaic(count, size, seed=seed)
        progress.set_postfix_str(f"{count} things")
        sticks: dict[Exact, Yardstick] = {
            p: Yardstick(size, precision=DTYPE[p], device=torch.device(device)) for p in precision
        }
        rows += [
            {**row, "instances": count} for row in _time_image(contenders, sticks, sample, warm, repeats, progress)
        ]
        rates += [{"precision": p, "instances": count} | stick.rates() for p, stick in sticks.items()]
    progress.close()
    for row in rows:
        row |= _ratios(row, rows)
    return _conditions(device, seed) | {
        "benchmark": BENCHMARK,
        "preset": preset,
        "weights": [path.name for path in weights],
        "size": list(size),
        "threads": torch.get_num_threads(),
        "keeps_freed_memory": kept,
        "repeats": repeats,
        "compiled": compile,
        "tf32": tf32(),
        "hours": (perf_counter() - start) / 3600,
        "rates": rates,
        "rows": rows,
    }


def _time_image(
    contenders: list[Contender], sticks: dict[Exact, Yardstick], sample: Sample, warm: int, repeats: int, progress: tqdm
) -> list[dict[str, Any]]:
    """The rows of one image, a row for each system."""
    rows = []
    with ExitStack() as staged:
        costs: dict[Any, dict[str, int]] = {}  # by network
        for contender in contenders:
            if contender.plain.network not in costs:
                costs[contender.plain.network] = _costs(contender.plain, sample)
            staged.enter_context(stage(contender.model, sample))
            progress.update()
        times, found = _rounds(contenders, sticks, sample, warm, repeats, progress)
        for contender in contenders:
            rate, cost = sticks[contender.precision].rates(), dict(costs[contender.plain.network])
            cost["network_bytes"] = cost.pop("network_values") * DTYPE[contender.precision].itemsize
            memory = peak_memory(contender.model.device, partial(_run, contender, sample))
            floors = {"floor_macs_s": cost["network_macs"] / rate["macs_per_s"]}
            floors |= {"floor_bytes_s": cost["network_bytes"] / rate["bytes_per_s"]}
            for system in contender.rules:
                key = (system, contender.precision, contender.optimized)
                row = {"system": system, "precision": contender.precision, "optimized": contender.optimized}
                row |= {"found": found[key]} | _statistics(np.array(times[key])) | cost | floors
                row["peak_memory"] = None if memory is None else memory + _weights(contender.model)
                rows.append(row)
    return rows


def _contender(model: Model, precision: Exact, device: torch.device, *, optimize: bool, compile: bool) -> Contender:
    config = model.config
    config = replace(
        config, input=replace(config.input, test_scale=None), inference=replace(config.inference, precision=precision)
    )
    model.network.to(device)
    freeze(model.network)
    plain = replace(model, config=config)
    timed = optimize_for_inference(plain, compile=compile) if optimize else plain
    system = config.baseline.system if config.baseline else "spinet"
    return Contender(system, precision, optimize, timed, plain)


@contextmanager
def _grouping_things(network: PanopticDeepLab) -> Iterator[None]:
    before = network.config
    network.config = replace(before, group_all_pixels=False)
    yield
    network.config = before


def _costs(model: Model, sample: Sample) -> dict[str, int]:
    """Parameters; multiply-accumulates in total and of the network; values that the network's layers move."""
    outputs: list[Any] = []
    with stage(model, sample), counting_moves(model.network) as moves:
        network = macs_of(lambda: outputs.append(run_network(model, sample.pixels)))
        moved = sum(moves)
        post = macs_of(lambda: postprocess(model, outputs[0]))
    return {
        "params": num_parameters(model.network),
        "macs": network + post,
        "network_macs": network,
        "network_values": moved,
    }


def _run(contender: Contender, sample: Sample) -> dict[str, tuple[float, float, int]]:
    """Seconds of network and post-processing, and the number of things in the map, by system."""
    output = run_network(contender.model, sample.pixels)
    result = {}
    for system, holding in contender.rules.items():
        with holding():
            prediction = postprocess(contender.model, output)
        things = sum(segment["isthing"] for segment in prediction.segments)
        result[system] = (prediction.network_seconds, prediction.post_seconds, things)
    return result


def _rounds(
    contenders: list[Contender],
    sticks: dict[Exact, Yardstick],
    sample: Sample,
    warm: int,
    repeats: int,
    progress: tqdm,
) -> tuple[dict[Kind, list[tuple[float, float]]], dict[Kind, int]]:
    """Seconds of network and post-processing in each round after `warm` rounds; the number of things in the map."""
    times: dict[Kind, list[tuple[float, float]]] = defaultdict(list)
    found = {}
    for number in range(1 - warm, repeats + 1):
        for contender in contenders:
            progress.set_postfix_str(f"{contender.system}, round {number} of {repeats}")
            for system, (network, post, things) in _run(contender, sample).items():
                if number > 0:
                    kind = (system, contender.precision, contender.optimized)
                    times[kind].append((network, post))
                    found[kind] = things
            progress.update()
        for stick in sticks.values():
            stick.take()
    return times, found


def _statistics(seconds: np.ndarray) -> dict[str, Any]:
    """Medians and quartiles of [rounds, 2] seconds of network and post-processing, and of their sums."""
    parts = {"network": seconds[:, 0], "post": seconds[:, 1], "total": seconds.sum(1)}
    medians = {f"{name}_s": float(np.median(values)) for name, values in parts.items()}
    quartiles = {f"{name}_quartiles": np.quantile(values, [0.25, 0.75]).tolist() for name, values in parts.items()}
    return medians | quartiles


def _ratios(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """Each time divided by SPINet's in the same precision with as many things, optimised if such a time exists."""
    same = ("precision", "instances")
    alike = [r for r in rows if r["system"] == "spinet" and all(r[k] == row[k] for k in same)]
    spinet = max(alike, key=lambda r: r["optimized"], default=None)
    return {
        f"{part}_ratio": row[f"{part}_s"] / spinet[f"{part}_s"] if spinet else None
        for part in ("network", "post", "total")
    }


def _weights(model: Model) -> int:
    return sum(parameter.nbytes for parameter in model.network.parameters())


def _conditions(device: str, seed: int) -> dict[str, Any]:
    """The entries of a run record on date, source, device and versions."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    record = new_record(experiment="", seed=seed, config={}, data={}, iterations=0, hours=0.0, metrics={}, device=name)
    return {key: record[key] for key in ("created", "commit", "dirty", "device", "versions", "seed")}
