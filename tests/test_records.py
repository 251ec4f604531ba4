"""Run records: no losses, no partial files, and clear errors."""

import errno
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from spinet import files, records
from spinet.files import FileError, atomic, atomic_write, write_json
from spinet.records import RecordError, compare, find_records, fingerprint, read_record, tabulate


def record(**changes):
    values = {
        "experiment": "auxiliary",
        "seed": 3,
        "config": {"model": {"width": 64, "coords": True}, "lr": 0.01},
        "data": {"name": "dsb2018", "splits": {"train": 500, "val": 100}, "fingerprint": "0" * 64},
        "iterations": 1000,
        "hours": 0.25,
        "metrics": {"PQ": 24.5, "PQ_th": 20.0, "per_class": {"7": {"pq": 0.1}}},
    }
    return records.new_record(**(values | changes))


def test_a_record_comes_back_as_it_was(tmp_path):
    written = record()
    records.write_record(written, tmp_path / "deep" / "run.json")
    assert read_record(tmp_path / "deep" / "run.json") == written
    assert set(written) == set(records.KEYS)
    assert datetime.fromisoformat(written["created"]).tzinfo == UTC
    assert written["device"]["processes"] == 1
    assert written["device"]["cores"] >= 1
    assert written["device"]["name"]
    assert written["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert written["versions"]["numpy"] == np.__version__
    assert record(device="an accelerator", processes=8)["device"]["name"] == "an accelerator"


def test_records_are_strict_json(tmp_path):
    path = tmp_path / "run.json"
    odd = {
        "nan": float("nan"),
        "inf": np.float32("inf"),
        "list": [np.nan, np.int64(3)],
        "array": np.array([1.5, np.nan]),
    }
    records.write_record(record(metrics=odd, config={"at": Path("a") / "b", "size": (3, 4)}), path)

    def refuse(constant):
        raise AssertionError(constant)

    content = json.loads(path.read_text(), parse_constant=refuse)
    assert content["metrics"] == {"nan": None, "inf": None, "list": [None, 3], "array": [1.5, None]}
    assert content["config"] == {"at": str(Path("a") / "b"), "size": [3, 4]}
    write_json({7: [float("nan")]}, path)
    assert json.loads(path.read_text()) == {"7": [None]}
    with pytest.raises(FileError, match=r"other\.json.*not JSON serializable"):
        records.write_record(record(metrics={"x": object()}), tmp_path / "other.json")
    assert not (tmp_path / "other.json").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"experiment": "x",\n "seed" 3}', r"run\.json: line 2, column 9"),
        ("", r"run\.json: line 1"),
        ("[]", "contains list"),
        ('{"experiment": "x"}', "lacks seed, status, created"),
        ("\udcff", "not JSON text"),
    ],
)
def test_broken_records_are_named(content, message, tmp_path):
    (tmp_path / "run.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(RecordError, match=message):
        read_record(tmp_path / "run.json")


def test_missing_and_misformed_records_are_named(tmp_path):
    with pytest.raises(RecordError, match=r"absent\.json: cannot be read"):
        read_record(tmp_path / "absent.json")
    with pytest.raises(RecordError, match=r"run\.json: `metrics` is list"):
        records.write_record(record() | {"metrics": []}, tmp_path / "run.json")


def test_records_are_found_below_a_folder_oldest_first(tmp_path):
    times = ["2026-01-03T00:00:00+00:00", "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"]
    for place, (folder, created) in enumerate(zip("abc", times, strict=True)):
        records.write_record(record(seed=place) | {"created": created}, tmp_path / folder / "record.json")
    (tmp_path / "a" / "sidecar.json").write_text('{"runs": ["record.json"]}')
    (tmp_path / "a" / "annotations.json").write_text("[1, 2]")
    found = find_records(tmp_path)
    assert [path.parent.name for path in found] == ["b", "c", "a"]
    assert [entry["seed"] for entry in found.values()] == [1, 2, 0]
    (tmp_path / "b" / "half.json").write_text('{"experiment":')
    with pytest.raises(RecordError, match=r"half\.json"):
        find_records(tmp_path)


def test_rows_have_the_same_columns():
    early = record(metrics={"PQ": 1.5, "name": "x", "AP": None}) | {"created": "2026-01-01T00:00:00+00:00"}
    late = record(seed=4, metrics={"PQ": 2.5, "mIoU": 3, "per_class": {}}) | {"created": "2026-01-02T00:00:00+00:00"}
    rows = tabulate([late, early])
    assert [row["seed"] for row in rows] == [3, 4]
    head = ["experiment", "seed", "status", "iterations", "hours", "created"]
    assert [list(row) for row in rows] == [[*head, "PQ", "AP", "mIoU"]] * 2
    assert [row["PQ"] for row in rows] == [1.5, 2.5]
    assert [row["mIoU"] for row in rows] == [None, 3]
    assert tabulate([]) == []


def test_compare_names_what_differs():
    base = record()
    other = record(config={"model": {"width": 128, "coords": True}, "lr": 0.01, "auxiliary": {"weight": 0.5}})
    assert compare([base, other]) == {"model.width": [64, 128], "auxiliary.weight": [None, 0.5]}
    assert compare([base, base]) == {}
    assert compare([]) == {}


def test_the_fingerprint_follows_the_data_and_not_the_place(tmp_path):
    def make(root, annotation="{}", image=b"1234", name="a.png"):
        (root / "train").mkdir(parents=True)
        (root / "train.json").write_text(annotation)
        (root / "train" / name).write_bytes(image)
        (root / "train" / "b.png").write_bytes(b"12")
        return fingerprint([root / "train.json", root / "train"])

    same = make(tmp_path / "x")
    assert make(tmp_path / "y") == same
    assert fingerprint([tmp_path / "x" / "train", tmp_path / "x" / "train.json"]) == same
    different = [
        make(tmp_path / "1", annotation="[]"),
        make(tmp_path / "2", image=b"12345"),
        make(tmp_path / "3", name="c.png"),
        fingerprint([tmp_path / "x" / "train"]),
    ]
    assert len({same, *different}) == 5
    described = records.describe_data(tmp_path / "x", splits={"train": 2}, paths=[tmp_path / "x" / "train"])
    assert described == {"name": "x", "splits": {"train": 2}, "fingerprint": different[3]}


def git(folder, *arguments):
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_source_is_named_and_so_are_changes(tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(records, "PACKAGE", package)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert records.source_state() == (None, None)
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "something else")
    assert records.source_state() == (None, None)  # installed in another project's checkout
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "all")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "result.json").write_text("a run writes beside the package")
    assert records.source_state() == (commit, False)
    (package / "new.py").write_text("")
    assert records.source_state() == (commit, True)
    monkeypatch.setenv("PATH", "")
    assert records.source_state() == (None, None)


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "checkpoint"
    atomic_write(path, b"old")

    def fail(handle):
        handle.write(b"half of the new")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped") as caught:
        atomic_write(path, fail)
    assert str(path) in caught.value.__notes__[0]
    with pytest.raises(KeyboardInterrupt), atomic(path):
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    atomic_write(path, lambda handle: handle.write(b"new"))
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_full_disk_is_one_error_that_names_the_file(step, tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    records.write_record(record(), path)
    old = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if step == "replace":
        monkeypatch.setattr(Path, "replace", full)
    elif step == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left.*unchanged.*run\.json") as caught:
        atomic_write(path, full if step == "write" else b"new")
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
def test_a_limit_on_file_sizes_keeps_the_old_file(tmp_path):
    """The operating system refuses the write, in a separate process."""
    path = tmp_path / "checkpoint"
    atomic_write(path, b"old")
    code = (
        "import resource, runpy, signal, sys; atomic_write = runpy.run_path(sys.argv[2])['atomic_write'];"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "atomic_write(sys.argv[1], bytes(5000))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), files.__file__], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("OSError: [Errno 27] File too large; what was there before")
    assert str(path) in done.stderr.strip().splitlines()[-1]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_of_a_writer_keep_their_file_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"), atomic(tmp_path / "x"):
        (tmp_path / "elsewhere").open()
    assert not any(tmp_path.iterdir())


def test_it_needs_neither_torch_nor_numpy():
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, files.__file__], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
