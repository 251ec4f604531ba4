"""§5.2 Input: image and segments are transformed alike, and a position in the stream determines a sample."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spinet.data.segments import VOID, RawSample, Sample, encode_ids
from spinet.data.stream import PositionSampler, TrainStream, make_train_loader
from spinet.data.transforms import EvalTransform, TrainTransform, as_photo, collate, jitter

PLAIN = {"scale": (1, 1), "scale_unit": "factor", "max_long_side": None, "crop": None, "flip": 0, "colour_jitter": 0}


def transform(**changes) -> TrainTransform:
    return TrainTransform(**(PLAIN | changes))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ramp(height: int, width: int) -> Sample:
    """Red is the column, green the row of a source pixel; blue and the map number 4 × 4 blocks, from 1."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    blocks = (rows // 4) * -(-width // 4) + columns // 4 + 1
    return Sample(
        image_id="ramp",
        image=torch.stack([columns, rows, blocks % 251]).to(torch.uint8),
        segment_map=blocks.int(),
        labels=torch.arange(int(blocks.max())) % 7,
        crowd=torch.arange(int(blocks.max())) % 5 == 0,
    )


def equal(a: Sample, b: Sample) -> bool:
    names = "image", "segment_map", "labels", "crowd", "window"
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)


sizes = st.tuples(st.integers(20, 90), st.integers(20, 90))


