# Every target does its own set-up; a second call reuses it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test coco-sample bench lock clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

demo: $(READY)  ## the whole chain on generated scenes: a table and a picture, minutes on two cores
	$(BIN)/deepmac run pipelines/demo.toml

test: $(READY)  ## lint, then all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

coco-sample: $(READY)  ## real photographs: make coco-sample DATA=folder with instances_train.json, instances_val.json, images
	$(BIN)/deepmac run pipelines/coco_sample.toml --data $(DATA)

bench: $(READY)  ## the box-local codec beside its peers
	$(BIN)/python benchmarks/codec.py --json benchmarks/results/codec.json

lock: $(READY)  ## write requirements.lock from this environment
	(echo "# Every package of a working environment, Python 3.11 on Linux. Written by: make lock"; \
	 $(BIN)/pip freeze --exclude-editable) > requirements.lock

clean:  ## remove the environment, not the runs
	rm -rf $(VENV)

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@
