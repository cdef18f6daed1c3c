# Every target does its own set-up; a second call reuses it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Processes that share the tests, one thread each.
TEST_WORKERS ?= 2

PAPER = table-1 table-2 table-3 table-4 table-5 table-6 table-7 table-8 table-9 table-10 table-11 table-12 figure-3 appendix-c

.PHONY: help demo test soak coco-sample starter appendix-b appendix-b1 appendix-b2 appendix-d data-named mask-heads $(PAPER) table-13 figure-5 bench latency interop ray storage lock clean

help:  ## this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

demo: $(READY)  ## the whole chain on generated scenes: a table and a picture, minutes on two cores
	$(BIN)/deepmac run demo

test: $(READY)  ## lint, types, then all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal

soak: $(READY)  ## hours of harm: 200 kills over all stages, 60 of shards and ranks, 20,000 broken files
	$(BIN)/python benchmarks/soak.py mutations
	$(BIN)/python benchmarks/soak.py kills
	$(BIN)/python benchmarks/soak_many.py

coco-sample: $(READY)  ## real photographs: make coco-sample DATA=folder with instances_train.json, instances_val.json, images (SEEDS=3)
	$(BIN)/deepmac run coco_sample --data $(DATA) $(if $(SEEDS),--seeds $(SEEDS))

# The teacher in the package, trained again and measured on what of OTHERS is not in DATA.
STARTER_OTHERS = $(CURDIR)/runs/starter-others.json
STARTER_EVALUATE = --out runs/starter --val-annotations $(STARTER_OTHERS) --val-images "$(abspath $(OTHERS))/images"

starter: $(READY)  ## the teacher that travels in the package: make starter DATA=coco-tiny OTHERS=coco80
	$(BIN)/deepmac teach --config starter --data "$(abspath $(DATA))"
	$(BIN)/python benchmarks/starter.py pack runs/starter/teacher/weights.safetensors "$(DATA)"
	$(BIN)/python benchmarks/starter.py others "$(OTHERS)/instances.json" "$(DATA)/instances.json" $(STARTER_OTHERS)
	$(BIN)/deepmac evaluate teacher $(STARTER_EVALUATE)
	$(BIN)/deepmac evaluate starter $(STARTER_EVALUATE)
	$(BIN)/python benchmarks/starter.py record runs/starter benchmarks/results/starter.json \
	  "make starter DATA=$(notdir $(DATA)) OTHERS=$(notdir $(OTHERS))"

# Appendix B of the paper: its protocol on COCO (LVIS=FILE: and on LVIS), or with SMALL=1 a sample of it
# (TENTH=1 for a tenth of the steps; STEPS=20 for a trial).
B_RUN = $(BIN)/python benchmarks/appendix_b.py run $(subst appendix-,,$@) \
  $(if $(SMALL),small --data "$(DATA)",paper --data "$(COCO)" --lvis "$(LVIS)") $(if $(ANYWAY),--anyway) \
  $(if $(STEPS),--steps $(STEPS)) $(if $(TENTH),--tenth) $(if $(SEEDS),--seeds $(SEEDS))

appendix-b1: data-named $(READY)  ## the paper's appendix B.1: COCO=FOLDER, or SMALL=1 DATA=FOLDER for a sample
	$(B_RUN)

appendix-b2: data-named $(READY)  ## appendix B.2, the teacher's students
	$(B_RUN)

appendix-b: data-named $(READY)  ## both, and with LVIS=lvis_v1_val.json what all masks of COCO give there
	$(B_RUN)

data-named:
	@test -n "$(if $(SMALL),$(DATA),$(COCO))" || { echo "$(or $(MAKECMDGOALS),paper): no data named; expected \
	COCO=FOLDER in COCO's layout (appendix B: and LVIS=FILE), or SMALL=1 DATA=FOLDER" >&2; exit 2; }

table-13: appendix-b2  ## students of a teacher's masks: appendix B.2

