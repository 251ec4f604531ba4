"""The stream of training samples. A sample depends only on its position in the stream.

So training sees the same samples after it is resumed, or on another number of devices.
"""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, Protocol, TypeVar

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from spinet.data.segments import Batch, RawSample, Sample
from spinet.data.transforms import collate


class Source(Protocol):
    """The source of a stream: `PanopticDataset`, or anything else with samples at 0 … len - 1."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Sample | RawSample: ...


class TrainStream(Dataset[tuple[Sample, int]]):
    """An endless stream: epochs of a data set, each in its own random order, with random transforms.

    Item p, any integer from 0, is a sample and the seed of its other random draws.
    """

    def __init__(
        self, *, dataset: Source, transform: Callable[[Sample | RawSample, torch.Generator], Sample], seed: int
    ) -> None:
        self.dataset = dataset
        self.transform = transform
        self.seed = seed

    def __getitem__(self, position: int) -> tuple[Sample, int]:
        epoch, number = divmod(position, len(self.dataset))
        index = int(_order(len(self.dataset), stable_seed(self.seed, "epoch", epoch))[number])
        generator = torch.Generator().manual_seed(stable_seed(self.seed, "transform", position))
        return self.transform(self.dataset.read(index), generator), stable_seed(self.seed, "sample", position)


@lru_cache(maxsize=4)
def _order(length: int, seed: int) -> Tensor:
    """A permutation of 0 … length - 1."""
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed))


def stable_seed(*parts: int | str) -> int:
    """A seed in 0 … 2^63 - 1 from its parts, the same on every machine. Other parts give an unrelated seed."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class PositionSampler(Sampler[list[int]]):
    """The positions that a rank reads in iterations `start_iteration … end_iteration - 1`, one list per device batch.

    Iteration i takes positions i·G … (i + 1)·G - 1, where G is `batch_size`; each rank has a contiguous share of them,
    in G / (world_size · images_per_device) lists, over which gradients are accumulated.

    Raises:
        ValueError: `batch_size` is not a multiple of `world_size · images_per_device`.
    """

    def __init__(
        self,
        *,
        start_iteration: int,
        end_iteration: int,
        batch_size: int,
        images_per_device: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size % (world_size * images_per_device):
            raise ValueError(
                f"batch_size {batch_size} is not a multiple of {world_size} ranks × {images_per_device} images"
            )
        self.iterations = range(start_iteration, end_iteration)
        self.batch_size = batch_size
        self.images_per_device = images_per_device
        self.share = range(rank * batch_size // world_size, (rank + 1) * batch_size // world_size)

    def __iter__(self) -> Iterator[list[int]]:
        for iteration in self.iterations:
            first = iteration * self.batch_size
            for start in self.share[:: self.images_per_device]:
                yield list(range(first + start, first + start + self.images_per_device))

    def __len__(self) -> int:
        return len(self.iterations) * (len(self.share) // self.images_per_device)


T = TypeVar("T")


def make_train_loader(
    stream: TrainStream,
    sampler: PositionSampler,
    *,
    prepare: Callable[[Batch], T],
    workers: int,
    pin_memory: bool = False,
) -> DataLoader[T]:
    """Loads batches of the stream in the order of the sampler, and applies `prepare`.

    `workers` processes of one thread each do this; with 0 workers, this process does.
    """
    loader: DataLoader[Any] = DataLoader(  # its type is that of an item, not of the result of `collate_fn`
        stream,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=partial(_collate_items, prepare=prepare),
        pin_memory=pin_memory,
        worker_init_fn=_one_thread,
        persistent_workers=workers > 0,
        prefetch_factor=2 if workers else None,
    )
    return loader


class Batches(Iterator[T]):
    """The batches of a loader. Its processes start now and end with `close`.

    Errors of the processes are raised without the traceback that PyTorch adds.
    """

    def __init__(self, loader: DataLoader[T]):
        self._batches: Any = iter(loader)

    def __next__(self) -> T:
        try:
            return next(self._batches)
        except StopIteration:
            raise
        except Exception as error:
            if "Original Traceback" not in str(error):
                raise
            last = str(error).strip().splitlines()[-1]  # "package.DataError: message"
            raise type(error)(last.partition(": ")[2] or last) from None

    def close(self) -> None:
        """Ends the processes. Those of an iterator that an exception still refers to hold up the end of the program."""
        if end := getattr(self._batches, "_shutdown_workers", None):  # without processes there is none
            end()


def _collate_items(items: list[tuple[Sample, int]], prepare: Callable[[Batch], T]) -> T:
    return prepare(collate([sample for sample, _ in items], [seed for _, seed in items]))


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
    # all processes of a job get both signals; the main process handles them, and has a minute to end its step
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(60))
    cv2.setNumThreads(0)
