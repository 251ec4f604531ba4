"""§5.2 A training run: its processes, data, network and optimiser, its checkpoints and records."""

from __future__ import annotations

import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import set_seed
from tqdm.auto import tqdm

from spinet.config import Config, InputConfig, TrainConfig, to_dict
from spinet.data import open_dataset
from spinet.data.stream import Batches, PositionSampler, TrainStream, make_train_loader, stable_seed
from spinet.data.transforms import TrainTransform
from spinet.evaluation.validate import validate
from spinet.machine import resolve, tf32
from spinet.records import new_record, source_state, write_record
from spinet.synthcity import EndlessCity
from spinet.training.checkpoint import TrainError, load_checkpoint, save_checkpoint
from spinet.training.log import Log
from spinet.training.outcome import OBJECTIVE, RECORD, data_facts, feature_measures, metrics_of
from spinet.training.preflight import check_data, check_schedule, rehearse
from spinet.training.processes import build_together, decide, join, synchronise_norms
from spinet.training.resume import existing_checkpoints, remedy_for_non_finite, settled_history
from spinet.training.step import Part, PendingLosses, Prepare, Step, learning_rate, make_optimizer, take_step
from spinet.weights import initialise, save_model, save_objective

SNAPSHOTS = "snapshots"
"""Folder with the weights after the iterations `train.snapshots`, one folder each."""

HALVINGS = 16
"""Maximum number of consecutive overflows in fp16: they halve the loss scale from its initial value to 1."""


