"""§5.2 Training: the loop, on one or several processes. It can be killed at any moment and resumed."""

from __future__ import annotations

import os
from contextlib import closing, nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist

from spinet.config import Config, checked
from spinet.files import owned
from spinet.machine import exact_float32, tuned_convolutions
from spinet.training.interruption import Interruption
from spinet.training.outcome import RECORD, note_end, stored
from spinet.training.run import SNAPSHOTS, Run
from spinet.training.step import Step


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
    """Trains and evaluates SPINet, or the baseline in `config`. Under `torchrun`, all its processes take part.

    Args:
        data: a folder in Cityscapes or COCO panoptic layout with the splits "train" and "val".
        out: folder for `checkpoint_*.pt`, `log.csv` (or TensorBoard's files), `model.safetensors`,
            `auxiliary.safetensors` (the heads of SPINet's auxiliary tasks) and `record.json`; the same weights after
            the iterations `train.snapshots` in `snapshots/<iteration>/`.
        init: initial weights, see `initialise`; `config` should have their network (`read_config`).
        resume: continue from the last checkpoint in `out`, if there is one.
        experiment: name of the record.
        device: "cpu" or "cuda"; "auto" is CUDA if available.
        base: settings shared by all rows of a table; the record then belongs to that table.

    Returns:
        The run record.

    Ctrl-C and SIGTERM save a checkpoint at the end of the step.

    Raises:
        ConfigError: a setting is invalid.
        DataError: the data cannot be read or evaluated.
        TrainError: `out` holds another run, the batch size does not divide, a loss is not finite, or evaluation failed.
        LockError: another process trains into `out`.
        WeightsError: `init` has no weights of this system.
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
                run = Run(config, data, out, init=init, resume=resume, experiment=experiment, device=kind, base=base)
                with closing(run):
                    return train_loop(run, interruption)
        except BaseException as error:
            said = note_end(out, before, error, resume=resume) if main_process else error
            if said is not error:
                raise said from error
            raise
        finally:
            if ours and dist.is_initialized():
                dist.destroy_process_group()


def train_loop(run: Run, interruption: Interruption) -> dict[str, Any]:
    """The training loop. `train` locks the folder before it and records how it ended."""
    settings = run.config.train

    def due(done: int) -> bool:
        """Whether to evaluate after so many iterations."""
        return settings.evaluate_every > 0 and 0 < done < settings.iterations and done % settings.evaluate_every == 0

    run.record("running", run.start, {})
    if run.start == 0 and 0 in settings.snapshots:
        run.save_weights(run.out / SNAPSHOTS / f"{0:07}")
    run.training.train()
    if due(run.start) and str(run.start) not in run.evaluations:  # the run stopped before it had the result
        run.judge(run.start)
    step: Step | None = None
    asked = False
    interruption.defers = True
    for iteration in run.bar:
        began = perf_counter()
        following = run.step(iteration, stop=interruption.noted is not None)
        # log the previous step while the device computes this one; its losses report signals to other processes
        asked = asked or (step is not None and run.write_down(step))
        step, done = following, iteration + 1
        last = done == settings.iterations
        stop = not last and (asked or (run.world == 1 and interruption.noted is not None))
        store = last or stop or done % settings.checkpoint_every == 0
        judge = due(done) and not stop
        if store or judge:
            step.losses.read()
        step.seconds = perf_counter() - began
        run.hours += step.seconds / 3600
        if store or judge:
            asked = run.write_down(step)
            step = None
        if done in settings.snapshots:  # before the checkpoint: a run killed in between repeats the step
            run.save_weights(run.out / SNAPSHOTS / f"{done:07}")
        if store:
            run.save(done)
        if stop:
            raise interruption.error(f"saved {done} of {settings.iterations} iterations in {run.out}")
        if judge:
            run.judge(done)
            run.save(done)  # with the result
    interruption.defers = False
    return run.finish()
