"""§5.2 Training: a visible loop, on one process or many, that a kill at any moment does not harm."""

from __future__ import annotations

import math
import os
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
from accelerate.utils import set_seed
from tqdm.auto import tqdm

from spinet.config import Config, InputConfig, checked, to_dict
from spinet.data import open_dataset
from spinet.data.stream import PositionSampler, TrainStream, make_train_loader, plain_errors, stable_seed
from spinet.data.transforms import TrainTransform
from spinet.evaluation.validate import validate
from spinet.files import owned
from spinet.machine import exact_float32, resolve, tf32, tuned_convolutions
from spinet.records import new_record, source_state, write_record
from spinet.synthcity import EndlessCity
from spinet.training.checkpoint import TrainError, load_checkpoint, save_checkpoint
from spinet.training.interruption import Interruption
from spinet.training.log import Log
from spinet.training.outcome import OBJECTIVE, RECORD, data_facts, feature_measures, metrics_of, note_end, stored
from spinet.training.preflight import check_data, rehearse
from spinet.training.processes import build_together, decide, join, synchronise_norms
from spinet.training.resume import existing_checkpoints, remedy_for_non_finite, settled_history
from spinet.training.step import (
    Prepare,
    Step,
    learning_rate,
    make_optimizer,
    take_step,
)
from spinet.weights import initialise, save_model, save_objective

HALVINGS = 16
"""Steps in a row that may overflow in fp16: as many as bring the scale of the losses from its first value to 1."""


def train(
    config: Config,
    *,
    data: str | Path,
    out: str | Path,
    init: str | Path | None = None,
    resume: bool = False,
    experiment: str = "train",
    device: str = "auto",
    base: Config | None = None,
) -> dict[str, Any]:
    """Trains a SPINet, or the baseline that `config` names, and evaluates it; under `torchrun` on all its processes.

    Args:
        data: a folder in Cityscapes or COCO panoptic layout with the splits "train" and "val".
        out: gets `checkpoint_*.pt`, `log.csv` (or TensorBoard's files), `model.safetensors`,
            `auxiliary.safetensors` (the heads of SPINet's auxiliary tasks) and `record.json`.
        init: weights to start from, see `initialise`; the network of `config` should be theirs (`read_config`).
        resume: go on from the last checkpoint in `out`, if there is one.
        experiment: the record's name.
        device: "cpu" or "cuda"; "auto" is CUDA where there is any.
        base: for a row of a table, the settings that all its rows share; the record then belongs to that table.

    Returns:
        The run record.

    Ctrl-C and SIGTERM save a checkpoint at the end of the step.

    Raises:
        ConfigError: a setting makes no sense.
        DataError: the data cannot be read, or could not be evaluated in the end.
        TrainError: `out` holds another run, the batch does not divide, a loss is not finite, or evaluation failed.
        LockError: another process trains into `out`.
        WeightsError: `init` holds no weights of this system.
        CheckpointError: the last checkpoint is damaged or belongs to another configuration.
    """
    config, data, out = checked(config), Path(data), Path(out)
    kind = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    before = stored(out / RECORD)
    main_process = int(os.environ.get("RANK", "0")) == 0
    ours = not dist.is_initialized()
    with Interruption() as interruption, owned(out) if main_process else nullcontext():
        try:
            with exact_float32(), tuned_convolutions(config.input.crop is not None):
                return train_loop(config, data, out, init, resume, experiment, kind, base, interruption)
        except BaseException as error:
            said = note_end(out, before, error) if main_process else error
            if said is not error:
                raise said from error
            raise
        finally:
            if ours and dist.is_initialized():
                dist.destroy_process_group()