@settings(max_examples=150, deadline=None)
@given(
    sizes,
    st.floats(0.4, 3),
    st.none() | st.tuples(st.integers(8, 120), st.integers(8, 120)),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_every_pixel_is_where_the_window_says(size, factor, crop, flipped, seed):
    source = ramp(*size)
    result = transform(scale=(factor, factor), crop=crop, flip=float(flipped))(source, seeded(seed))
    left, top, full_width, full_height = result.window.tolist()
    height, width = result.size
    assert (height, width) == (crop or (round(size[0] * factor), round(size[1] * factor)))

    # centres of the output pixels, in source pixels
    x = (left + torch.arange(width) + 0.5) / full_width * size[1] - 0.5
    y = (top + torch.arange(height) + 0.5) / full_height * size[0] - 0.5
    shown_x, shown_y = (x > -0.5) & (x < size[1] - 0.5), (y > -0.5) & (y < size[0] - 0.5)
    if flipped:
        x = size[1] - 1 - x
    # pixels outside the source are void and black
    outside = ~(shown_y[:, None] & shown_x[None])
    assert not result.segment_map[outside].any()
    assert not result.image[:, outside].any()
    assert (result.segment_map[~outside] > 0).all()

    # a linear image stays linear, except at its margin and for rounding
    inner_x, inner_y = (v[2 : int(shown.sum()) - 2] for v, shown in ((x, shown_x), (y, shown_y)))
    inner = result.image[:, 2 : int(shown_y.sum()) - 2, 2 : int(shown_x.sum()) - 2].float()
    margin = max(2.0, 2 / factor)  # radius of the filter, in source pixels
    reach_x = (inner_x > inner_x.min() + margin) & (inner_x < inner_x.max() - margin) if len(inner_x) else inner_x > 0
    reach_y = (inner_y > inner_y.min() + margin) & (inner_y < inner_y.max() - margin) if len(inner_y) else inner_y > 0
    assume(reach_x.any() and reach_y.any())
    inner = inner[:, reach_y][:, :, reach_x]
    assert (inner[0] - inner_x[reach_x]).abs().max() < 0.6
    assert (inner[1] - inner_y[reach_y][:, None]).abs().max() < 0.6

    # the map has the block at each centre, unless the centre is on an edge
    grid_x, grid_y = x[shown_x], y[shown_y]
    expected_x, expected_y = (torch.floor((v + 0.5) / 4) for v in (grid_x, grid_y))
    safe_x, safe_y = (((v + 0.5) % 4 > 0.02) & ((v + 0.5) % 4 < 3.98) for v in (grid_x, grid_y))
    blocks = (expected_y[:, None] * -(-size[1] // 4) + expected_x[None]).long()
    numbers = result.segment_map[: len(grid_y), : len(grid_x)].long()
    safe = safe_y[:, None] & safe_x[None]
    assert torch.equal(result.labels[numbers - 1][safe], (blocks % 7)[safe])
    assert torch.equal(result.crowd[numbers - 1][safe], (blocks % 5 == 0)[safe])


@given(st.integers(0, 10**6))
def test_absent_segments_are_dropped_and_the_others_numbered_densely(seed: int):
    result = transform(crop=(16, 16), scale=(0.7, 2))(ramp(64, 80), seeded(seed))
    assert torch.unique(result.segment_map).tolist() == list(range(1, len(result.labels) + 1))
    assert len(result.crowd) == len(result.labels) < 320


def test_void_stays_void():
    source = ramp(32, 32)
    source.segment_map[:16] = VOID
    result = transform(scale=(2, 2))(source, seeded(0))
    assert not result.segment_map[:32].any()
    assert result.segment_map[32:].all()
    assert len(result.labels) == 32


@given(st.integers(0, 10**6))
def test_a_raw_sample_gives_what_the_full_one_gives(seed: int):
    rng = np.random.default_rng(seed)
    ids = rng.choice(2**24 - 1, 6, replace=False).astype(np.int32) + 1
    numbers = rng.integers(0, 7, (20, 30)).repeat(2, 0)
    raw = RawSample(
        image_id=1,
        image=rng.integers(0, 256, (40, 30, 3), dtype=np.uint8),
        panoptic=encode_ids(np.array([0, *ids])[numbers]),
        ids=ids,
        labels=torch.arange(6),
        crowd=torch.arange(6) == 2,
        path=None,
    )
    assert np.array_equal(raw.look_up().segment_map.numpy(), numbers)
    whole = transform(crop=(18, 22), scale=(0.5, 1.5), flip=0.5, colour_jitter=0.4)
    assert equal(whole(raw, seeded(seed)), whole(raw.look_up(), seeded(seed)))


def test_the_generator_alone_decides():
    varied = transform(scale=(0.6, 1.6), crop=(24, 24), flip=0.5, colour_jitter=0.4)
    source = ramp(50, 60)
    torch.manual_seed(1)
    first = [varied(source, seeded(seed)) for seed in range(8)]
    torch.manual_seed(2)
    assert all(equal(varied(source, seeded(seed)), sample) for seed, sample in enumerate(first))
    assert len({tuple(sample.window.tolist()) for sample in first}) == 8
    assert equal(source, ramp(50, 60))  # the source is unchanged


def test_scale_is_drawn_from_the_range():
    by_side = transform(scale=(30, 60), scale_unit="short_side", max_long_side=90)
    sides = [by_side(ramp(40, 80), seeded(seed)).size for seed in range(60)]
    heights = [height for height, _ in sides]
    assert min(heights) in (30, 31)
    assert len(set(heights)) > 8
    assert heights.count(45) > 15  # half of the range is cut by the long side
    assert max(width for _, width in sides) == 90
    assert all(abs(width - 2 * height) <= 1 for height, width in sides)


def test_crops_reach_every_place_and_half_are_flipped():
    crops = [transform(crop=(28, 26), flip=0.5)(ramp(30, 30), seeded(seed)) for seed in range(300)]
    flipped = [crop for crop in crops if crop.image[0, 0, 0] > crop.image[0, 0, -1]]
    assert 110 < len(flipped) < 190
    others = [crop for crop in crops if crop.image[0, 0, 0] < crop.image[0, 0, -1]]
    for some in (flipped, others):
        assert {(crop.window[1].item(), crop.window[0].item()) for crop in some} == {
            (top, left) for top in range(3) for left in range(5)
        }


@given(st.floats(0.6, 1.4), st.floats(0.6, 1.4), st.floats(0.6, 1.4), st.integers(0, 10**6))
def test_colours_follow_their_definition(brightness, contrast, saturation, seed):
    image = np.random.default_rng(seed).integers(40, 180, (7, 9, 3), dtype=np.uint8)
    weights = np.array([0.299, 0.587, 0.114])
    expected = image * brightness
    mean = (expected @ weights).mean()
    expected = mean + contrast * (expected - mean)
    grey = (expected @ weights)[..., None]
    expected = grey + saturation * (expected - grey)
    assert (
        np.abs(jitter(image, brightness, contrast, saturation) - expected.clip(0, 255)).max() < 0.8
    )  # OpenCV: 10 bits


def test_evaluation_scales_the_image_only():
    source = ramp(40, 80)
    result = EvalTransform(scale=60, max_long_side=100)(source)
    assert result.size == (50, 100)
    assert torch.equal(result.segment_map, source.segment_map)
    assert result.window.tolist() == [0, 0, 100, 50]
    assert equal(EvalTransform(scale=None)(source), source)


def test_collate_pads_to_the_largest():
    first, second = ramp(20, 40), ramp(30, 24)
    batch = collate([first, second], [7, 8])
    assert batch.images.shape == (2, 3, 30, 40)
    assert torch.equal(batch.images[0, :, :20], first.image)
    assert torch.equal(batch.segment_maps[1, :, :24], second.segment_map)
    assert not batch.images[0, :, 20:].any()
    assert not batch.segment_maps[1, :, 24:].any()
    assert batch.windows.tolist() == [[0, 0, 40, 20], [0, 0, 24, 30]]
    assert batch.seeds == [7, 8]
    assert batch.to("meta").labels[1].device.type == "meta"


class Ramps:
    """Five distinguishable samples."""

    def __len__(self) -> int:
        return 5

    def read(self, index: int) -> Sample:
        return replace(ramp(24, 32), image_id=index)


def stream(seed: int = 3) -> TrainStream:
    return TrainStream(dataset=Ramps(), transform=transform(crop=(16, 16), flip=0.5, colour_jitter=0.3), seed=seed)


def sampler(start: int = 0, end: int = 6, **options) -> PositionSampler:
    settings = {"batch_size": 8, "images_per_device": 2} | options
    return PositionSampler(start_iteration=start, end_iteration=end, **settings)


def test_an_epoch_has_every_image_once_in_its_own_order():
    ids = [stream()[position][0].image_id for position in range(20)]
    epochs = [ids[start : start + 5] for start in range(0, 20, 5)]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert [stream(4)[position][0].image_id for position in range(20)] != ids


def test_a_position_determines_the_sample():
    forwards = [stream()[position] for position in range(12)]
    late = stream()
    for position in reversed(range(12)):
        sample, seed = late[position]
        assert equal(sample, forwards[position][0])
        assert seed == forwards[position][1]
    assert len({seed for _, seed in forwards}) == 12


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 5), st.integers(0, 5))
def test_ranks_and_accumulation_share_what_one_device_would_read(world, each, accumulation, start, count):
    batch = world * each * accumulation
    shares = [
        list(sampler(start, start + count, batch_size=batch, images_per_device=each, rank=rank, world_size=world))
        for rank in range(world)
    ]
    assert all(len(share) == accumulation * count for share in shares)
    for iteration in range(count):
        lists = [share[i] for share in shares for i in range(iteration * accumulation, (iteration + 1) * accumulation)]
        assert {len(positions) for positions in lists} == {each}
        first = (start + iteration) * batch
        assert [p for positions in lists for p in positions] == list(range(first, first + batch))


def test_an_image_is_transformed_anew_each_time():
    samples = [stream()[position][0] for position in range(40)]
    for index in range(5):
        seen = [tuple(sample.window.tolist()) for sample in samples if sample.image_id == index]
        assert len(seen) == 8
        assert len(set(seen)) > 4


def test_resuming_continues_the_sequence():
    assert list(sampler(0, 6))[4 * len(sampler(0, 1)) :] == list(sampler(4, 6))
    assert len(sampler(4, 6)) == len(list(sampler(4, 6))) == 8
    with pytest.raises(ValueError, match="not a multiple"):
        sampler(world_size=3)


def as_it_is(batch):
    return batch


def test_worker_processes_change_nothing():
    here = list(make_train_loader(stream(), sampler(0, 2), prepare=as_it_is, workers=0))
    there = list(make_train_loader(stream(), sampler(0, 2), prepare=as_it_is, workers=2))
    assert len(here) == len(there) == 8
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.segment_maps, b.segment_maps)
        assert torch.equal(a.windows, b.windows)
        assert (a.seeds, a.image_ids) == (b.seeds, b.image_ids)


def test_photos_differ_by_seed_and_keep_what_stands_where():
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:, :48] = (200, 60, 40)
    picture[:, 48:] = (40, 80, 190)
    made = [as_photo(picture, seeded(seed)) for seed in range(12)]
    assert all(image.shape == picture.shape and image.dtype == np.uint8 for image in made)
    assert np.array_equal(made[3], as_photo(picture, seeded(3)))
    assert len({image.tobytes() for image in made}) == 12
    for image in made:  # red stays left, blue right
        left, right = image[:, 8:40].mean((0, 1)), image[:, 56:88].mean((0, 1))
        assert left[0] > right[0]
        assert right[2] > left[2]


def test_the_share_of_photos_changes_nothing_else():
    source = ramp(40, 60)
    plain, photo = transform(flip=0.5)(source, seeded(4)), transform(flip=0.5, photo=1.0)(source, seeded(4))
    assert torch.equal(plain.segment_map, photo.segment_map)
    assert torch.equal(plain.window, photo.window)
    assert not torch.equal(plain.image, photo.image)
    assert equal(plain, transform(flip=0.5, photo=1e-9)(source, seeded(4)))
