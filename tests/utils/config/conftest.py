"""Recipes that tests write."""

from pathlib import Path

import pytest


@pytest.fixture
def write(tmp_path):
    """Write a YAML file below the test's folder and give its path."""

    def write(text: str, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def empty(write):
    """A recipe of defaults."""
    return write("", "empty.yaml")