class Run:
    """A training run, ready for its next iteration.

    Args:
        config, data, out, init, resume, experiment, base: see `spinet.training.loop.train`.
        device: type of the device to train on.

    Attributes:
        start: first iteration.
        evaluations: the paper's columns by the iteration after which they were measured (`train.evaluate_every`).
        hours: time of all iterations so far.
        world: number of processes.
        main: whether this process writes the files.
    """

    def __init__(
        self,
        config: Config,
        data: Path,
        out: Path,
        *,
        init: str | Path | None,
        resume: bool,
        experiment: str,
        device: torch.device,
        base: Config | None,
    ):
        self.config, self.out, self.experiment, self.base = config, out, experiment, base
        settings = config.train
        self.precision = resolve(settings.precision, device)
        self.accelerator = join(self.precision, device)
        self.world, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        self.main = self.accelerator.is_main_process
        micro, self.accumulation = share_batch(settings, self.world)
        checkpoints = decide(self.accelerator, lambda: existing_checkpoints(out, resume=resume))

        train_set = open_dataset(data, "train", whole_masks=config.input.whole_masks)
        self.val_set = open_dataset(data, "val")
        set_seed(settings.seed)
        self.model = build_together(self.accelerator, config, train_set.categories, weights_follow=init is not None)
        check_data(train_set, self.val_set, rank=self.rank, world_size=self.world)  # slow, so after the settings
        if self.main:
            check_schedule(settings)
        self.facts = data_facts(train_set, self.val_set)
        self.initial: dict[str, Any] | None = None
        self.training = self.model.for_training()
        if init is not None and not checkpoints:
            found = decide(self.accelerator, lambda: initialise(self.model, init, self.training.train_only))
            self.initial = asdict(found)
            if self.main:
                tqdm.write(str(found))
        self.training.to(self.accelerator.device)
        cast(Any, self.training).to(memory_format=torch.channels_last)  # the fastest layout of convolutions
        if self.world > 1 and device.type == "cuda":
            synchronise_norms(self.training)
        self.start, self.hours = 0, 0.0
        self.history: list[dict[str, Any]] = []
        self.evaluations: dict[str, dict[str, float]] = {}
        self._restore(checkpoints)
        self.batches = self._batches(data, train_set, micro, pin_memory=device.type == "cuda")
        try:
            self.training.eval()
            rehearse(self.model, self.val_set)
            self.log = Log(out, kind=settings.log, start=self.start) if self.main else None
        except BaseException:
            self.batches.close()
            raise
        self.revision = dict(zip(("commit", "dirty"), source_state(), strict=True))
        self.overflows = 0
        self.bar = tqdm(
            range(self.start, settings.iterations),
            initial=self.start,
            total=settings.iterations,
            desc=experiment,
            disable=not self.main,
        )

    def _restore(self, checkpoints: list[Path]) -> None:
        """Makes the optimiser. If there are checkpoints, restores the last one."""
        optimizer = make_optimizer(self.training, self.config.train)
        state: dict[str, Any] = {}
        if checkpoints:
            state = decide(self.accelerator, lambda: load_checkpoint(checkpoints[-1]))
            self.history = settled_history(state, self.config, self.facts["fingerprint"], checkpoints[-1])
            self.training.load_state_dict(state["training"])
            optimizer.load_state_dict(state["optimizer"])
            self.start, self.hours, self.initial = state["iteration"], state["hours"], state.get("init")
            self.evaluations = state.get("evaluations", {})
        self.wrapped, self.optimizer = self.accelerator.prepare(self.training, optimizer)
        if checkpoints and self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def _batches(self, data: Path, train_set: Any, micro: int, *, pin_memory: bool) -> Batches[Part]:
        """The remaining batches of the stream, with targets.

        A sample depends only on its position in the stream, any other random draw only on the iteration. So a
        checkpoint needs no state of samplers or generators.
        """
        settings, inputs = self.config.train, self.config.input
        source = EndlessCity(data, train_set.categories) if inputs.endless else train_set
        stream = TrainStream(dataset=source, transform=train_transform(inputs), seed=settings.seed)
        positions = PositionSampler(
            start_iteration=self.start,
            end_iteration=settings.iterations,
            batch_size=settings.batch_size,
            images_per_device=micro,
            rank=self.rank,
            world_size=self.world,
        )
        prepare = Prepare(self.model.target_builder())
        loader = make_train_loader(stream, positions, prepare=prepare, workers=inputs.workers, pin_memory=pin_memory)
        return Batches(loader)

    def close(self) -> None:
        """Ends the loader's processes and closes the log."""
        self.batches.close()
        if self.log:
            self.log.close()

    def step(self, iteration: int, *, stop: bool) -> Step:
        """One step. `stop` asks all processes to stop; they see it when they read the losses."""
        settings = self.config.train
        torch.manual_seed(stable_seed(settings.seed, "iteration", iteration, self.rank))
        rate = learning_rate(iteration, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        parts = [next(self.batches) for _ in range(self.accumulation)]
        losses: PendingLosses = take_step(
            self.wrapped,
            self.optimizer,
            parts,
            self.accelerator,
            progress=iteration / settings.iterations,
            clip=settings.clip_norm,
            stop=stop,
        )
        return Step(iteration, rate, [image for part in parts for image in part.batch.image_ids], losses)

    def write_down(self, step: Step) -> bool:
        """Logs the losses of a step. Returns whether any process asked to stop.

        Raises:
            TrainError: a loss is not finite.
        """
        values = step.losses.read()
        stop = values.pop("stop") > 0
        finite = all(math.isfinite(value) for name, value in values.items() if name != "gradient_norm")
        self.overflows = 0 if finite else self.overflows + 1
        # in fp16 a step that overflows is skipped, and the loss scale is halved for the next one
        if self.overflows > (HALVINGS if self.precision == "fp16" else 0):
            bad = ", ".join(f"{name} = {value}" for name, value in values.items() if not math.isfinite(value))
            remedy = remedy_for_non_finite(self.out, step.iteration, self.precision, act=self.main)
            raise TrainError(
                f"iteration {step.iteration}: loss is not finite ({bad}) at rate {step.rate:.2e}, images "
                f"{step.image_ids}; {remedy}"
            )
        if self.log:
            norm = values.pop("gradient_norm")
            row = {**values, "rate": step.rate, "gradient_norm": norm, "seconds": step.seconds}
            self.log.write(step.iteration + 1, row)
        self.bar.set_postfix({name: f"{value:.3f}" for name, value in values.items()}, refresh=False)
        return stop

    def save(self, done: int) -> None:
        """Writes a checkpoint after `done` iterations."""
        if self.main:
            state = {
                "iteration": done,
                "hours": self.hours,
                "config": to_dict(self.config),
                "init": self.initial,
                "history": self.history,
                "evaluations": self.evaluations,
                "fingerprint": self.facts["fingerprint"],
                "training": self.training.state_dict(),
                "optimizer": self.optimizer.optimizer.state_dict(),
                "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
            }
            save_checkpoint(self.out, done, state)

    def save_weights(self, folder: Path) -> None:
        """Writes the network, and the heads of SPINet's auxiliary tasks."""
        if self.main:
            save_model(self.model, folder / "model.safetensors")
            if self.training.train_only is not None:
                save_objective(self.training.train_only, self.config, folder / OBJECTIVE)

    def judge(self, done: int) -> None:
        """Evaluates during training."""
        self.training.eval()
        summary = validate(self.model, self.val_set, rank=self.rank, world_size=self.world)["summary"]
        self.evaluations[str(done)] = summary
        self.record("running", done, summary)
        self.bar.write(f"{done}: " + ", ".join(f"{name} {value:.1f}" for name, value in summary.items()))
        self.training.train()

    def finish(self) -> dict[str, Any]:
        """Writes the weights, evaluates them, and returns the record."""
        self.save_weights(self.out)
        done = self.config.train.iterations
        self.record("trained", done, {})
        self.training.eval()
        result = validate(self.model, self.val_set, rank=self.rank, world_size=self.world)
        features = feature_measures(self.model, self.val_set, self.out) if self.main else {}
        return self.record("finished", done, metrics_of(result, features))

    def record(self, status: str, iteration: int, metrics: dict[str, Any]) -> dict[str, Any]:
        """Writes the record with the progress of the run, and returns it."""
        backbone = self.model.network.backbone
        result = new_record(
            experiment=self.experiment,
            seed=self.config.train.seed,
            config=to_dict(self.config),
            data=self.facts,
            iterations=iteration,
            hours=self.hours,
            metrics=metrics,
            device=_device_name(self.accelerator.device),
            processes=self.world,
            status=status,
        )
        result |= self.revision  # the source when the run started, without later commits
        result["backbone_weights"] = backbone.weights
        result["init"] = self.initial
        result["backbone_norm"] = backbone.norm
        result["precision"] = self.precision
        result["tf32"] = tf32()
        result["history"] = self.history
        result["evaluations"] = self.evaluations
        result["base"] = self.base and to_dict(self.base)
        if self.main:
            write_record(result, self.out / RECORD)
        return result


def share_batch(settings: TrainConfig, world: int) -> tuple[int, int]:
    """Images per forward pass of a process, and forward passes per step.

    Raises:
        TrainError: the batch size does not divide, or not all processes have joined.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) != world:
        raise TrainError(f"WORLD_SIZE is {os.environ['WORLD_SIZE']} but {world} processes joined; start with torchrun")
    micro = min(settings.images_per_device, max(1, settings.batch_size // world))
    if settings.batch_size % (micro * world):
        raise TrainError(
            f"train.batch_size {settings.batch_size} cannot be shared by {world} processes × {micro} images; "
            "choose train.batch_size or train.images_per_device so that it divides"
        )
    return micro, settings.batch_size // (micro * world)


def train_transform(config: InputConfig) -> TrainTransform:
    """The configured scale, crop, flip and colour transform."""
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
