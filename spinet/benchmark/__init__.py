"""§5.3, Table 2 as something that runs: every system timed in turns, on outputs as a trained network gives them.

`side_by_side` times, `staging` makes the outputs, `yardstick` says what a time is held against, `records` reads what
was kept.
"""

from spinet.benchmark.records import read_benchmarks, summary
from spinet.benchmark.side_by_side import benchmark

__all__ = ["benchmark", "read_benchmarks", "summary"]
