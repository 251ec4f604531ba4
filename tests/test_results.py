"""All numbers in the README, docs/ and the model card come from the records."""

import pytest
from results import END, START, packaged_record, pages, replaced, short_table, single_records, speed_tables

from spinet.config import PRESETS, to_dict
from spinet.report import report
from spinet.report.single import is_single, results_rows, results_table

RECORDS = single_records()
PAGES = pages()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_is_current(path):
    assert path.read_text(encoding="utf-8") == PAGES[path], "run: make docs"


def test_the_tables_are_current(tmp_path):
    root = next(iter(PAGES)).parent
    report([root / "figures" / "runs"], tmp_path)
    written = (root / "figures" / "tables.md").read_text()
    assert (tmp_path / "tables.md").read_text() == written, "run: make figures"


def test_a_table_holds_every_record_once():
    table, short = results_table(RECORDS).markdown(), short_table(RECORDS).markdown()
    assert packaged_record("") in RECORDS
    assert table.count("| SPINet |") == len(RECORDS)
    assert len(short.splitlines()) == 2 + len(RECORDS)
    for record in RECORDS:
        for name in ("PQ", "PQ_components"):
            assert f"| {record['metrics'][name]:.1f} |" in table
            assert f"| {record['metrics'][name]:.1f} |" in short


def test_only_what_stands_between_the_marks_is_replaced():
    assert replaced(f"a{START}old{END}b", "new\n") == f"a{START}\n\nnew\n\n{END}b"


def test_a_run_that_is_not_finished_has_no_row():
    assert not is_single({**RECORDS[0], "status": "running", "metrics": {}})


def test_a_row_names_its_system():
    baseline = {**RECORDS[0], "config": to_dict(PRESETS["tiny"].with_system("condinst"))}
    assert [row[1] for row in results_rows([RECORDS[0], baseline])][::2] == ["SPINet", "CondInst + semantic branch"]


def test_times_stand_under_their_conditions():
    row = {
        "system": "spinet",
        "optimized": True,
        "precision": "bf16",
        "instances": 40,
        "found": 40,
        "network_s": 1.5,
        "post_s": 0.2,
    }
    row |= {
        "total_s": 1.7,
        "total_quartiles": [1.6, 1.9],
        "total_ratio": 1.0,
        "floor_macs_s": 1.2,
        "floor_bytes_s": 0.1,
    }
    row |= {"params": 42e6, "macs": 8e11, "peak_memory": None}
    record = {
        "rows": [row],
        "device": {"name": "a chip"},
        "size": [8, 16],
        "preset": "tiny",
        "threads": 2,
        "repeats": 3,
    }
    table = speed_tables([record])
    assert table.startswith("8 × 16 px, preset `tiny`, a chip, 2 threads, medians of 3 rounds:\n\n| system |")
    assert "| spinet | bf16 | 40 | 40 | 1500 | 200 | 1700 | 1600-1900 | 1 | 1200 | 42 | 800 | – |" in table
    assert speed_tables([]) == ""
