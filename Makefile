# make demo   from a fresh clone to a validated production ensemble
# make test   the tests
# make test-fast   those of pure rooms and examples, in a minute
# make golden what every command prints, written anew: tests/golden, docs/models
# make site   the documents as a site, in build/site, every link checked
# make stress the totals of what the tests sample, as figures (some ten minutes)
# All make their own virtual environment in .venv and install what they need.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test test-fast golden site stress lint clean

demo: .venv/train.stamp
	$(BIN)/python benchmarks/demo.py

# A file's tests run in one worker, which makes what they share once.
# What Python compiles is kept beside it, as pip keeps it: both workers, each process that a test starts, and the next run
# find it there.
test test-fast golden stress: export PYTHONDONTWRITEBYTECODE =

test: .venv/dev.stamp
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

test-fast: .venv/dev.stamp
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow" $(ARGS)

golden: .venv/dev.stamp
	GOLDEN=write $(BIN)/python -m pytest tests/test_golden.py tests/project/test_model.py $(ARGS)

site: .venv/dev.stamp
	$(BIN)/mkdocs build --strict --quiet

stress: .venv/dev.stamp
	$(BIN)/python tests/helpers/stress.py $(ARGS)

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p registry_tool -p fr_ensemble

clean:
	rm -rf .venv .demo build dist *.egg-info

.venv/train.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable '.[train,torch]'
	touch $@

.venv/dev.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable '.[dev]'
	touch $@
