"""The README's numbers come from the records, and no others stand there."""

from spinet.config import PRESETS, to_dict
from spinet.records import find_records
from spinet.report import report
from spinet.results import (
    CARD,
    END,
    ROOT,
    SPEED_END,
    SPEED_START,
    START,
    card_records,
    is_single,
    page,
    results_rows,
    results_table,
    speed_page,
    speed_tables,
)
from spinet.speed.summary import read_benchmarks

RECORDS = [record for record in find_records(ROOT / "figures" / "runs").values() if is_single(record)] + card_records()


def test_the_readme_is_current():
    text = (ROOT / "README.md").read_text()
    assert page(text, RECORDS) == text, "run: python -m spinet.results"
    card = CARD.read_text()
    assert page(card, card_records()) == card, "run: python -m spinet.results"
    assert speed_page(text, read_benchmarks(ROOT / "figures" / "runs")) == text, "run: python -m spinet.results"


def test_the_tables_are_current(tmp_path):
    report([ROOT / "figures" / "runs"], tmp_path)
    written = (ROOT / "figures" / "tables.md").read_text()
    assert (tmp_path / "tables.md").read_text() == written, "run: make figures"


def test_a_table_holds_every_record_once():
    table = results_table(RECORDS)
    assert table.count("| SPINet |") == len(RECORDS)
    for record in RECORDS:
        assert f"{record['metrics']['PQ']:.1f}" in table
    assert page(f"a{START}old{END}b", RECORDS) == f"a{START}\n\n{table}\n{END}b"


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
    assert speed_page(f"a{SPEED_START}old{SPEED_END}b", [record]) == f"a{SPEED_START}\n\n{table}\n{SPEED_END}b"
