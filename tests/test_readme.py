"""The README is run: its Python blocks work, its commands do the set-up, its links lead on."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_blocks_run_on_their_own(number):
    source = blocks("python")[number]
    exec(compile(source, f"README.md, python block {number + 1}", "exec"), {"__name__": "readme"})


def test_the_two_commands_do_all_the_set_up():
    main_job, tests = blocks("sh")
    for command in (main_job, tests):
        assert "pip install -c constraints.txt -e" in command
        assert len(command.strip().splitlines()) == 1
    assert "python examples/quickstart.py" in main_job
    assert "pytest" in tests


def test_is_short():
    assert len(README.splitlines()) < 150


def test_linked_files_exist():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
