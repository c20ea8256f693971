# The one door: everything the project does starts here. `make` alone lists it.
# It needs Rust, CPython and make. Python packages go into .venv, never anywhere else.

PYTHON ?=        # the interpreter to build for; empty: the newest that scripts/find-python finds
ARGS ?=          # more arguments for the program that demo, test, bench, bench-cores, plots, stress, storms, kills, compat or fuzz runs in the end
JSON ?=          # what `make plots` draws; empty: it measures first
SECONDS ?= 60    # how long `make stress` runs, and each target of `make fuzz`
LAB ?=           # a command: `$(LAB) run CMD` runs CMD among more interpreters (see CONTRIBUTING.md)
export LAB

venv := .venv/bin
locked := $(if $(CI),--locked)
rust_sources := Cargo.toml $(wildcard Cargo.lock) pyproject.toml $(wildcard crates/*/Cargo.toml) \
	$(shell find crates -path '*/src/*' -name '*.rs')
# The extension module is tested from Python: a test program of its own would have to link libpython.
cargo_test := cargo test $(locked) --workspace --exclude weft-python
# rustup puts cargo there, and a shell older than rustup does not know it.
export PATH := $(PATH):$(HOME)/.cargo/bin
# maturin builds for these, whatever environment the shell is in.
export VIRTUAL_ENV := $(CURDIR)/.venv
unexport CONDA_PREFIX
export PYO3_PYTHON := $(CURDIR)/$(venv)/python
# Or pyright asks the network for news at each run.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.NOTPARALLEL:
.PHONY: help build demo test lint free-threading portability bench bench-cores plots wheel matrix stress storms kills compat loom shuttle miri fuzz bench-rust clean FORCE

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F'\t' '{ printf "make %-14s %s\n", $$1, $$2 }'

build: .venv/.built ## compile (release) and install into .venv; PYTHON=/path/to/python3 chooses the interpreter

demo: build ## run every program in examples/
	@set -e; for program in examples/*.py; do echo "== $$program"; $(venv)/python $$program $(ARGS) </dev/null; done

test: build .venv/.test ## all tests: Rust, doctests, then pytest; ARGS='-k select' narrows pytest
	$(cargo_test)
	$(venv)/python -m pytest $(ARGS)

lint: build .venv/.lint .venv/.test ## formats, clippy, ruff, mypy, pyright, rustdoc: no warning passes
	cargo fmt --all --check
	cargo clippy $(locked) --workspace --all-targets -- -D warnings
	@# Once more as for a build of CPython without a GIL, which is described in that file: none need be installed.
	PYO3_CONFIG_FILE=$(CURDIR)/scripts/free-threaded.cfg \
		cargo clippy $(locked) -p weft-python --target-dir target/free-threaded -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc $(locked) --workspace --no-deps
	$(venv)/ruff check
	$(venv)/ruff format --check
	$(venv)/mypy
	$(venv)/pyright

free-threading: .venv/.build .venv/.test ## what weft does in builds without a GIL, tested on an interpreter that has one (3.13 or later)
	@rm -f .venv/.built
	$(venv)/maturin develop --release $(locked) -- --cfg Py_GIL_DISABLED
	$(venv)/python -m pytest $(ARGS)

foreign := x86_64-apple-darwin aarch64-apple-darwin x86_64-pc-windows-gnu

portability: ## compile for macOS and Windows, as far as that goes without them: nothing is linked or run
	@scripts/check-rust
	rustup target add $(foreign)
	@set -e; for target in $(foreign); do echo "== $$target"; PYO3_CONFIG_FILE=$(CURDIR)/scripts/elsewhere.cfg \
		cargo clippy $(locked) --workspace --target $$target --target-dir target/portability -- -D warnings; done

bench: build .venv/.bench ## weft beside its rivals; see benches/README.md
	$(venv)/python benches/run.py $(ARGS)

bench-cores: build ## interpreters beside semaphores, pickles and the standard library's queues between them
	$(venv)/python benches/cores.py $(ARGS)

plots: build .venv/.bench ## docs/plots: what scale.py measures; JSON=benches/results/scale.json draws without measuring
	$(if $(strip $(JSON)),,$(venv)/python benches/scale.py $(ARGS))
	$(venv)/python benches/plots.py $(strip $(JSON))

bench-rust: ## the benchmarks of weft-core
	@scripts/check-rust
	cargo bench $(locked) -p weft-core $(ARGS)

wheel: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 315532800)
wheel: .venv/.build ## a wheel for the chosen interpreter and a source archive, in dist/
	@scripts/check-rust
	rm -rf dist
	$(venv)/maturin build --release --strip $(locked) --out dist
	$(venv)/maturin sdist --out dist

matrix: .venv/.build ## build, install and test on every CPython, and PyPy, found; LAB=command adds more
	$(venv)/python scripts/matrix.py $(ARGS)

stress: build .venv/.test ## random load for SECONDS=60
	$(venv)/python tests/stress.py --seconds $(SECONDS) $(ARGS)

storms: build .venv/.test ## a million operations under random cancels and timeouts in each world and in mixtures of them
	WEFT_OPERATIONS=1000000 $(venv)/python -m pytest -rP tests/test_storms.py $(ARGS)

kills: build .venv/.test ## a thousand processes killed at random moments, for each of senders, receivers and parents
	WEFT_KILLS=1000 $(venv)/python -m pytest -rP tests/test_os_processes.py -k 'death_at_any_moment or parent_that_was_killed' -o timeout=3600 $(ARGS)

compat: build .venv/.test ## the standard library's own tests of queues and tasks against weft's
	$(venv)/python tests/compat/run_upstream.py $(ARGS)

# Each checker has a target folder of its own: another RUSTFLAGS would throw away the usual one's work.
loom: ## model-check weft-core with loom: every interleaving up to the bound of each model (LOOM_MAX_PREEMPTIONS raises it)
	@scripts/check-rust
	LOOM_MAX_PREEMPTIONS=$${LOOM_MAX_PREEMPTIONS:-2} RUSTFLAGS="--cfg loom" \
		cargo test $(locked) -p weft-core --release --target-dir target/loom --test loom $(ARGS)

shuttle: ## model-check weft-core with shuttle: many random interleavings
	@scripts/check-rust
	RUSTFLAGS="--cfg shuttle" cargo test $(locked) -p weft-core --release --target-dir target/shuttle --test shuttle $(ARGS)

miri: ## run weft-core's tests in miri, which finds undefined behaviour
	@cargo +nightly miri --version >/dev/null 2>&1 || \
		{ echo "miri is missing: rustup toolchain install nightly --component miri,rust-src"; exit 1; }
	cargo +nightly miri test $(locked) -p weft-core --target-dir target/miri $(ARGS)

fuzz_run = cargo +nightly fuzz run --target-dir target/fuzz $$target -- -max_total_time=$(SECONDS) -timeout=10 -malloc_limit_mb=64

fuzz: ## fuzz weft-wire and weft-link, each target for SECONDS=60; what it finds is left in fuzz/artifacts
	@cargo +nightly --version >/dev/null 2>&1 || \
		{ echo "nightly is missing: rustup toolchain install nightly"; exit 1; }
	@cargo fuzz --version >/dev/null 2>&1 || \
		{ echo "cargo-fuzz is missing: cargo install cargo-fuzz (and a C++ compiler: apt install g++)"; exit 1; }
	@set -e; for target in decode round_trip; do echo "== $$target"; $(fuzz_run) $(ARGS); done
	@cargo +nightly run --quiet --manifest-path fuzz/Cargo.toml --target-dir target/fuzz --example seeds
	@# These have threads, and one that is just ending looks like a leak.
	@set -e; for target in requests replies; do echo "== $$target"; $(fuzz_run) -detect_leaks=0 $(ARGS); done

clean: ## remove all that was made here
	rm -rf .venv target dist fuzz/Cargo.lock fuzz/artifacts fuzz/corpus python/weft/_weft*.so .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What follows are files. .venv/.python holds the path of the interpreter .venv was made from; the others are empty
# and as old as the last time their work was done.

pip = $(venv)/python -m pip install --quiet

# Look again for an interpreter when one is named, or when the one of .venv has gone.
ifneq ($(strip $(PYTHON)),$(shell { $(venv)/python -c '' || echo gone; } 2>/dev/null))
.venv/.python: FORCE
endif
.venv/.python:
	@set -e; python=$$(scripts/find-python $(PYTHON)); \
	if [ "$$python" != "$$(cat $@ 2>/dev/null)" ] || ! $(venv)/python -c '' 2>/dev/null; then \
		echo "weft: building with $$($$python --version), $$python"; \
		rm -rf .venv; $$python -m venv .venv; $(pip) 'pip>=25.1'; echo "$$python" >$@; \
	fi

.venv/.%: .venv/.python pyproject.toml
	$(pip) --group $*
	@touch $@

.venv/.bench: .venv/.python benches/requirements.txt
	$(pip) --requirement benches/requirements.txt
	@touch $@

.venv/.built: .venv/.build $(rust_sources)
	@scripts/check-rust
	$(venv)/maturin develop --release $(locked)
	@touch $@
ifeq ($(wildcard python/weft/_weft*.so),)
.venv/.built: FORCE
endif
