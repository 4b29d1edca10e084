"""Imports point one way: commands, utils, models, adversarial; and in utils from each room to those before it."""

import ast
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

ROOT = Path(__file__).parent.parent
ORDER = [
    "adversarial",
    "models",
    "utils",
    "utils.data",
    "utils.config",
    "utils.evaluation",
    "utils.training",
    "utils.tasks",
    "utils.run",
    "utils.sweeps",
    "",
]  # fmt: skip  ("": the commands)
APART = {("utils.config", "utils.evaluation"), ("utils.evaluation", "utils.config")}  # neither knows the other
FILES = [*ROOT.glob("*.py"), *(p for top in ("adversarial", "models", "utils") for p in (ROOT / top).rglob("*.py"))]
MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in FILES}


def imports(name: str) -> set[str]:
    """The project's modules that a module imports, inside functions too."""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return (found & MODULES.keys()) - {name}


def place(module: str) -> str:
    """The layer or room of a module."""
    return max((name for name in ORDER if f"{module}.".startswith(f"{name}.") or not name), key=len)


def test_imports_point_one_way():
    pairs = [(module, target) for module in MODULES for target in imports(module)]
    assert len(pairs) > 100
    wrong = [(a, b) for a, b in pairs if ORDER.index(place(b)) > ORDER.index(place(a)) or (place(a), place(b)) in APART]
    assert wrong == []


def test_there_are_no_cycles():
    TopologicalSorter({module: imports(module) for module in MODULES}).prepare()  # or CycleError shows one


def test_no_file_is_a_drawer():
    """A file of more than 400 lines has two subjects."""
    assert [path.name for path in FILES if len(path.read_text().splitlines()) > 400] == []
