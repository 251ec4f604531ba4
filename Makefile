# make reproduce: sets up, runs the main job and the ablations.
# make reproduce PROFILE=cityscapes_r50 DATA=folder: the same with the paper's settings, on the paper's data.
# make test: sets up; linting, types and all tests. make check: linting, types and the quick tests, in 3 minutes.
# make docs: writes the generated parts of the README and of docs/ from records and from the configuration.
# make figures: draws the course's figures and writes the tables; SWEEP=folder: Fig. 5 and the map of φ from that sweep.
# make lab: opens the course. make notebooks: executes it in build/notebooks.
# make notebook NB=60 ARGS="-p scene 2": executes one notebook with other parameters; ARGS=--help-notebook lists them.
# make figure-5, make figure-targets: draws one figure; python -m spinet.figures --help lists them.
# make exercises: student copies of the notebooks in build/exercises, without the solutions, and a table of points.
# make site: the course, docs/ and an API reference as pages in build/site.
# make bench: measures times. make faults: injects faults for some minutes; writes docs/faults.md.
# make gpu-wheels: fetches into build/wheels what benchmarks/gpu.sh brings to a machine without a network.
PYTHON ?= python3
BIN := .venv/bin
# two processes, one thread each: two threads each would wait for each other
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

EXECUTED := $(patsubst %,build/%,$(wildcard notebooks/*.ipynb))
# what an executed notebook shows: code, weights, records and figures
SHOWN := $(shell find spinet figures -name '*.py' -o -name '*.safetensors' -o -name '*.json' -o -name '*.png' -o -name '*.webp')

.PHONY: reproduce test check lint docs faults bench gpu-wheels lab notebook notebooks exercises site figures clean

reproduce: .venv/installed
	$(BIN)/spinet reproduce $(if $(PROFILE),--preset $(PROFILE)) $(if $(DATA),--data $(DATA))

test: lint
	$(PYTEST)

check: lint
	$(PYTEST) -m "not slow"

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: .venv/installed
	$(BIN)/python docs/results.py
	$(BIN)/python docs/unstated.py
	$(BIN)/python docs/paper_map.py

faults: .venv/installed
	$(BIN)/python -m pytest tests/test_faults.py --faults docs/faults.md

bench: .venv/installed
	$(BIN)/python benchmarks/input_pipeline.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/synthcity.py
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/systems.py
	$(BIN)/spinet bench --precision fp32 bf16 --optimize True False --json figures/runs/bench.json
	$(BIN)/python docs/results.py
	$(BIN)/python -m spinet.figures speed

# for benchmarks/gpu.sh on a machine without a network: Python 3.12 on Linux, whatever this one is
gpu-wheels: .venv/installed
	$(BIN)/python -m pip download --quiet --no-deps --only-binary=:all: --implementation cp --python-version 3.12 \
		--platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux_2_28_x86_64 \
		--constraint constraints.txt --requirement benchmarks/gpu-wheels.txt --dest build/wheels

lab: .venv/installed
	$(BIN)/jupyter lab notebooks/00_quickstart.ipynb

notebook: .venv/installed
	@test -n "$(wildcard notebooks/$(NB)*.ipynb)" -a -n "$(NB)" || { echo "no notebook $(NB): give NB=, for example 60"; exit 2; }
	@mkdir -p build/notebook
	$(BIN)/papermill --cwd notebooks --no-progress-bar $(ARGS) $(firstword $(wildcard notebooks/$(NB)*.ipynb)) \
		build/notebook/$(notdir $(firstword $(wildcard notebooks/$(NB)*.ipynb)))

notebooks: $(EXECUTED)

exercises: .venv/installed
	$(BIN)/python docs/exercises.py build/exercises

site: $(EXECUTED)
	$(BIN)/python docs/publish.py build/notebooks build/site

figures: .venv/installed
	$(BIN)/python -m spinet.figures $(if $(SWEEP),--sweep $(SWEEP))
	$(BIN)/spinet report figures/runs --out figures

# figure-5 is figure_5, figure-2-fpn is figure_2_fpn, figure-feature-map is feature_map
figure-%: .venv/installed
	$(BIN)/python -m spinet.figures $(if $(SWEEP),--sweep $(SWEEP)) $(if $(filter 1 2 2-% 3 4 5,$*),figure_)$(subst -,_,$*)

# a copy in build/notebooks is whole: one that fails, or is interrupted, stays in build/running
build/notebooks/%.ipynb: notebooks/%.ipynb $(SHOWN) .venv/installed
	@mkdir -p build/notebooks build/running
	SPINET_PAGES=1 $(BIN)/papermill --cwd notebooks --execution-timeout 600 --no-progress-bar $< build/running/$*.ipynb
	@mv build/running/$*.ipynb $@

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("spinet needs Python 3.11 or newer: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	$(BIN)/python -m pip install --quiet --no-deps panopticapi-lite==0.2.0  # as docs/install.md says, with the reason
	touch $@

clean:
	rm -rf .venv
