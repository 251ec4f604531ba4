"""The README's numbers come from the records, and no others stand there."""

from spinet.results import END, ROOT, START, page, results_table
from spinet.runs import find_records


def test_the_readme_is_current():
    text = (ROOT / "README.md").read_text()
    assert page(text, find_records(ROOT / "figures" / "runs").values()) == text, "run: python -m spinet.results"


def test_a_table_holds_every_record_once():
    records = find_records(ROOT / "figures" / "runs").values()
    table = results_table(records)
    assert table.count("| SPINet |") == len(records)
    for record in records:
        assert f"{record['metrics']['PQ']:.1f}" in table
    assert page(f"a{START}old{END}b", records) == f"a{START}\n\n{table}\n{END}b"
