# `make` alone prints this help: every line with two hashes is a verb.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export PATH := $(HOME)/.local/bin:$(HOME)/.cargo/bin:$(PATH)
# Tests and benches load the ONNX Runtime library of the Python environment.
RUN := uv run --no-sync
BENCH_DIR := runs/bench

.PHONY: help setup quickstart build test test-slow fuzz-traces lint fmt bench bench-sampler bench-serving bench-strain bench-training proto ci clean

help:  ## print this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup:  ## find or install uv, then everything the project needs, locked
	@.ci/tools
	@uv sync --locked --extra train

quickstart: setup  ## train a small LSTM, export it, serve it, stream text from it
	@$(RUN) charrnn quickstart --out runs/quickstart --force
	@echo '(for the command charrnn itself: source .venv/bin/activate)' >&2

build: setup  ## build a wheel into dist/ (smaller and slower to build than the development one)
	@uv build --wheel --out-dir dist --config-setting build-args="--profile dist"

test: setup lint  ## every test, Rust and Python, after the linters and the drift checks
	@cargo test --locked --workspace --quiet
	@$(RUN) pytest -m "not slow" --numprocesses 2 --dist loadfile

test-slow: setup  ## the long tests too
	@cargo test --locked --release --quiet -p charrnn-core --test sampler_proof -- --include-ignored
	@$(RUN) pytest

fuzz-traces: setup  ## random traces of the engine for FUZZ_SECONDS (300); FUZZ_SEED=n runs one again
	@FUZZ_SECONDS=$(or $(FUZZ_SECONDS),300) cargo test --locked --release --quiet -p charrnn-core --test traces -- --nocapture

lint: setup  ## formatters in check mode, clippy, ruff, mypy
	@cargo fmt --all --check
	@cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy

fmt: setup  ## format Rust and Python
	@cargo fmt --all
	@$(RUN) ruff check --fix-only --quiet .
	@$(RUN) ruff format .

bench: setup $(BENCH_DIR)/2x128 $(BENCH_DIR)/2x512  ## every layer from a step to a client over gRPC, as ratios of one run
	@$(RUN) charrnn bench ladder $(BENCH_DIR)/2x512 --streams 1,16,64,256,1024
	@$(RUN) charrnn bench ladder $(BENCH_DIR)/2x128 --streams 64,256,1024

bench-serving: setup $(BENCH_DIR)/2x128 $(BENCH_DIR)/2x512  ## the server beside two written in Python, as ratios of one run
	@for size in 2x128 2x512; do for precision in int8 fp32; do \
		$(RUN) python benches/serving.py $(BENCH_DIR)/$$size --streams 64 --precision $$precision; done; done

bench-strain: setup $(BENCH_DIR)/2x128 $(BENCH_DIR)/2x512  ## the server with thousands of streams, long prompts, too many requests
	@$(RUN) python benches/strain.py $(BENCH_DIR)/2x512
	@$(RUN) python benches/strain.py $(BENCH_DIR)/2x128

bench-training: setup  ## training beside a bare loop of torch, as ratios of one run
	@$(RUN) python benches/training.py

bench-sampler: setup  ## the sampler beside torch and numpy, on one core, as ratios of one run
	@taskset -c 0 $(RUN) python benches/sampler.py

# Speed does not depend on what the weights say: a few steps make a model of the right shape.
$(BENCH_DIR)/2x%:
	@mkdir -p $(BENCH_DIR)
	@rm -rf $(BENCH_DIR)/run-2x$*
	@$(RUN) charrnn train --out $(BENCH_DIR)/run-2x$* --hidden-size $* --max-steps 10 >/dev/null
	@$(RUN) charrnn export $(BENCH_DIR)/run-2x$* --out $@

proto: setup  ## generate the protobuf code from proto/; with PUBLISH=1 nothing in it may break from here on
	@CHARRNN_WRITE_PROTO=1 cargo test --locked --quiet -p charrnn-serve --test proto
	@CHARRNN_WRITE_PROTO=1 $(RUN) pytest -q tests/unit/test_proto_drift.py
	@$(if $(PUBLISH),cp rust/charrnn-serve/src/pb/charrnn.v1.bin proto/charrnn.v1.binpb)

ci: test  ## what has to pass before a change lands

clean:  ## remove what was built
	@rm -rf target dist runs .venv python/charrnn/_native*.so
