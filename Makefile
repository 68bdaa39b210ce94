# make demo · make test · make lint · make bench · make gpu-check: each sets up what it needs, nothing is built twice.
#
# TORCH=torch==2.9.1   another PyTorch; PIP_EXTRA_INDEX_URL in the environment finds builds that PyPI does not carry.
#                      TORCH=system: the system's own (package python3-torch), which brings no CUDA
# PYTHON=python3.10    another Python (3.10 to 3.14)
# ROS_DISTRO=kilted    jazzy, kilted, lyrical or rolling: from /opt/ros if it is there, else wheels (jazzy and kilted).
#                      Without it: what is in /opt/ros, the newest LTS first; with nothing there, jazzy from the wheels
# ROS_ROOT=folder      a ROS 2 elsewhere, or ROS_ROOT=wheels although /opt/ros has one
# VENV=.venv           where the virtual environment goes; each Python and ROS 2 needs its own

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

ifneq ($(words $(CURDIR)),1)
$(error make cannot work in a folder with a space in its name: move "$(CURDIR)" elsewhere)
endif

VENV ?= .venv
TORCH ?= torch==2.13.0
PYTEST_ARGS ?=
override VENV := $(abspath $(VENV))
export VENV
export TORCH ROS_ROOT ROS_DISTRO PYTHON
export BAG IMAGE DEPTH MASKS ODOMETRY  # read from the environment, so that any character may stand in a path

RUN := source tools/env.bash &&
# The installed package, never the source tree in the current folder, where `python -m` looks first: it has no messages.
JOB := $(RUN) python -c 'import runpy, sys; sys.path[:] = [path for path in sys.path if path]; sys.argv.pop(0); \
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)'
ENVIRONMENT := $(VENV)/.stamp
BUILD := install/.stamp
SOURCES := $(shell find CMakeLists.txt package.xml msg srv scripts launch config raster motion4d_ros -type f \
             -not -name '*.pyc' -not -name '*.so' -not -path 'raster/build*' 2>/dev/null | LC_ALL=C sort)

.PHONY: help demo test test-slow gate lint types docs claims bench eval gpu-check gpu-bench build clean distclean FORCE

help:  ## This list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1 \2/p' $(MAKEFILE_LIST) | while read -r job what; do printf '%-11s %s\n' "$$job" "$$what"; done

# --- set-up ---------------------------------------------------------------------------------------------------------------
$(ENVIRONMENT): requirements/constraints.txt requirements/runtime.txt requirements/dev.txt requirements/ros-build.txt \
                $(wildcard requirements/ros-wheels-*.txt) requirements/networks.txt requirements/view.txt \
                requirements/batch.txt tools/setup_venv.sh tools/repair_ros_wheels.py
	@bash tools/setup_venv.sh "$(VENV)"
	@touch $@

build/.sources: FORCE  # changes when a file is added or removed, so that a removed one disappears from install/, too
	@mkdir -p build && echo "$(SOURCES)" | cmp -s - $@ || echo "$(SOURCES)" > $@

build/.environment: FORCE $(ENVIRONMENT)  # what was built with another Python or ROS 2 is of no use with this one
	@mkdir -p build && echo "$(VENV) $$(cat "$(VENV)/.ros" 2> /dev/null)" | cmp -s - $@ || { rm -rf build/motion4d_ros install; \
	    echo "$(VENV) $$(cat "$(VENV)/.ros" 2> /dev/null)" > $@; }

$(BUILD): $(ENVIRONMENT) build/.environment build/.sources $(SOURCES)
	@rm -rf install/motion4d_ros/lib/python*/site-packages/motion4d_ros $@
	@echo "colcon build"
	@$(RUN) { colcon --log-base log build --base-paths . --packages-select motion4d_ros \
	    --event-handlers console_cohesion- --cmake-args -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF \
	    -DPython3_EXECUTABLE="$(VENV)/bin/python" > build/colcon.log 2>&1 || { tail -60 build/colcon.log; exit 1; }; }
	@touch $@

build: $(BUILD)  ## The virtual environment, and the package built by colcon into install/

