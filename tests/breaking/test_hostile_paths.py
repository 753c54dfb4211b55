"""Unusual paths as inputs and outputs of every command: either an error message, or a file that can be read back."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from fluxperf.cli import main
from fluxperf.documents import encoded, formatted, plain
from fluxperf.errors import BuildError
from fluxperf.harness.checkouts import resolved
from fluxperf.harness.points import SUFFIX
from fluxperf.harness.policy import read_policy
from fluxperf.harness.records import read_records
from tests.breaking.hostile import POLICY, unsafe
from tests.breaking.test_kills import embedded_model
from tests.contracts.tree import ROOT
from tests.history.making import record
from tests.timeline.making import example

#: Strings that cannot be paths, and paths that lead nowhere. A NUL character can only come from a file.
NOWHERE = {
    "long": "x/" * 2100 + "y",
    "component": "z" * 300,
    "no text": "\udcff\udcfe-\udc80",
    "controls": "a\x1b[31m[/b]\n\u202e:fox_face:",
    "loop": "{f}/loop",
    "below a file": "{f}/base.jsonl/x",
    "folder": "{f}/folder",
    "pattern": "[a-",
}

#: Names of existing files.
THERE = {
    "no text": "\udcff\udcfe",
    "controls": "a\x1b[31m[/b]\n\u202e\x07",
    "markup": "</script><b>&amp;'\"`|\\",
    "bytes": "é" * 110,
}

RUN = "run --workload tiny --repeat 1 --warmup 0 --rung fused --device host"
GENERATE = "--device host --steps 1 --height 32 --width 48 --rung batched"
EMBEDDED = "generate --model {f}/model --embeddings {f}/e.safetensors "
REPORT, TIMELINE = "report {f}/base.jsonl -o {f}/out.html", "timeline {f}/export.sqlite"
FILES = "gate --baseline {f}/base.jsonl --candidate {f}/base.jsonl"

#: Every argument that takes a path, written X. The slow commands are tried with one name, which is drawn.
INPUTS = (
    RUN + " --weights X", RUN + " --reference X",
    "generate a --model X " + GENERATE, "generate --model {f}/model --prompts X " + GENERATE,
    "generate --model {f}/model --embeddings X --latents-out {f}/o.safetensors " + GENERATE,
    "generate --model {f}/model --decode X -o {f}/o.png " + GENERATE,
    EMBEDDED + "--latents-out {f}/o.safetensors --transformer X " + GENERATE,
    "report X -o {f}/out.html", "report X --text", "history X", "history X --committed", "history X --course",
    "history {f}/base.jsonl --repo X", "history {f}/base.jsonl --policy X", REPORT + " --sample X",
    REPORT + " --verdict X", REPORT + " --history X", REPORT + " --ceilings X", REPORT + " --timeline X",
    REPORT + " --policy X",
    "push X -o {f}/store", "import-asv X -o {f}/a" + SUFFIX,
    "timeline X", "timeline X.nsys-rep", "timeline X.json", "timeline X.json.gz", TIMELINE + " X",
    TIMELINE + " --policy X", TIMELINE + " --ledger X",
    "gate --baseline X --candidate {f}/base.jsonl", "gate --baseline {f}/base.jsonl --candidate X",
    FILES + " --policy X", FILES + " --baselines X", "gate --base X --head X", "gate power X",
    "gate power {f}/aa.json --trials 1 --policy X", "gate accept a/b/c --reason r --author a --policy X",
    "gate calibrate --policy X",
)  # fmt: skip
OUTPUTS = (
    RUN + " -o X", RUN + " --reference-to X", RUN + " --processes 1 -o X",
    "generate a --model {f}/model -o X " + GENERATE,
    EMBEDDED + "--latents-out X " + GENERATE,
    "report {f}/base.jsonl -o X", REPORT + " --markdown X", REPORT + " --json=X", REPORT + " --chart X",
    "history {f}/base.jsonl --csv X", "history {f}/base.jsonl --json=X", "push {f}/base.jsonl -o X",
    "import-asv {root}/tests/history/asv_results -o X",
    TIMELINE + " --json=X", TIMELINE + " --trace X", TIMELINE + " --html X", TIMELINE + " --trimmed X",
    TIMELINE + " --per-op X", TIMELINE + " {f}/export.sqlite --html X", "witness -o X -- python -c pass",
    "witness --json=X -- python -c pass", FILES + " --json=X", FILES + " --junit X", FILES + " --sarif X",
    FILES + " --markdown X", "gate power {f}/aa.json --trials 1 -o X", "evidence tiny --list -o X",
)  # fmt: skip

#: Whether every name is tried with every argument.
THOROUGH = int(os.environ.get("FLUXPERF_BREAK", "40")) > 40


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paths")
    rows = [msgspec.json.encode(record(number)) + b"\n" for number in range(2)]
    (folder / "base.jsonl").write_bytes(b"".join(rows))
    example().write(folder / "export.sqlite")
    embedded_model(folder)
    shutil.copy(ROOT / "reports" / "records" / "h100-aa.json", folder / "aa.json")
    (folder / "loop").symlink_to("loop")
    (folder / "folder").mkdir()
    return folder


Said = Callable[[list[str]], tuple[int, str, str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Said:
    """Runs a command in an empty folder; its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)

    def call(words: list[str]) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(words)
        printed = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, printed.out, printed.err

    return call


