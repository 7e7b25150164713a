"""Loads the programs under nixos/system, whose names are no module names."""

import importlib.util
import pathlib

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "nixos" / "system"


def load(name):
    """A fresh module of the program NAME.py."""
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
