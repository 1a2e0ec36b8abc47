# Every target sets up .venv by itself; nothing is installed outside it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo demo-track test test-ci slow lint benchmark train-mini train-mini-track clean

demo: $(VENV)/installed  ## build the default manifest and compare it with PyTorch: no download, no GPU
	$(BIN)/python -m doit build model verify
	@echo "what was found, to look at: artifacts/sam3_mini/pipeline/overlay.fp16.png"

demo-track: $(VENV)/installed  ## follow the shapes of a drawn clip with the click-and-track miniature: no download, no GPU
	$(BIN)/python -m doit manifest=sam2_mini build model verify
	$(BIN)/python -m docs.demo_track artifacts/demo-track
	$(BIN)/sam3-build track artifacts/demo-track/clip --prompts artifacts/demo-track/prompts.json \
		--from sam2_mini --out artifacts/demo-track --save sheet,video,masks,json
	@echo "what was followed, to look at: artifacts/demo-track/clip.png and clip.webm"

test: $(VENV)/installed  ## the quick suite, a few minutes on 2 cores
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-ci: $(VENV)/installed  ## what takes too long for the quick suite and still runs before every merge
	$(BIN)/python -m pytest -n 2 --dist loadfile -m ci

slow: $(VENV)/installed  ## the long runs
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/installed
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

benchmark: $(VENV)/installed
	$(BIN)/python benchmarks/noop.py

train-mini: $(VENV)/installed  ## train the miniature on drawn scenes: an hour or two on 2 cores; interrupted, it goes on where it was
	$(BIN)/python -m training.train training/runs/mini

train-mini-track: $(VENV)/installed  ## train the click-and-track miniature on drawn scenes and clips: hours on 2 cores, interrupted or not
	$(BIN)/python -m training.tracking.train training/runs/track

clean:
	rm -rf $(VENV)

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	# "compat" installs a path instead of an import hook, which would cost every process as much as Python's own start
	$(BIN)/python -m pip install --quiet --config-settings editable_mode=compat --editable '.[dev]'
	touch $@
