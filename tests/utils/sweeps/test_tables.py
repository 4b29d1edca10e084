"""Means with their errors, and the three forms of a table."""

import csv
import io

import pytest

from utils.sweeps.tables import Means, Table


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([1.0, 3.0], "2.0 ± 1.0"),  # the standard deviation is √2, over √2
        ([10.0, 14.0, 18.0], "14.0 ± 2.3"),  # 4 / √3
        ([0.001, 0.003], "0.0020 ± 0.0010"),
        ([1000.0, 3000.0], "2000 ± 1000"),
        ([8.0, 8.0], "8.000 ± 0.000"),
        ([93.14159], "93.14"),
        ([0.0123456], "0.01235"),
        ([0.0], "0"),
        ([1.0, None, 3.0], "2.0 ± 1.0 (2 of 3)"),
        ([5.0, None], "5.000 (1 of 2)"),
        ([None], "-"),
        ([], "-"),
    ],
)
def test_means_are_shown_with_the_digits_that_tell(values, shown):
    assert str(Means(values)) == shown


def test_digits_can_be_given():
    assert str(Means([1.26, 3.26], 0)) == "2 ± 1"


TABLE = Table(["run", "FID"], [["a|b", Means([1.0, 3.0])], ["long name", Means([None])]])


def test_text_has_columns():
    assert TABLE.text() == "run        FID\na|b        2.0 ± 1.0\nlong name  -\n"


def test_markdown_is_a_table():
    assert TABLE.markdown() == "| run | FID |\n|---|---:|\n| a\\|b | 2.0 ± 1.0 |\n| long name | - |\n"


def test_csv_has_whole_numbers_and_errors():
    rows = list(csv.reader(io.StringIO(TABLE.csv())))
    assert rows[0] == ["run", "FID", "FID, error"]
    assert rows[1][0] == "a|b"
    assert [float(value) for value in rows[1][1:]] == pytest.approx([2.0, 1.0], rel=1e-15)
    assert rows[2] == ["long name", "", ""]
