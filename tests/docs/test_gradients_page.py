"""The code of docs/gradients.md prints what the page shows below it."""

import contextlib
import io
import re

from tests.runs import ROOT


def test_every_block_prints_what_is_shown():
    page = (ROOT / "docs/gradients.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```\n```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == page.count("```python") == 6
    names = {}  # a block goes on where the one before it has ended
    for code, shown in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, names)
        assert printed.getvalue() == shown
