"""The README's numbers come from the records, and no others stand there."""

from spinet.results import END, ROOT, START, is_single, page, results_table
from spinet.runs import find_records

RECORDS = [record for record in find_records(ROOT / "figures" / "runs").values() if is_single(record)]


def test_the_readme_is_current():
    text = (ROOT / "README.md").read_text()
    assert page(text, RECORDS) == text, "run: python -m spinet.results"


def test_a_table_holds_every_record_once():
    table = results_table(RECORDS)
    assert table.count("| SPINet |") == len(RECORDS)
    for record in RECORDS:
        assert f"{record['metrics']['PQ']:.1f}" in table
    assert page(f"a{START}old{END}b", RECORDS) == f"a{START}\n\n{table}\n{END}b"
