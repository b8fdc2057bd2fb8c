"""The examples run: every script of the folder, in its quick mode where it has one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NEEDS_DATA = "selection_study.py"
NOT_IN_THE_EXTRA_TEST = ("crepes", "mapie", "shap", "skrub")

SCRIPTS = {
    path: ["--quick"] if "--quick" in source else []
    for path in sorted(EXAMPLES.rglob("*.py"))
    if '__name__ == "__main__"' in (source := path.read_text()) or path.parent.name == "gallery"
    if path.name != NEEDS_DATA
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_script(script, tmp_path):
    for name in NOT_IN_THE_EXTRA_TEST:
        if re.search(rf"^(import|from) {name}\b", script.read_text(), flags=re.MULTILINE):
            pytest.importorskip(name)
    command = [sys.executable, str(script), *SCRIPTS[script]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
