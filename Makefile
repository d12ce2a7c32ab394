# The one door. Every job makes .venv first where it is missing; see bootstrap.py.
#   make test ARGS="-k ring"    make demo TORCH=cuda    make test PYTHON=python3.12

PYTHON ?= python3
ARGS ?=

.PHONY: help demo test test-all lint bench docs env clean

help:
	@echo "make demo      four models of one corpus, one table (five to six minutes)"
	@echo "make test      the tests; ARGS=\"-k ring\" chooses among them"
	@echo "make test-all  and those that take minutes"
	@echo "make lint      ruff (lint and format) and mypy"
	@echo "make bench     every benchmark, alone on the machine; renders benchmarks/README.md"
	@echo "make docs      the reference pages, into docs/build"
	@echo "make env       only make .venv"
	@echo "make clean     remove .venv, caches and what was built"

demo test test-all lint bench docs env:
	@$(PYTHON) bootstrap.py $@ $(ARGS)

clean:
	rm -rf .venv build dist docs/build *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