# --- jobs -----------------------------------------------------------------------------------------------------------------
demo: $(BUILD)  ## Runs the node on a made-up scene, or on your own: BAG=folder IMAGE=/topic [DEPTH= MASKS= ODOMETRY=]; into out/demo
	@$(RUN) bag="$$BAG" && case "$$bag" in "" | /* | "~"*) ;; *) bag="$$PWD/$$bag" ;; esac && out="$$PWD/out/demo" && \
	    mkdir -p out && cd install && python -m motion4d_ros.ros_tools.demo --out "$$out" --bag "$$bag" --image "$$IMAGE" \
	    --depth "$$DEPTH" --masks "$$MASKS" --odometry "$$ODOMETRY" $(ARGS)

# The tests run from test/ against install/, never against the source tree, which has no messages.
TEST := $(RUN) cd test && MOTION4D_INSTALLED="$(CURDIR)/install" pytest -p no:cacheprovider

test: $(BUILD)  ## All tests but the slow ones, against the installed package
	@$(TEST) -q --durations=5 -m "not slow" $(PYTEST_ARGS)

test-slow: $(BUILD)  ## The slow tests
	@$(TEST) -q --durations=5 -m slow $(PYTEST_ARGS) || [ $$? -eq 5 ]  # 5: there is none

# Types are checked for the oldest Python that the installed NumPy has: its stubs are written for no older one.
OLDEST := python -c 'import re; from importlib.metadata import metadata; \
    print(re.search(r">= *(3\.\d+)", metadata("numpy")["Requires-Python"])[1])'

lint: $(ENVIRONMENT)  ## ruff and mypy
	@$(RUN) ruff check . && mypy --python-version "$$($(OLDEST))"

# An environment of its own (60 MB): neither the build nor the tests need it.
DOCS_VENV := $(CURDIR)/.venv-docs
$(DOCS_VENV)/.stamp: requirements/docs.txt
	@echo "set-up: the documentation's environment"
	@$$(command -v "$${PYTHON:-python3}") -m venv "$(DOCS_VENV)"
	@"$(DOCS_VENV)/bin/pip" install -q --disable-pip-version-check -r requirements/docs.txt
	@touch $@

PROSE := README.md CONTRIBUTING.md CHANGELOG.md docs
docs: $(DOCS_VENV)/.stamp  ## The site from docs/ in build/site; spelling, prose and links are checked
	@"$(DOCS_VENV)/bin/codespell" $(PROSE) config launch motion4d_ros msg raster/src raster/include srv tools
	@"$(DOCS_VENV)/bin/python" tools/check_prose.py README.md CONTRIBUTING.md docs
	@NO_MKDOCS_2_WARNING=1 "$(DOCS_VENV)/bin/mkdocs" build --clean --strict
	@echo "the site: build/site/index.html"

claims: $(ENVIRONMENT)  ## Where every table of figures in the documents comes from, and which may be out of date
	@$(RUN) python tools/collect_claims.py $(ARGS)

bench: $(BUILD)  ## Times the rasteriser beside the PyTorch reference
	@$(JOB) motion4d_ros.evaluation.bench_render $(ARGS)

eval: $(BUILD)  ## Accuracy and speed on the synthetic scenes and, where it is there, on ../shared/data
	@$(JOB) motion4d_ros.evaluation.suite $(ARGS)

gate: $(BUILD)  ## Accuracy of 16 frames of two own scenes against stated bounds (minutes)
	@$(JOB) motion4d_ros.evaluation.gate $(ARGS)

gpu-check: $(BUILD)  ## gsplat on CUDA against the other back ends (says so and skips without CUDA)
	@$(JOB) motion4d_ros.evaluation.gpu_check $(ARGS)

gpu-bench: $(BUILD)  ## Times gsplat on CUDA (says so and skips without CUDA)
	@$(JOB) motion4d_ros.evaluation.bench_render --device cuda $(ARGS)

clean:  ## Removes what was built, keeps the virtual environment
	rm -rf build install log out dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

distclean: clean  ## Removes the virtual environments, too
	rm -rf "$(VENV)" .venv-docs
