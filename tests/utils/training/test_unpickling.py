"""Nothing is ever unpickled."""

import ast
import hashlib
import json
import pickle
import re
from pathlib import Path

import pytest
import torch

from tests.utils.training.checkpoints import FILES, ROOT, Warnings, assert_reads, write
from utils.training.checkpoint import newest


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def plant(folder: Path, name: str, data: bytes, listed: bool) -> None:
    (folder / name).write_bytes(data)
    if listed:
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("listed", [True, False], ids=["in-the-manifest", "beside-it"])
@pytest.mark.parametrize(
    "name",
    ["evil.pkl", "evil.pt", "data.safetensors", "generator.safetensors", "generator.pt", "state.json", "manifest.json"],
)
@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_pickle_is_never_opened(tmp_path, form, name, listed):
    target = tmp_path / "executed"
    if form == "pickle":
        data = pickle.dumps(Malicious(target))
    else:
        torch.save(Malicious(target), tmp_path / "made.pt")
        data = (tmp_path / "made.pt").read_bytes()
    folder = tmp_path / "checkpoints"
    bad = write(folder, 1, 2)
    plant(bad, name, data, listed and name != "manifest.json")
    said = Warnings()
    found = newest(folder, said)
    assert not target.exists()
    if name in FILES or listed:
        assert found.state.step == 1
        assert len(said) == 1
    else:
        assert_reads(folder, 2)


def test_the_malicious_pickle_would_have_worked(tmp_path):
    pickle.loads(pickle.dumps(Malicious(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


SOURCES = sorted(
    path for pattern in ("*.py", "utils/**/*.py", "models/*.py", "adversarial/*.py") for path in ROOT.glob(pattern)
)
UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def unpickling(source: str) -> list[str]:
    """What in a Python source imports an unpickler or may unpickle through torch or numpy."""
    tree = ast.parse(source)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    safe = {call.func for call in calls if any(_forbids_pickle(keyword) for keyword in call.keywords)}
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                bad = bool(UNPICKLERS & {alias.name.split(".")[0] for alias in names})
            case ast.ImportFrom(module="torch" | "numpy", names=names):
                bad = "load" in {alias.name for alias in names}
            case ast.ImportFrom(module=module):
                bad = (module or "").split(".")[0] in UNPICKLERS
            case ast.Attribute(value=ast.Name(id="torch"), attr="load"):
                bad = True
            case ast.Attribute(value=ast.Name(id="numpy" | "np"), attr="load"):
                bad = node not in safe
            case ast.keyword(arg="allow_pickle"):
                bad = not _forbids_pickle(node)
            case _:
                bad = False
        if bad:
            found.append(ast.unparse(node))
    return found


def _forbids_pickle(keyword: ast.keyword) -> bool:
    return ast.unparse(keyword) == "allow_pickle=False"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_unpickles(path):
    """But for EfficientNet-Lite0, whose package ships its weights in PyTorch's own format: tensors alone are read."""
    assert ROOT / "utils" / "training" / "checkpoint.py" in SOURCES
    source = path.read_text()
    if path == ROOT / "models" / "efficientnet_lite.py":
        source, count = re.subn(r"torch\.load\(file, weights_only=True, ", "read(", source)
        assert count == 1
    assert unpickling(source) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "import joblib.memory as m", "from pickle import loads", "from joblib.memory import Memory",
        "from torch import load", "from numpy import load", "torch.load(p)", "torch.load(p, weights_only=True)",
        "read = torch.load", "numpy.load(p)", "np.load(p, None)", "numpy.load(p, allow_pickle=True)",
        "numpy.load(p, allow_pickle=flag)", "numpy.load(p, **{'allow_pickle': False})", "read = numpy.load",
        "read(p, allow_pickle=True)", "numpy.load(q) + f(allow_pickle=False)",
    ],
)  # fmt: skip
def test_unpickling_would_be_found(source):
    assert unpickling(source) != []


def test_numpy_may_load_where_it_is_told_not_to_unpickle():
    assert unpickling("with numpy.load(p, allow_pickle=False) as content: pass") == []
