"""docs/fp8.md: its tables show the committed files, and its layer types are the measured ones."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from benchmarks.quality.document import as_markdown, main, read
from benchmarks.quality.layers import LAYERS
from fluxperf.errors import RecordError
from tests.contracts.tree import ROOT, SHOWN

TEXT = (ROOT / "docs/fp8.md").read_text(encoding="utf-8")
FILES = re.findall(r"<!-- quality: (.*?) -->", TEXT)


@pytest.mark.parametrize("name", FILES)
def test_tables_are_those_of_the_files(name: str) -> None:
    found = re.search(rf"<!-- quality: {re.escape(name)} -->\n(.*?)\n<!-- /quality -->", TEXT, re.DOTALL)
    assert found, f"no end of {name}"
    assert found[1] == as_markdown(read(ROOT / name))


def test_there_is_a_table_and_every_type_is_described() -> None:
    assert {"reports/records/host-tiny-quality.json", f"{SHOWN}/quality.json"} <= set(FILES)
    assert [name for name in LAYERS if f"`{name}`" not in TEXT and name != "attention"] == []


def test_the_errors_in_short_are_those_of_the_table() -> None:
    table = as_markdown(read(ROOT / SHOWN / "quality.json"))
    rows = {
        name: re.search(rf"\| `{name}` \|(.*)\|", table) for name in ("fp8", "diffusers-fp8", "diffusers-fp8-exact")
    }
    cells = {name: [cell.strip() for cell in found[1].split("|")] for name, found in rows.items() if found}
    said = TEXT.partition("**In short**")[2].partition("\n\n")[0]
    (_, _, worst, latents, _), (_, _, exact, of_exact, _) = cells["fp8"], cells["diffusers-fp8-exact"]
    assert re.findall(r"[\d.]+ %", said) == [worst, latents, exact, of_exact, cells["diffusers-fp8"][3]]


@pytest.mark.parametrize("name", FILES)
def test_fp8_is_not_worse_than_the_peer(name: str) -> None:
    """Compared with the corresponding form of the peer, on the same inputs: within 5 %."""
    result = read(ROOT / name)
    ratios = {(ratio.of, ratio.against): ratio for ratio in result.ratios}
    ratio = ratios["fp8", "diffusers-fp8-exact"]
    assert max(ratio.forward, ratio.latents) <= 1.05


def test_the_command_prints_it() -> None:
    command = [sys.executable, "-m", "benchmarks.quality.document", FILES[0]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, as_markdown(read(ROOT / FILES[0])) + "\n")


@pytest.mark.parametrize(("content", "said"), [(None, "cannot read"), ("{}", "expected a file of benchmarks.quality")])
def test_another_file_is_refused(tmp_path, monkeypatch, capsys, content, said) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RecordError, match=said):
        read(path)
    for words in (["document", str(path)], ["document"]):
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 2
        assert (said if len(words) > 1 else "usage") in capsys.readouterr().err
