"""The code on pages that show what it prints prints just that."""

import contextlib
import io
import re

import pytest

from tests.runs import ROOT


@pytest.mark.parametrize(("page", "count"), [("gradients", 6), ("idea", 1)])
def test_every_block_prints_what_is_shown(page, count):
    text = (ROOT / f"docs/{page}.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```\n```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == text.count("```python") == count
    names = {}  # a block goes on where the one before it has ended
    for code, shown in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, names)
        assert printed.getvalue() == shown
