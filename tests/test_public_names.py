"""What the packages offer by name is there, and importing them is quick."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import gradatim.evaluation

PACKAGES = ["evaluation", "policies", "scorers", "search", "store", "store.published", "supervision", "tasks"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there_and_says_what_it_is(package: str) -> None:
    module = importlib.import_module(f"gradatim.{package}")
    assert module.__all__ == sorted(set(module.__all__))
    for name in module.__all__:
        assert getattr(module, name).__doc__, f"gradatim.{package}.{name} has no docstring"


@pytest.mark.parametrize("package", ["policies", "scorers", "tasks"])
def test_other_names_are_not(package: str) -> None:
    module = importlib.import_module(f"gradatim.{package}")
    with pytest.raises(AttributeError, match=rf"module 'gradatim\.{package}' has no attribute 'Unknown'"):
        _ = module.Unknown


def test_functions_are_not_hidden_by_modules_of_their_name() -> None:
    importlib.import_module("gradatim.evaluation.benchmarks.best_of_n")
    assert gradatim.evaluation.best_of_n([gradatim.evaluation.Sample(1.0, "a")], 1) == 1.0


def test_packages_load_no_torch() -> None:
    code = (
        f"import importlib, sys; [importlib.import_module('gradatim.' + name) for name in {PACKAGES}]; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'matplotlib', 'datasets', 'httpx2')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
