"""Shared parts of the tests: scenes of rectangles, the campaign of faults, and the list of slow tests."""

from pathlib import Path

import pytest
import torch
from campaign import Campaign

NUM_THINGS, NUM_STUFF = 3, 4

SLOW = {
    *("test_accounting", "test_baselines", "test_benchmark", "test_browser", "test_cli", "test_cuda_rules"),
    *(
        "test_experiments",
        "test_export",
        "test_faults",
        "test_figures_components",
        "test_figures_results",
        "test_memory",
    ),
    *(
        "test_optimize",
        "test_processes",
        "test_synthcity",
        "test_train",
        "test_users",
        "test_it_runs_from_top_to_bottom",
    ),
}
"""Files and single tests that `make check` skips: they train, measure time, draw or start programs."""


def pytest_collection_modifyitems(items):
    for item in items:
        if {item.path.stem, item.originalname} & SLOW:
            item.add_marker("slow")


def draw_scene(seed: int, height: int = 64, width: int = 96, things: int = 4, stuff: int = 3, crowd: int = 0):
    """A segment map of rectangles on void, int32 [H, W], with the label and the crowd flag of each segment.

    Things are in front of stuff, every segment is visible, and the last `crowd` things are crowds.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    while True:
        segment_map = torch.zeros(height, width, dtype=torch.int32)
        for segment in range(stuff + things):
            tall, wide = (height // 2, width // 2) if segment < stuff else (height // 4, width // 4)
            top, left = draw(0, height - tall), draw(0, width - wide)
            segment_map[top : top + draw(tall // 2, tall), left : left + draw(wide // 2, wide)] = segment + 1
        if len(segment_map.unique()) == stuff + things + 1:
            break
    labels = [NUM_THINGS + draw(0, NUM_STUFF) for _ in range(stuff)] + [draw(0, NUM_THINGS) for _ in range(things)]
    return segment_map, torch.tensor(labels, dtype=torch.int64), torch.arange(stuff + things) >= stuff + things - crowd


@pytest.fixture
def scene():
    return draw_scene


def pytest_addoption(parser):
    parser.addoption("--faults", metavar="FILE", help="run the campaign of faults in full, and write its table there")


@pytest.fixture(scope="session")
def campaign(request):
    made = Campaign(long=bool(request.config.getoption("--faults")))
    yield made
    if made.long:
        Path(request.config.getoption("--faults")).write_text(made.page())
