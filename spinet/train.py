"""§5.2 Training: a visible loop, on one process or many, that a kill at any moment does not harm."""

from __future__ import annotations

import math
import os
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import Tensor, nn
from tqdm.auto import tqdm

from spinet.baselines.build import baseline_targets
from spinet.baselines.system import Baseline, BaselineTraining
from spinet.checkpoint import CheckpointError, find_checkpoints, load_checkpoint, save_checkpoint
from spinet.config import Config, InputConfig, TrainConfig, from_dict, to_dict
from spinet.data import Batch, find_splits, open_dataset
from spinet.data.stream import PositionSampler, TrainStream, make_train_loader, stable_seed
from spinet.data.synthcity import EndlessCity
from spinet.data.transforms import TrainTransform
from spinet.log import Log
from spinet.model.filter_sampling import Locations
from spinet.model.spinet import SPINet
from spinet.objective.objective import Objective
from spinet.objective.targets import Counts, TargetBuilder, Targets
from spinet.precision import resolve
from spinet.runs import describe_data, new_record, source_state, write_record
from spinet.validate import validate
from spinet.weights import Model, build_model, initialise, save_model, save_objective


class TrainError(RuntimeError):
    """Training cannot start or go on."""


class Training(nn.Module):
    """Network and objective in one forward, as data-parallel training needs it."""

    def __init__(self, network: SPINet, objective: Objective):
        super().__init__()
        self.network = network
        self.objective = objective

    def forward(self, batch: Batch, targets: Targets, counts: Counts, progress: float = 1.0) -> dict[str, Tensor]:
        """Losses of a batch; `progress` is how much of the run is done, 0 … 1."""
        features = self.network(batch.images, batch.windows)
        things, stuff = [], []
        for index, image in enumerate(targets.images):
            locations = Locations(image.sample_level, image.sample_y, image.sample_x)
            thing_logits, stuff_logits = self.network.single_shot(features, index, locations)
            things.append(thing_logits)
            stuff.append(stuff_logits)
        with torch.autocast(batch.images.device.type, enabled=False):
            return self.objective(
                class_logits=features.class_logits,
                thing_logits=things,
                stuff_logits=torch.stack(stuff),
                phi=features.all_phi.float(),
                targets=targets,
                counts=counts,
                progress=progress,
            )


def learning_rate(iteration: int, config: TrainConfig) -> float:
    """Rate of an iteration: scaled linearly with the batch, warmed up linearly from a thousandth, then as scheduled."""
    rate = config.learning_rate * config.batch_size / config.reference_batch
    if iteration < config.warmup:
        rate *= 0.001 + 0.999 * iteration / config.warmup
    progress = iteration / config.iterations
    if config.schedule == "step":
        return rate * 0.1 ** sum(progress >= milestone for milestone in config.milestones)
    if config.schedule == "poly":
        return rate * (1 - progress) ** 0.9
    return rate * 0.5 * (1 + math.cos(math.pi * progress))


