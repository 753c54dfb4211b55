"""Every command that reads files gets hostile ones: its output is plain text, and no text of a file becomes markup."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.segment import Segment
from rich.text import Text

from fluxperf.cli import main
from fluxperf.cli.terminal import Console, harmless, harmless_json, say
from fluxperf.harness.points import SUFFIX
from fluxperf.harness.records import read_records
from tests.breaking import hostile
from tests.timeline.making import Capture

Files = Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("hostile")
    hostile.records(folder / "records" / "base.jsonl")
    hostile.records(folder / "records" / "head.jsonl", rung="another")
    assert len(read_records(folder / "records" / "base.jsonl").records) == 3
    (folder / "records" / "damaged.jsonl").write_text(f'{{"schema": {json.dumps(hostile.NAME)}}}\n{hostile.NAME}\n')
    hostile.asv(folder / "asv")
    hostile.policy(folder / "policy.toml")
    (folder / "broken.toml").write_text(f"{json.dumps(hostile.NAME)} = 1\n")
    export = Capture()
    export.range(0, 100, hostile.NAME)
    export.launch(hostile.NAME, 10, 20, 20)
    export.write(folder / "export.sqlite")
    (folder / "prompts.jsonl").write_text(json.dumps({"prompt": "a", hostile.NAME: 1}) + "\n")
    return folder


GATE = "gate --candidate {f}/records/head.jsonl --baseline {f}/records"

COMMANDS = {
    "report --text": "report {f}/records --text",
    "report": "report {f}/records -o {out}/page.html --json - --markdown {out}/comment.md",
    "history": "history {f}/records --repo {f}",
    "history --json": "history {f}/records --repo {f} --json",
    "history --csv": "history {f}/records --repo {f} --csv {out}/table.csv",
    "history -m": "history {f}/records --repo {f} -m nothing",
    "gate": GATE + "/base.jsonl --policy {f}/policy.toml --github",
    "gate damaged": GATE + "/damaged.jsonl --policy {f}/policy.toml",
    "gate broken policy": GATE + "/base.jsonl --policy {f}/broken.toml",
    "gate exact": "gate exact --rung fused --workload tiny --baseline {f}/records/base.jsonl --policy {f}/policy.toml",
    "gate accept": "gate accept tiny/x/nothing --reason r --author a --policy {f}/policy.toml",
    "import-asv": "import-asv {f}/asv -o {out}/asv" + SUFFIX,
    "timeline": "timeline {f}/export.sqlite",
    "timeline --json": "timeline {f}/export.sqlite --json",
    "timeline --tree": "timeline {f}/export.sqlite --tree",
    "generate": "generate --prompts {f}/prompts.jsonl -m {f}/records -o {out}/x.png",
    "run": "run --weights {f}/export.sqlite",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_prints_text_alone(
    files: Files, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    with pytest.raises(SystemExit) as end:
        main([word.format(f=files, out=tmp_path) for word in COMMANDS[command].split()])
    said = "".join(capsys.readouterr())
    assert end.value.code in (0, 1, 2, 3)
    assert "This is a bug" not in said
    assert "Traceback" not in said
    assert hostile.unsafe(said) == []


def test_markup_and_emoji_codes_are_text(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["history", str(files / "records"), "--repo", str(files), "--json"])
    assert "[bold]y[/nope]" in capsys.readouterr().out
    Console().print("[bold]y[/nope]:smile:", Text("\x1b[31m"), highlight=False)
    assert capsys.readouterr().out == "[bold]y[/nope]:smile: \\u001b[31m\n"


def test_json_for_a_terminal_means_the_same() -> None:
    text = json.dumps({hostile.NAME: ["ü", "\U0001f600"]}, ensure_ascii=False, indent=1)
    assert hostile.unsafe(harmless_json(text)) == []
    assert json.loads(harmless_json(text)) == {hostile.NAME: ["ü", "\U0001f600"]}
    assert "ü" in harmless_json(text)


def test_lines_and_tabs_stay() -> None:
    assert harmless("a\tb\nc\x1b") == "a\tb\nc\\u001b"


def test_an_output_that_is_closed_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    say("text")


def test_what_moves_the_cursor_is_the_consoles_own() -> None:
    class Moving:
        def __rich_console__(self, *_: object) -> list[Segment]:
            return [Segment("\x1b[2K", None, [(1,)]), Segment("\x1b[2K")]  # type: ignore[list-item]

    assert [segment.text for segment in Console().render(Moving())] == ["\x1b[2K", "\\u001b[2K"]