def train_loop(
    config: Config,
    data: Path,
    out: Path,
    init: str | Path | None,
    resume: bool,
    experiment: str,
    device: torch.device,
    base: Config | None,
    interruption: Interruption,
) -> dict[str, Any]:
    """All of `train` in a folder that nobody else works in; whoever calls it tells how it ended."""
    settings = config.train
    precision = resolve(settings.precision, device)
    accelerator = join(precision, device)
    world, rank = accelerator.num_processes, accelerator.process_index
    if int(os.environ.get("WORLD_SIZE", "1")) != world:
        raise TrainError(f"WORLD_SIZE is {os.environ['WORLD_SIZE']} but {world} processes joined; start with torchrun")
    micro = min(settings.images_per_device, max(1, settings.batch_size // world))
    if settings.batch_size % (micro * world):
        raise TrainError(
            f"train.batch_size {settings.batch_size} cannot be shared by {world} processes × {micro} images; "
            "choose train.batch_size or train.images_per_device so that it divides"
        )
    accumulation = settings.batch_size // (micro * world)
    checkpoints = decide(accelerator, lambda: existing_checkpoints(out, resume=resume))

    train_set = open_dataset(data, "train", whole_masks=config.input.whole_masks)
    val_set = open_dataset(data, "val")
    check_data(train_set, val_set, rank=rank, world_size=world)
    facts = data_facts(train_set, val_set)
    set_seed(settings.seed)
    model = build_together(accelerator, config, train_set.categories, weights_follow=init is not None)
    initial = None
    if init is not None and not checkpoints:
        found = decide(accelerator, lambda: initialise(model, init))
        initial = asdict(found)
        if accelerator.is_main_process:
            tqdm.write(str(found))
    # convolutions are fastest with channels last
    training: Any = model.for_training().to(memory_format=torch.channels_last).to(accelerator.device)
    if world > 1 and device.type == "cuda":
        training = synchronise_norms(training)
    optimizer = make_optimizer(training, settings)

    start, hours = 0, 0.0
    state: dict[str, Any] = {}
    history: list[dict[str, Any]] = []
    if checkpoints:
        state = decide(accelerator, lambda: load_checkpoint(checkpoints[-1]))
        history = settled_history(state, config, facts["fingerprint"], checkpoints[-1])
        training.load_state_dict(state["training"])
        optimizer.load_state_dict(state["optimizer"])
        start, hours, initial = state["iteration"], state["hours"], state.get("init")
    wrapped, optimizer = accelerator.prepare(training, optimizer)
    if checkpoints and accelerator.scaler is not None and state["scaler"]:
        accelerator.scaler.load_state_dict(state["scaler"])

    # a sample depends on its position in the stream alone, every other draw on the iteration: a checkpoint needs
    # neither a sampler's nor a generator's state
    source = EndlessCity(data, train_set.categories) if config.input.endless else train_set
    stream = TrainStream(dataset=source, transform=train_transform(config.input), seed=settings.seed)
    positions = PositionSampler(
        start_iteration=start,
        end_iteration=settings.iterations,
        batch_size=settings.batch_size,
        images_per_device=micro,
        rank=rank,
        world_size=world,
    )
    loader = make_train_loader(
        stream,
        positions,
        prepare=Prepare(model.target_builder()),
        workers=config.input.workers,
        pin_memory=device.type == "cuda",
    )
    batches = plain_errors(loader)
    training.eval()
    rehearse(model, val_set)
    log = Log(out, kind=settings.log, start=start) if accelerator.is_main_process else None

    def record(status: str, iteration: int, metrics: dict[str, Any]) -> dict[str, Any]:
        result = new_record(
            experiment=experiment,
            seed=settings.seed,
            config=to_dict(config),
            data=facts,
            iterations=iteration,
            hours=hours,
            metrics=metrics,
            device=_device_name(accelerator.device),
            processes=world,
            status=status,
        )
        result |= revision  # what the run started from, whatever has been committed since
        result["backbone_weights"] = model.network.backbone.weights
        result["init"] = initial
        result["backbone_norm"] = model.network.backbone.norm
        result["precision"] = precision
        result["tf32"] = tf32()
        result["history"] = history
        result["base"] = base and to_dict(base)
        if accelerator.is_main_process:
            write_record(result, out / "record.json")
        return result

    revision = dict(zip(("commit", "dirty"), source_state(), strict=True))
    record("running", start, {})
    training.train()
    bar = tqdm(
        range(start, settings.iterations),
        initial=start,
        total=settings.iterations,
        desc=experiment,
        disable=not accelerator.is_main_process,
    )
    overflows = 0

    def write_down(step: Step) -> bool:
        """Whether any process wanted to stop in that step."""
        nonlocal overflows
        values = step.losses.read()
        stop = values.pop("stop") > 0
        finite = all(math.isfinite(value) for name, value in values.items() if name != "gradient_norm")
        overflows = 0 if finite else overflows + 1
        # in fp16 a step that overflows is skipped, and the next one tried with losses scaled by half as much
        if overflows > (HALVINGS if precision == "fp16" else 0):
            bad = ", ".join(f"{name} = {value}" for name, value in values.items() if not math.isfinite(value))
            remedy = remedy_for_non_finite(out, step.iteration, precision, act=accelerator.is_main_process)
            raise TrainError(
                f"iteration {step.iteration}: loss is not finite ({bad}) at rate {step.rate:.2e}, images "
                f"{step.image_ids}; {remedy}"
            )
        if log:
            norm = values.pop("gradient_norm")
            row = {**values, "rate": step.rate, "gradient_norm": norm, "seconds": step.seconds}
            log.write(step.iteration + 1, row)
        bar.set_postfix({name: f"{value:.3f}" for name, value in values.items()}, refresh=False)
        return stop

    step: Step | None = None
    asked = False
    interruption.defers = True
    for iteration in bar:
        began = perf_counter()
        torch.manual_seed(stable_seed(settings.seed, "iteration", iteration, rank))
        rate = learning_rate(iteration, settings)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        parts = [next(batches) for _ in range(accumulation)]
        progress = iteration / settings.iterations
        noted = interruption.noted is not None
        losses = take_step(
            wrapped, optimizer, parts, accelerator, progress=progress, clip=settings.clip_norm, stop=noted
        )
        # the step before, while the device is busy with this one; by it all processes know of a signal to one of them
        asked = asked or (step is not None and write_down(step))
        step = Step(iteration, rate, [image for part in parts for image in part.batch.image_ids], losses)
        done = iteration + 1
        last = done == settings.iterations
        stop = not last and (asked or (world == 1 and interruption.noted is not None))
        store = last or stop or done % settings.checkpoint_every == 0
        judge = settings.evaluate_every > 0 and done % settings.evaluate_every == 0 and not last and not stop
        if store or judge:
            losses.read()
        step.seconds = perf_counter() - began
        hours += step.seconds / 3600
        if store or judge:
            asked = write_down(step)
            step = None
        if accelerator.is_main_process and store:
            save_checkpoint(
                out,
                done,
                {
                    "iteration": done,
                    "hours": hours,
                    "config": to_dict(config),
                    "init": initial,
                    "history": history,
                    "fingerprint": facts["fingerprint"],
                    "training": training.state_dict(),
                    "optimizer": optimizer.optimizer.state_dict(),
                    "scaler": accelerator.scaler.state_dict() if accelerator.scaler else None,
                },
            )
        if stop:
            raise interruption.error(f"saved {done} of {settings.iterations} iterations in {out}; --resume goes on")
        if judge:
            training.eval()
            headline = validate(model, val_set, rank=rank, world_size=world)["headline"]
            record("running", done, headline)
            bar.write(f"{done}: " + ", ".join(f"{name} {value:.1f}" for name, value in headline.items()))
            training.train()
    interruption.defers = False
    if log:
        log.close()

    if accelerator.is_main_process:
        save_model(model, out / "model.safetensors")
        if training.train_only is not None:
            save_objective(training.train_only, config, out / OBJECTIVE)
    record("trained", settings.iterations, {})
    training.eval()
    result = validate(model, val_set, rank=rank, world_size=world)
    features = feature_measures(model, val_set, out) if accelerator.is_main_process else {}
    return record("finished", settings.iterations, metrics_of(result, features))


def train_transform(config: InputConfig) -> TrainTransform:
    """Scale, crop, flip and colour as configured."""
    return TrainTransform(
        scale=config.scale,
        scale_unit=config.scale_unit,
        max_long_side=config.max_long_side,
        crop=config.crop,
        flip=config.flip,
        colour_jitter=config.colour_jitter,
        photo=config.photo,
    )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {os.cpu_count()} cores"
