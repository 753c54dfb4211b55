"""Commands of the docs for a GPU: benchmarks/blocks.py runs each or leaves it out by name, and keeps what it prints."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from benchmarks import blocks
from benchmarks.blocks import BLOCKS, LEFT_OUT, Block, failed, lacking, rows, shown, words
from tests.contracts import tree
from tests.contracts.test_advice import NEEDS_GPU, PAGES
from tests.contracts.test_advice import blocks as commands_of


def on_pages() -> set[tuple[str, str]]:
    """Commands of the pages' blocks that need a GPU, by their pages."""
    found = {(tree.name(path), command) for path in PAGES for command in commands_of(path.read_text(encoding="utf-8"))}
    return {(page, command) for page, command in found if any(re.match(needs, command) for needs in NEEDS_GPU)}


def test_every_command_for_a_gpu_is_run_or_left_out():
    run = {(block.page, block.command) for block in BLOCKS}
    assert [command for page, command in on_pages() if (page, command) not in run and command not in LEFT_OUT] == []
    assert set(LEFT_OUT) <= {command for _, command in on_pages()}


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.page], ids=lambda block: block.command[:40])
def test_a_block_is_on_its_page(block: Block):
    text = (tree.ROOT / block.page).read_text(encoding="utf-8")
    assert (block.python or block.command) in text
    if block.python:
        assert any(block.python in code for code in re.findall(r"(?ms)^```python\n(.*?)^```", text))
    assert not block.run or block.shortened, "what is different is said"


@pytest.mark.parametrize("record", LEFT_OUT.values())
def test_a_command_that_is_left_out_has_its_record(record: str):
    assert (tree.ROOT / "reports/records" / record).is_file()


#: Outputs that pages show, by page, with the row of the record and the lines.
SHOWN = [
    (path, name, int(at), lines.splitlines())
    for path in PAGES
    for name, at, lines in re.findall(
        r"(?ms)^<!-- block: (\S+) (\d+) -->\n```\n(.*?)^```\n<!-- /block -->", path.read_text(encoding="utf-8")
    )
]


@pytest.mark.parametrize(("path", "name", "at", "lines"), SHOWN, ids=lambda value: getattr(value, "name", None))
def test_an_output_of_a_card_on_a_page_is_that_of_the_record(path: Path, name: str, at: int, lines: list[str]):
    row = json.loads((tree.ROOT / "reports/records" / name).read_text(encoding="utf-8"))["blocks"][at]
    assert row["page"] == tree.name(path)
    assert row["exit_code"] == row["expected_exit_code"]
    assert lines
    assert any(row["output"][start : start + len(lines)] == lines for start in range(len(row["output"])))


def test_pages_show_outputs_of_a_card():
    marks = sum(path.read_text(encoding="utf-8").count("<!-- block: ") for path in PAGES)
    assert marks == len(SHOWN) >= 2


def test_what_runs_keeps_its_code_its_time_and_its_output():
    slow = Block("README.md", 'python -c "import time; time.sleep(30)"', limit_s=0.5, host=True)
    fails = Block("README.md", "python -c 'print(3); exit(3)'", host=True)
    found = rows([slow, fails, Block("README.md", "fluxperf kernels")], "host", 60)
    assert [row.get("exit_code", "-") for row in found] == [None, 3, "-"]
    assert 0.5 <= found[0]["seconds"] < 20
    assert found[1]["output"] == ["3"]
    assert found[2]["not_run"] == "needs a GPU"
    assert failed(found) == [slow.command, fails.command]
    assert rows([fails], "host", 0)[0]["not_run"] == "no time was left"


def test_python_of_a_page_is_what_runs(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(blocks, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text("```python\nprint('not')\n```\nor\n```python\nimport sys\nprint('this')\n```\n")
    block = Block("page.md", "python program.py", python="import sys", host=True)
    assert rows([block], "host", 60)[0]["output"] == ["this"]


def test_an_output_names_no_folder_of_the_machine_and_is_cut_in_its_middle(tmp_path: Path):
    said = f"\x1b[1mwrote\x1b[0m {tmp_path}/fox.png\n{sys.executable} -m pip\n{tree.ROOT}/docs {Path.home()}/.cache \n"
    assert shown(said, tmp_path) == ["wrote ./fox.png", "python -m pip", "./docs ~/.cache"]
    long = shown("\n".join(map(str, range(200))), tmp_path)
    assert (len(long), long[0], long[-1]) == (81, "0", "199")
    assert ".. 120 lines .." in long


def test_a_command_gets_this_interpreter_and_the_device():
    run = words(Block("README.md", "fluxperf run --all"), "host")
    assert run == [sys.executable, "-m", "fluxperf", "run", "--all", "--device", "host"]
    assert words(Block("README.md", "fluxperf doctor"), "host") == [sys.executable, "-m", "fluxperf", "doctor"]
    assert words(Block("README.md", "fluxperf witness -- python script.py"), "cuda")[-2:] == ["python", "script.py"]
    assert words(Block("README.md", "python -m pytest test.py"), "cuda")[:4] == [
        sys.executable, "-m", "pytest", "test.py",
    ]  # fmt: skip
    assert lacking(Block("README.md", "fluxperf x", needs="no-such-distribution"), "cuda").endswith("is not installed")


def test_the_file_says_where_it_was_run(monkeypatch, tmp_path: Path, capsys):
    monkeypatch.setattr(blocks, "BLOCKS", (Block("README.md", "python -c 'print(1)'", host=True),))
    with pytest.raises(SystemExit) as stop:
        blocks.main(["-o", str(tmp_path / "blocks.json"), "--device", "host"])
    assert not stop.value.code
    told = json.loads((tmp_path / "blocks.json").read_text(encoding="utf-8"))
    assert set(told) == {"what", "commit", "dirty", "machine", "libraries", "blocks", "left_out"}
    assert told["machine"]["gpu"] is None
    assert told["blocks"][0]["output"] == ["1"]
    assert "1 commands, 0 not run, 0 not as expected" in capsys.readouterr().out
    monkeypatch.setattr(blocks, "BLOCKS", (Block("README.md", "python -c 'exit(1)'", host=True),))
    with pytest.raises(SystemExit) as stop:
        blocks.main(["-o", str(tmp_path / "blocks.json"), "--device", "host"])
    assert stop.value.code == 1
