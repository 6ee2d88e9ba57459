# Each target builds the environment it needs; only python3, git and make are taken for granted.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_CAPTURE := tests/captures/lossy-v4.pcap
DEMO_OUT := demo-out
PYTHONS := python3.9 python3.11 python3.13
FUZZ_SECONDS ?= 600
SOAK_SECONDS ?= 3600
ROUNDS ?= 5
SCALE ?= 1

.PHONY: help demo test lint types bench guard smoke record fuzz soak test-root test-all-pythons test-pypy clean

help:
	@echo "make demo              list and extract a sample capture"
	@echo "make test              the tests, on $(PYTHON)"
	@echo "make lint, make types  ruff, mypy --strict"
	@echo "make bench             the benchmarks; writes the tables of docs/benchmarks.md between markers (hours;"
	@echo "                       ROUNDS=$(ROUNDS) and SCALE=$(SCALE), of the captures, make it shorter)"
	@echo "make guard             has the hot path grown? (counted, not timed)"
	@echo "make smoke             do the benchmarks still deliver every byte? (small, not timed)"
	@echo "make test-all-pythons  the tests on each of $(PYTHONS) that is found"
	@echo "make test-pypy         the tests on PyPy, where it is found"
	@echo "make test-root         the tests that need root and network namespaces"
	@echo "make fuzz              coverage-guided fuzzing with atheris, FUZZ_SECONDS=$(FUZZ_SECONDS)"
	@echo "make soak              hostile and honest traffic mixed, SOAK_SECONDS=$(SOAK_SECONDS); memory must not grow"
	@echo "make record            record the sample captures anew (needs root)"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The run-time install and the development install have a stamp each, so that the demo does not wait for test tools.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-fuzz: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e ".[fuzz]"
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e ".[bench]"
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/tcpstitch list $(DEMO_CAPTURE)
	rm -rf $(DEMO_OUT)
	$(BIN)/tcpstitch extract $(DEMO_CAPTURE) -o $(DEMO_OUT)
	@ls -l $(DEMO_OUT)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/speed.py --rounds $(ROUNDS) --scale $(SCALE) --write
	$(BIN)/python benchmarks/scaling.py --rounds $(ROUNDS) --write
	$(BIN)/python benchmarks/cores.py --rounds $(ROUNDS) --scale $(SCALE) --write
	$(BIN)/python benchmarks/memory.py

guard: $(VENV)/.installed
	$(BIN)/python benchmarks/guard.py

smoke: $(VENV)/.installed
	$(BIN)/python benchmarks/speed.py --rounds 1 --scale 0.01 --only "tcpstitch run|tcpstitch assemble" --without "PyPy|3.13|system"
	$(BIN)/python benchmarks/scaling.py --here connections --value 1000
	$(BIN)/python benchmarks/scaling.py --here extents --value 10000
	$(BIN)/python benchmarks/scaling.py --here bytes --value 1000
	$(BIN)/python benchmarks/cores.py --rounds 1 --scale 0.02
	$(BIN)/python benchmarks/modes.py --scale 0.02

soak: $(VENV)/.installed
	$(BIN)/python benchmarks/soak.py --seconds $(SOAK_SECONDS)

record: $(VENV)/.installed
	$(BIN)/python tests/captures/record.py tests/captures

fuzz: $(VENV)/.installed-fuzz
	$(BIN)/python tests/fuzz/guided.py --seconds $(FUZZ_SECONDS)

test-root: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m root

test-all-pythons:
	@sh .ci/pythons $(PYTHONS)

test-pypy:
	@sh .ci/pythons pypy3

clean:
	rm -rf $(VENV) .venvs $(DEMO_OUT) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
