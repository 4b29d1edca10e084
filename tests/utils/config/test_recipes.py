"""The table of recipes, made of their headers."""

import pytest

from tests.utils.config.configs import RECIPES, ROOT
from utils.config.recipes import read_header, table

HEADER = """# A GAN on squares: one after
#   the other.
# Source: nobody.
# Expected: 3 of 4, as far
#   as we know.
# Time: a minute.
base: other.yaml
# Time: not this.
"""


def test_entries_of_a_header_go_on_over_lines():
    assert read_header(HEADER) == {
        "What": "A GAN on squares: one after the other.",
        "Source": "nobody.",
        "Expected": "3 of 4, as far as we know.",
        "Time": "a minute.",
    }


def test_a_recipe_without_a_header_has_an_empty_line(tmp_path):
    (tmp_path / "bare.yaml").write_text("seed: 1\n")
    (tmp_path / "full.yaml").write_text(HEADER)
    assert table(tmp_path, None).split("\n") == [
        "RECIPE  WHAT                                    TIME       EXPECTED",
        "bare",
        "full    A GAN on squares: one after the other.  a minute.  3 of 4, as far as we know.",
    ]


def test_every_recipe_has_a_line_with_all_columns():
    _, *lines = table(ROOT / "configs", None).split("\n")
    assert [line.split()[0] for line in lines] == [path.stem for path in RECIPES]
    for line, path in zip(lines, RECIPES, strict=True):
        header = read_header(path.read_text())
        for word in ("What", "Time", "Expected"):
            assert header[word] in line


@pytest.mark.parametrize("width", [80, 120, 200])
def test_lines_are_cut_to_the_terminal(width):
    head, *lines = table(ROOT / "configs", width).split("\n")
    assert max(map(len, lines)) <= width
    assert max(map(len, lines)) > width - 12
    assert any(line.endswith("…") for line in lines)
    columns = [head.index(word) for word in ("WHAT", "TIME", "EXPECTED")]
    for line, path in zip(lines, RECIPES, strict=True):
        assert line.startswith(path.stem + " ")
        assert all(line[column - 1] == " " != line[column] for column in columns)
