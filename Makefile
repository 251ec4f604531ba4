# make reproduce: sets up, runs the main job and the ablations. make test: sets up and passes the tests.
# make reproduce PROFILE=cityscapes_r50 DATA=folder: the same with the paper's settings, on the paper's data.
PYTHON ?= python3
BIN := .venv/bin
# large buffers on huge pages: a quarter less time in convolutions on CPUs with glibc
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: reproduce test check bench clean

reproduce: .venv/installed
	$(BIN)/spinet reproduce $(if $(PROFILE),--preset $(PROFILE)) $(if $(DATA),--data $(DATA))

test: check
	$(BIN)/python -m pytest

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: .venv/installed
	$(BIN)/python benchmarks/input_pipeline.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/synthcity.py
	$(BIN)/python benchmarks/training_step.py

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("spinet needs Python 3.11 or newer: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	$(BIN)/python -m pip install --quiet --no-deps panopticapi-lite==0.2.0
	touch $@

clean:
	rm -rf .venv
