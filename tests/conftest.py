"""Shared by all tests: one thread a process, a fresh Accelerate for every test, measurements that cost little."""

import multiprocessing
import os
from functools import cache

import pytest
import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
torch.set_num_threads(1)  # two test processes share two cores


# Files of tests that take seconds each.
LONG = ("test_kills.py", "test_slurm.py", "test_processes.py", "test_lost_processes.py", "test_faults.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests come first: at the end one test process would wait for the other's."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(autouse=True)
def _fresh_accelerate():
    """Every test begins with the settings of a fresh process."""
    yield
    forget_accelerator()
    torch.set_default_dtype(torch.float32)


@pytest.fixture(autouse=True)
def _no_process_outlives_its_test():
    """Where an assertion fails, processes that would train on end as well."""
    yield
    for process in multiprocessing.active_children():
        process.kill()
        process.join()


def forget_accelerator() -> None:
    """Accelerate keeps its settings in singletons, which would tie the tests of one process together."""
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(autouse=True, scope="session")
def _quick_measurements(tmp_path_factory):
    """Tests look at what is reported of the feature network, not at how good it is; all runs share one."""
    from utils.data import image_pairs, image_sets
    from utils.evaluation import classifier
    from utils.run.folder import RunFolder

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "STEPS", 5)
        patch.setattr(RunFolder, "features", tmp_path_factory.mktemp("features"))
        digits = cache(image_sets.digit_splits)  # each run would parse the text that they are in
        for module in (image_sets, image_pairs):
            patch.setattr(module, "digit_splits", digits)
        yield
