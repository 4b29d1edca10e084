"""A run that is killed at any of its writes and started again leaves what a run leaves that nobody killed."""

import shutil

from tests.faults.writes import RECORDS, VALUES, cases, left


def test_a_run_that_is_killed_at_any_write_leaves_what_a_whole_one_does(tmp_path):
    """Of records, log lines, pictures, checkpoints, the best model and the curves."""
    found = cases(tmp_path, 0)
    whole = left(tmp_path / "whole")
    assert [r["step"] for r in whole["records"] if r["kind"] == "metric"] == sorted([*VALUES] * RECORDS)
    assert whole["images"] == [point[0] for point in whole["curves"]["metric/m"]] == [*VALUES]
    assert whole["chosen"].step == 2
    assert len(found) > 50
    for name, survives in found.items():
        folder = tmp_path / name
        folder.mkdir()
        survives(folder)
        shutil.rmtree(folder)
