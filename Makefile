# Two commands do everything, from Python 3.11 and nothing else: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed

$(STAMP): setup.py pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# torch by its exact version, first and alone: a bare "torch" may fetch gigabytes of another build
	$(BIN)/pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/pip install -q -c constraints.txt -e .[dev,bench,ros]
	touch $(STAMP)

.PHONY: install demo test bench weights weights-quadrotor
install: $(STAMP)

demo: $(STAMP)
	$(BIN)/sealegs demo ant --out runs/$$(date +%Y%m%d-%H%M%S)

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/python -m pytest

bench: $(STAMP)
	$(BIN)/sealegs bench --out runs/bench

# From nothing to the shipped weights: about an hour and a half on two quiet cores; run again to go on where it was cut off.
W = controller/weights
RUN ?= runs/weights
# Short legs come late: a round with them moves the healthy gait little, and tells the model what no motor's gain can.
LATER = healthy healthy healthy healthy leg:0 leg:1 leg:2 leg-short:0 leg-short:1 leg-short:2
# Weight on what comes before falls; value and chance of a fall at the end as means, of those whom they are for (results/ant/README.md).
CARE = --share 0.25 --undisturbed --whole --members 8
# What is done is not done again, and what was begun goes on: in folder 1, with options 2.
TRAIN = test -e $(RUN)/$(1)/model.safetensors || $(BIN)/sealegs train ant --data $(RUN)/learn/data $(2) --out $(RUN)/$(1) \
	$$(test ! -e $(RUN)/$(1)/state.safetensors || echo --resume)
weights: $(STAMP)
	$(BIN)/sealegs learn ant --rounds 60 --later $(LATER) --later-from 50 $(CARE) --out $(RUN)/learn
	$(call TRAIN,effectiveness,--init $(RUN)/learn/round-060.safetensors --adapter effectiveness)
	$(call TRAIN,online-sgd,--init $(RUN)/learn/round-060.safetensors --adapter online-sgd --train.steps 3000 --windows 64)
	$(call TRAIN,both,--init $(RUN)/effectiveness/model.safetensors --adapter effectiveness+last-layer --train.steps 1000)
	$(call TRAIN,last-layer,--init $(RUN)/learn/round-060.safetensors --adapter last-layer --train.steps 2000)
	$(call TRAIN,grbal,--init $(RUN)/learn/round-060.safetensors --adapter grbal --train.steps 1500 --windows 16)
	cp $(RUN)/effectiveness/model.safetensors $(W)/ant.safetensors
	for a in online-sgd last-layer grbal; do cp $(RUN)/$$a/model.safetensors $(W)/ant-$$a.safetensors; done
	$(BIN)/sealegs right ant --out $(RUN)/right
	cp $(RUN)/right/righting.json $(W)/ant-righting.json
	cp $(RUN)/both/model.safetensors $(W)/ant-effectiveness+last-layer.safetensors

# The quadrotor's: two minutes.
weights-quadrotor: $(STAMP)
	$(BIN)/sealegs learn quadrotor --out $(RUN)/quadrotor
	cp $(RUN)/quadrotor/quadrotor*.safetensors $(W)/
