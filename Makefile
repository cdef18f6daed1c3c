# Every target does its own set-up; a second call reuses it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test coco-sample appendix-b appendix-b1 appendix-b2 bench latency lock clean

help:  ## this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

demo: $(READY)  ## the whole chain on generated scenes: a table and a picture, minutes on two cores
	$(BIN)/deepmac run pipelines/demo.toml

test: $(READY)  ## lint, then all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

coco-sample: $(READY)  ## real photographs: make coco-sample DATA=folder with instances_train.json, instances_val.json, images
	$(BIN)/deepmac run pipelines/coco_sample.toml --data $(DATA)

# Appendix B of the paper: its protocol on COCO (LVIS=FILE: and on LVIS), or with SMALL=1 a sample of it.
ifneq ($(filter appendix-b%,$(MAKECMDGOALS)),)
ifeq ($(strip $(if $(SMALL),$(DATA),$(COCO))),)
$(error appendix-b: no data named; expected COCO=FOLDER in COCO's layout and LVIS=FILE, or SMALL=1 DATA=FOLDER)
endif
endif
ifdef SMALL
B_PROTOCOL := small
B_DATA := $(DATA)
B_OUT := runs/appendix-b-small
B_TEACHER := pipelines/appendix_b_small.toml
B_STUDENT := pipelines/appendix_b_small_mask_rcnn.toml
B_LVIS :=
else
B_PROTOCOL := paper
B_DATA := $(COCO)
B_OUT := runs/appendix-b
B_TEACHER := pipelines/paper/teacher_hg100.toml
B_STUDENT := pipelines/paper/student_mask_rcnn_r50.toml
B_LVIS := $(if $(LVIS),pipelines/paper/lvis_resnet4.toml pipelines/paper/lvis_hg100.toml)
endif
b_run = $(B_OUT)/$(basename $(notdir $(1)))
b_given = $(1) --data $(B_DATA) --out $(call b_run,$(1))
b_lvis = $(call b_given,$(1)) --set data.val_annotations=$(abspath $(LVIS))
b_forecast = $(BIN)/deepmac forecast $(if $(ANYWAY),--anyway)
b_cuts = $(if $(SMALL),@$(BIN)/python benchmarks/appendix_b.py cuts $(B_DATA))
b_table = $(BIN)/python benchmarks/appendix_b.py table $(B_PROTOCOL) $(B_OUT)

define b_teach
$(BIN)/deepmac teach --config $(call b_given,$(B_TEACHER))
$(BIN)/deepmac evaluate teacher --out $(call b_run,$(B_TEACHER))
endef

define b_students
$(BIN)/deepmac pseudolabel --out $(call b_run,$(B_TEACHER))
$(BIN)/deepmac student --out $(call b_run,$(B_TEACHER))
$(BIN)/deepmac evaluate student --out $(call b_run,$(B_TEACHER))
$(BIN)/deepmac student --config $(call b_given,$(B_STUDENT)) --labels $(call b_run,$(B_TEACHER))/select/instances.json
$(BIN)/deepmac evaluate student --out $(call b_run,$(B_STUDENT))
endef

appendix-b1: $(READY)  ## the paper's appendix B.1: COCO=FOLDER, or SMALL=1 DATA=FOLDER for a sample
	$(b_cuts)
	$(b_forecast) $(call b_given,$(B_TEACHER)) --teacher
	$(b_teach)
	$(b_table)

appendix-b2: $(READY)  ## appendix B.2, the two students
	$(b_cuts)
	$(b_forecast) $(call b_given,$(B_TEACHER))
	$(b_forecast) $(call b_given,$(B_STUDENT)) --student
	$(b_teach)
	$(b_students)
	$(b_table)

appendix-b: $(READY)  ## both, and with LVIS=lvis_v1_val.json what all masks of COCO give there
	$(b_cuts)
	$(b_forecast) $(call b_given,$(B_TEACHER))
	$(b_forecast) $(call b_given,$(B_STUDENT)) --student
	$(if $(B_LVIS),$(foreach file,$(B_LVIS),$(b_forecast) $(call b_lvis,$(file)) --teacher && )true)
	$(b_teach)
	$(b_students)
	$(if $(B_LVIS),$(foreach file,$(B_LVIS),$(BIN)/deepmac teach --config $(call b_lvis,$(file)) && \
	  $(BIN)/deepmac evaluate teacher --out $(call b_run,$(file)) && )true)
	$(b_table)

bench: $(READY)  ## the box-local codec beside its peers
	$(BIN)/python benchmarks/codec.py --json benchmarks/results/codec.json

latency: demo  ## milliseconds an image of the demo's teacher and student, in one run
	$(BIN)/python benchmarks/latency.py $(foreach role,teacher student,$(role)=runs/demo/$(role)/weights.safetensors) \
	  --annotations runs/demo/scenes-val/instances.json --images runs/demo/scenes-val/images

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