def make_optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD or AdamW; vectors (norms, biases) are not decayed, and some parts have a rate of their own.

    A group's `factor` multiplies the rate of every iteration.
    """
    trained: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            factor = config.backbone_rate if ".backbone." in name else 1.0
            factor *= config.fc_rate if ".filter_sampling.fc." in name else 1.0
            trained.setdefault((decay, factor), []).append(parameter)
    groups = [
        {"params": parameters, "weight_decay": decay, "factor": factor}
        for (decay, factor), parameters in trained.items()
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def train(
    config: Config,
    *,
    data: str | Path,
    out: str | Path,
    init: str | Path | None = None,
    resume: bool = False,
    experiment: str = "train",
) -> dict[str, Any]:
    """Trains a SPINet, or the baseline that `config` names, and evaluates it; under `torchrun` on all its processes.

    Args:
        data: a folder in Cityscapes or COCO panoptic layout with the splits "train" and "val".
        out: gets `checkpoint_*.pt`, `log.csv` (or TensorBoard's files), `model.safetensors`,
            `auxiliary.safetensors` (the heads of SPINet's auxiliary tasks) and `record.json`.
        init: weights to start from, see `initialise`; the network of `config` should be theirs (`read_config`).
        resume: go on from the last checkpoint in `out`, if there is one.
        experiment: the record's name.

    Returns:
        The run record.

    Raises:
        TrainError: `out` holds another run, the batch does not divide, or a loss is not finite.
        WeightsError: `init` holds no weights of this system.
        CheckpointError: the last checkpoint is damaged or belongs to another configuration.
        DataError: the data cannot be read.
    """
    out, settings = Path(out), config.train
    AcceleratorState._reset_state()  # an earlier run in this process may have had another precision
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = resolve(settings.precision, device)
    accelerator = Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        cpu=device.type == "cpu",
        dataloader_config=DataLoaderConfiguration(dispatch_batches=False),
    )
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
    checkpoints = find_checkpoints(out)
    if checkpoints and not resume:
        raise TrainError(f"{out}: holds a run already ({checkpoints[-1].name}); add --resume, or choose another --out")

    train_set, val_set = open_dataset(data, "train"), open_dataset(data, "val")
    set_seed(settings.seed)
    model = build_model(config, train_set.categories, weights_follow=init is not None)
    initial = None
    if init is not None and not checkpoints:
        found = initialise(model, init)
        initial = asdict(found)
        if accelerator.is_main_process:
            tqdm.write(str(found))
    build_targets = target_builder(model)
    training = make_training(model).to(memory_format=torch.channels_last)  # convolutions are fastest so
    if world > 1 and accelerator.device.type == "cuda":
        training = nn.SyncBatchNorm.convert_sync_batchnorm(training)
    optimizer = make_optimizer(training, settings)

    start, hours = 0, 0.0
    state: dict[str, Any] = {}
    if checkpoints:
        state = load_checkpoint(checkpoints[-1])
        # how the result is read out is not part of how it came about: --resume evaluates anew
        if replace(from_dict(state["config"]), inference=config.inference) != config:
            raise CheckpointError(f"{checkpoints[-1]}: was trained with other settings; choose another --out")
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
        stream, positions, workers=config.input.workers, pin_memory=accelerator.device.type == "cuda"
    )
    batches = iter(loader)
    log = Log(out, kind=settings.log, start=start) if accelerator.is_main_process else None
    places = find_splits(data)
    facts = describe_data(
        data,
        splits={"train": len(train_set), "val": len(val_set)},
        paths=[places[part.split].annotations for part in (train_set, val_set)],
    )

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
    for iteration in bar:
        began = perf_counter()
        torch.manual_seed(stable_seed(settings.seed, "iteration", iteration, rank))
        rate = learning_rate(iteration, settings)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        parts = [next(batches).to(accelerator.device, non_blocking=True) for _ in range(accumulation)]
        targets = [build_targets(part.segment_maps, part.labels, part.crowd, part.seeds) for part in parts]
        counts = _total(targets, accelerator)
        losses: dict[str, Tensor] = {}
        for index, (part, target) in enumerate(zip(parts, targets, strict=True)):
            with accelerator.no_sync(wrapped) if index < accumulation - 1 else nullcontext():
                terms = wrapped(part, target, counts, iteration / settings.iterations)
                accelerator.backward(terms["total"])
            losses = {name: losses.get(name, 0) + term.detach() for name, term in terms.items()}
        # every process divided by the counts of all, times their number: the mean over processes is the step's loss
        mean: Any = accelerator.reduce(torch.stack(list(losses.values())), "mean")
        values = dict(zip(losses, mean.tolist(), strict=True))
        if not all(map(math.isfinite, values.values())):
            bad = ", ".join(f"{name} = {value}" for name, value in values.items() if not math.isfinite(value))
            seen = [image for part in parts for image in part.image_ids]
            raise TrainError(
                f"iteration {iteration}: loss is not finite ({bad}) at rate {rate:.2e}, images {seen}; lower "
                f"train.learning-rate or use train.precision fp32, then --resume from the last checkpoint in {out}"
            )
        norm = accelerator.clip_grad_norm_(wrapped.parameters(), settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done = iteration + 1
        seconds = perf_counter() - began
        hours += seconds / 3600
        if log:
            log.write(done, {**values, "rate": rate, "gradient_norm": float(norm or 0), "seconds": seconds})
        bar.set_postfix({name: f"{value:.3f}" for name, value in values.items()}, refresh=False)
        last = done == settings.iterations
        if accelerator.is_main_process and (last or done % settings.checkpoint_every == 0):
            save_checkpoint(
                out,
                done,
                {
                    "iteration": done,
                    "hours": hours,
                    "config": to_dict(config),
                    "init": initial,
                    "training": training.state_dict(),
                    "optimizer": optimizer.optimizer.state_dict(),
                    "scaler": accelerator.scaler.state_dict() if accelerator.scaler else None,
                },
            )
        if settings.evaluate_every and done % settings.evaluate_every == 0 and not last:
            training.eval()
            headline = validate(model, val_set, rank=rank, world_size=world)["headline"]
            record("running", done, headline)
            bar.write(f"{done}: " + ", ".join(f"{name} {value:.1f}" for name, value in headline.items()))
            training.train()
    if log:
        log.close()

    if accelerator.is_main_process:
        save_model(model, out / "model.safetensors")
        if isinstance(training, Training):
            save_objective(training.objective, config, out / "auxiliary.safetensors")
    training.eval()
    result = validate(model, val_set, rank=rank, world_size=world)
    headline = result.pop("headline")
    metrics = {**result, **headline}  # the paper's columns in percent, and the details
    return record("finished", settings.iterations, metrics)


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


def make_training(model: Model) -> Training | BaselineTraining:
    """The network with what it is trained by."""
    if isinstance(model.network, Baseline):
        return BaselineTraining(model.network)
    return Training(model.network, Objective.from_config(model.config))


def target_builder(model: Model) -> TargetBuilder:
    """The targets that a configuration asks for."""
    if isinstance(model.network, Baseline):
        return baseline_targets(model.config, model.categories, model.network)
    config = model.config.objective
    return TargetBuilder(
        strides=model.network.strides,
        num_things=model.categories.num_things,
        num_stuff=model.categories.num_stuff,
        semantic_classes=config.semantic_classes,
        semantic_stride=config.semantic_stride,
        dice_classes=config.dice_classes,
        samples_per_image=config.samples_per_image,
        assignment=config.assignment,
        sampling=config.sampling,
        contour_sigma=config.contour_sigma if config.inter_class_contour else None,
        divisor=model.network.divisor,
    )


def _total(targets: list[Targets], accelerator: Accelerator) -> Counts:
    """Counts of the whole step, over the parts and the processes, for each process's share: their number divides it."""
    own = torch.tensor([target.counts().to_list() for target in targets], device=accelerator.device).sum(0)
    share: Any = accelerator.reduce(own, "mean")
    return Counts(*share.tolist())


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {os.cpu_count()} cores"