@pytest.mark.parametrize("words", INPUTS + OUTPUTS)
def test_a_path_that_leads_nowhere_is_named_in_a_message(files: Path, said: Said, words: str) -> None:
    for what in NOWHERE if THOROUGH else random.Random(words).sample(list(NOWHERE), 2):
        name = NOWHERE[what].format(f=files)
        code, out, err = said([word.format(f=files, root=ROOT).replace("X", name) for word in words.split()])
        told = f"{what}: exit {code}: {out}{err}"
        assert code in (0, 1, 2, 3), told
        assert code != 2 or (out + err).strip(), told
        for word in ("This is a bug", "Traceback", "Errno"):
            assert word not in out + err, told
        assert unsafe(out + err) == [], told


def page(path: Path) -> None:
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")


def document(path: Path) -> None:
    def texts(value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                texts(key)
                texts(item)
        elif isinstance(value, list):
            for item in value:
                texts(item)
        elif isinstance(value, str):
            value.encode()  # no half of a surrogate pair

    texts(json.loads(path.read_text(encoding="utf-8")))


def markup(path: Path) -> None:
    ElementTree.fromstring(path.read_bytes())


def text(path: Path) -> None:
    path.read_text(encoding="utf-8")


#: Outputs of files named X, and the command that reads each back.
WRITTEN: dict[str, tuple[str, Callable[[Path], object]]] = {
    "page": ("report X.jsonl -o {o}", page),
    "page's figures": ("report X.jsonl -o p.html --json={o}", document),
    "page's comment": ("report X.jsonl -o p.html --markdown {o}", text),
    "page of a timeline": ("report X.jsonl --timeline X.sqlite -o {o}", page),
    "page of samples": ("report X.jsonl --sample Y.jsonl --history X.jsonl -o {o}", page),
    "history": ("history X.jsonl --json={o}", document),
    "table": ("history X.jsonl --csv {o}", text),
    "timeline": ("timeline X.sqlite --json={o}", document),
    "timeline's page": ("timeline X.sqlite --html {o}", page),
    "timeline's trace": ("timeline X.sqlite --trace {o}", document),
    "difference": ("timeline X.sqlite X.sqlite --json={o}", document),
    "difference's page": ("timeline X.sqlite X.sqlite --html {o}", page),
    "verdict": ("gate --baseline X.jsonl --candidate Y.jsonl --policy X.toml --json={o}", document),
    "verdict as SARIF": ("gate --baseline X.jsonl --candidate Y.jsonl --policy X.toml --sarif {o}", document),
    "verdict as XML": ("gate --baseline X.jsonl --candidate Y.jsonl --policy X.toml --junit {o}", markup),
    "verdict as Markdown": ("gate --baseline X.jsonl --candidate Y.jsonl --policy X.toml --markdown {o}", text),
    "verdict of a file that is none": ("gate --baseline X --candidate X.toml --policy X.toml --json={o}", document),
    "records": (RUN + " -o {o}", read_records),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_of_files_with_such_names_reads_back(
    files: Path, said: Said, tmp_path: Path, name: str
) -> None:
    words, read = WRITTEN[name]
    for what in THERE if THOROUGH else random.Random(name).sample(list(THERE), 2):
        stem = THERE[what].replace("/", "\N{DIVISION SLASH}")
        for other in (stem, f"{stem}Y"):
            shutil.copy(files / "base.jsonl", tmp_path / f"{other}.jsonl")
        shutil.copy(files / "export.sqlite", tmp_path / f"{stem}.sqlite")
        shutil.copy(POLICY, tmp_path / f"{stem}.toml")
        output = tmp_path / f"{stem} out"
        given = [word.replace("Y", f"{stem}Y").replace("X", stem).format(o=output) for word in words.split()]
        code, out, err = said(given)
        told = f"{what}: exit {code}: {out}{err}"
        assert "This is a bug" not in err, told
        assert unsafe(out + err) == [], told
        assert output.exists(), told
        read(output)


@pytest.mark.parametrize("variable", ["FLUXPERF_MACHINE", "FLUXPERF_COMMIT"])
def test_a_record_with_a_name_that_is_no_text_is_kept(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "m\udcff")
    code, _, err = said([*RUN.split(), "-o", "r.jsonl"])
    assert code == 0, err
    (row,) = read_records(tmp_path / "r.jsonl").records
    assert "m\\udcff" in (row.machine.name, row.commit)


def test_json_of_what_is_no_text_is_text() -> None:
    value = {"a\udcff": ["b\udcff", ("é", 1, None)], "c": Path("d").name}
    for made in (encoded(value), formatted(value).encode()):
        assert msgspec.json.decode(made) == {"a\\udcff": ["b\\udcff", ["é", 1, None]], "c": "d"}
    assert encoded({"a": "é"}) == '{"a":"é"}'.encode()
    assert plain({"a\udcff": ("b\udcff",)}) == {"a\\udcff": ["b\\udcff"]}


def test_reasons_and_prompts_are_text(said: Said, tmp_path: Path) -> None:
    shutil.copy(POLICY, tmp_path / "p.toml")
    words = ["gate", "accept", "tiny/fused/totals.syncs", "--reason=a\udcff", "--author=b\udcff", "--policy=p.toml"]
    assert said([*words, "--up-to=3"])[0] == 0
    assert read_policy(tmp_path / "p.toml").accepted[-1].reason == "a\\udcff"
    code, _, err = said(["generate", "a\udcff", "--model", "m", "--embeddings-out", "e"])
    assert (code, "expected text in UTF-8" in err) == (2, True)


def test_a_revision_with_a_nul_character_is_none() -> None:
    with pytest.raises(BuildError, match="expected"):
        resolved(ROOT, "base", "a\0b")