# Tables and figures of the paper: make table-5 COCO=FOLDER, or SMALL=1 DATA=FOLDER for a sample
# (SEEDS=3; STEPS=20 for a trial; TENTH=1 for a tenth of the steps; START=WEIGHTS for rows that start from a detector;
# RESULTS=FOLDER for small files of rows on data of your own).
table-1:  ## boxes that Mask R-CNN's mask head trains on
table-2:  ## mask heads of Deep-MARC
table-3:  ## backbones of Deep-MAC
table-4:  ## Deep-MAC without detection
table-5:  ## what makes hourglasses good
table-6:  ## dilated convolutions
table-7:  ## depth in the backbone or the mask head
table-8:  ## state of the art, both directions
table-9:  ## all masks, test-dev
table-10:  ## coordinate and instance embedding
table-11:  ## fully connected mask heads
table-12:  ## Mask R-CNN with all masks
figure-3:  ## mask heads and their depth
appendix-c:  ## masks of one class alone

$(PAPER): data-named $(READY)
	$(BIN)/python benchmarks/paper.py run $@ $(if $(SMALL),small --data "$(DATA)",coco --data "$(COCO)") \
	  $(if $(SEEDS),--seeds $(SEEDS)) $(if $(STEPS),--steps $(STEPS)) $(if $(TENTH),--tenth) \
	  $(if $(START),--start "$(START)") $(if $(RESULTS),--results "$(RESULTS)")

figure-5: appendix-c  ## both parts of figure 5: bars by source class, ratios of source and target

appendix-d: $(READY)  ## masks in boxes that you draw: BOXES=FILE.json IMAGES=FOLDER (MODEL=WEIGHTS or RUN; else the starter)
	@test -n "$(BOXES)" -a -n "$(IMAGES)" || { echo "appendix-d: no boxes or images named; expected \
	BOXES=FILE.json IMAGES=FOLDER" >&2; exit 2; }
	$(BIN)/deepmac predict "$(IMAGES)" --boxes "$(BOXES)" --out runs/appendix-d $(if $(MODEL),--model "$(MODEL)")

HEADS = $(BIN)/python benchmarks/mask_heads.py

mask-heads: $(READY)  ## the paper's mask heads, each trained whole, three seeds, hours: DATA=folder as of coco-sample
	$(HEADS) train --data "$(DATA)"
	$(HEADS) table

bench: $(READY)  ## the box-local codec beside its peers
	$(BIN)/python benchmarks/codec.py --json benchmarks/results/codec.json

latency: demo  ## milliseconds an image of the demo's teacher and student, in one run
	$(BIN)/deepmac bench $(foreach role,teacher student,$(role)=runs/demo/$(role)/weights.safetensors) \
	  --annotations runs/demo/scenes-val/instances.json --images runs/demo/scenes-val/images

# Environments beside the locked packages and apart from them: what both have, the environment's versions win.
INTEROP ?= .interop
STORAGE ?= .storage
RAY ?= .ray
SITE = import site, sysconfig; print(sysconfig.get_paths()["purelib"])

interop: $(INTEROP)/.ready  ## every export read back by the tools that people use for it, in an environment of its own
	$(INTEROP)/bin/python -m pytest interop --rootdir interop -p no:cacheprovider

storage: $(STORAGE)/.ready  ## data, runs and shards in buckets of a real server, machines killed, in an environment of its own
	$(STORAGE)/bin/python -m pytest buckets --rootdir buckets -p no:cacheprovider

ray: $(RAY)/.ready  ## labeling through Ray beside labeling in one process, in an environment of its own
	$(RAY)/bin/python -m pytest cluster --rootdir cluster -p no:cacheprovider

$(INTEROP)/.ready: interop/requirements.txt
$(STORAGE)/.ready: buckets/requirements.txt
$(RAY)/.ready: cluster/requirements.txt
$(INTEROP)/.ready $(STORAGE)/.ready $(RAY)/.ready: $(READY)
	$(PYTHON) -m venv $(@D)
	echo "import site; site.addsitedir('$$($(BIN)/python -c '$(SITE)')')" \
	  > "$$($(@D)/bin/python -c '$(SITE)')/locked.pth"
	$(@D)/bin/pip install --quiet --requirement $(filter %/requirements.txt,$^)
	touch $@

lock: $(READY)  ## write requirements.lock from this environment
	(echo "# Every package of a working environment, Python 3.11 on Linux. Written by: make lock"; \
	 $(BIN)/pip freeze --exclude-editable) > requirements.lock

clean:  ## remove the environments, not the runs
	rm -rf $(VENV) $(INTEROP) $(RAY) $(STORAGE)

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@
