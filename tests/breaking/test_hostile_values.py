"""Impossible values, and small files that expand to much: a message names them, and everything else is read."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fluxperf.cli import main
from fluxperf.errors import CheckpointError, ConfigError, RecordError, TimelineError
from fluxperf.harness.asv_results import import_results
from fluxperf.harness.comparisons import read_comparisons
from fluxperf.harness.gate import gate_files
from fluxperf.harness.history import load
from fluxperf.harness.points import SUFFIX
from fluxperf.harness.policy import read_policy
from fluxperf.harness.records import read_many, read_records
from fluxperf.harness.simulation import measured
from fluxperf.harness.timeline.limits import read_limits
from fluxperf.harness.timeline.nsys import read_capture
from fluxperf.pipeline.folder import open_folder
from fluxperf.pipeline.jobs import Defaults, jobs_of, read_prompts
from fluxperf.pipeline.single import diffusers_names
from fluxperf.words import real_in, whole_in
from tests.breaking.hostile import POLICY
from tests.breaking.test_kills import embedded_model
from tests.contracts.tree import ROOT
from tests.counting import growth
from tests.history.making import record
from tests.report.pages import on_gpu
from tests.timeline.making import example

IMPOSSIBLE = [
    (("error", "relative"), -5.0),
    (("totals", "peak_bytes"), -1),
    (("totals", "launches"), 10**400),
    (("totals", "d2h_bytes"), 2**64),
    (("setup_totals", "syncs"), -(10**30)),
    (("workload", "steps"), -4),
    (("counts", "made"), -1),
    (("machine", "cores"), 10**5000),
]


def changed(path: tuple[str, str], value: Any) -> str:
    row = msgspec.to_builtins(record(1))
    row.setdefault(path[0], {})
    row[path[0]] = {**row[path[0]], path[1]: "HERE"}
    return json.dumps(row).replace('"HERE"', _digits(value))


def _digits(value: Any) -> str:
    """Python writes no integer of more than 4,300 digits."""
    return "1" + "0" * 5000 if isinstance(value, int) and value > 10**4000 else str(value)


@pytest.mark.parametrize(("path", "value"), IMPOSSIBLE, ids=["/".join(path) for path, _ in IMPOSSIBLE])
def test_an_impossible_value_is_no_record_and_an_error_of_the_gate(
    tmp_path: Path, path: tuple[str, str], value: Any
) -> None:
    good = json.dumps(msgspec.to_builtins(record(1)))
    base, head = tmp_path / "base.jsonl", tmp_path / "head.jsonl"
    base.write_text(f"{good}\n")
    head.write_text(f"{good}\n{changed(path, value)}\n")
    found = read_records(head)
    assert len(found.records) == 1
    assert "line 2" in found.problems[0]
    verdict = gate_files(base, head, read_policy(POLICY))
    assert (verdict.outcome, verdict.exit_code) == ("error", 2)


NINES = "9" * 5000


@pytest.mark.parametrize(
    "text", [NINES, "", "-1", "1.5", "\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT THREE}", "1_0", " 1"]
)
def test_a_text_that_is_no_whole_number_of_64_bits_is_none(text: str) -> None:
    assert whole_in(text) is None


def test_numbers_in_texts() -> None:
    assert (whole_in("0"), whole_in("9" * 18), real_in("1.5"), real_in("-2e3")) == (0, 10**18 - 1, 1.5, -2000.0)
    assert [real_in(text) for text in ("1e999", "nan", "-inf", "1.2.3", "", NINES)] == [None] * 6


@pytest.mark.parametrize("version", [f"3.{NINES}", f"{NINES}.1", "3.x", "\N{SUPERSCRIPT TWO}.1", ""])
def test_a_version_of_a_thousand_digits_is_one_that_is_not_known(tmp_path: Path, version: str) -> None:
    path = example().write(tmp_path / "export.sqlite")
    with closing(sqlite3.connect(path)) as base:
        for table in ("META_DATA_EXPORT", "EXPORT_META_DATA"):
            with suppress(sqlite3.OperationalError):  # each version of the tool has one of them
                base.execute(f"UPDATE {table} SET value = ? WHERE name LIKE '%SCHEMA_VERSION%'", (version,))
        base.commit()
    if version.startswith("3."):
        assert read_capture(path).work is not None
    else:
        with pytest.raises(TimelineError, match="expected an EXPORT_SCHEMA_VERSION of"):
            read_capture(path)


def test_texts_of_a_record_that_stand_for_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its seed, its rest, and an algorithm's choice with its microseconds."""
    row = msgspec.to_builtins(on_gpu("fused", 0.5))
    row["workload"]["weights"] = f"synthetic (seed {NINES})"
    row["settings"]["rest_s"] = "long"
    row["choices"] = {"1024 x 1024 x 1024 bfloat16": "3 of 5, 1.2.3 us"}
    (tmp_path / "r.jsonl").write_text(json.dumps(row) + "\n")
    for words in (f"report {tmp_path}/r.jsonl -o {tmp_path}/p.html", f"history {tmp_path}/r.jsonl --course"):
        with pytest.raises(SystemExit) as end:
            main(words.split())
        assert end.value.code == 0, capsys.readouterr().err


@pytest.mark.parametrize("limit", [f"idle > {NINES} ms", f"sync-in-loop > {'9' * 400}"])
def test_a_limit_that_no_capture_exceeds_is_none(limit: str) -> None:
    with pytest.raises(ConfigError, match="expected a finite threshold"):
        read_limits([limit], {})


def test_a_block_of_a_thousand_digits_has_its_own_name() -> None:
    names = {f"decoder.up.{NINES}.block.0.x": "a", "decoder.up.1.block.0.x": "b"}
    assert diffusers_names(names).keys() >= {"decoder.up_blocks.0.resnets.0.x"}


@pytest.mark.parametrize("shift", ["1" + "0" * 400, "1e7", "0", "-1", "true", '"3"', "1e999"])
def test_a_shift_that_no_model_has_is_refused(tmp_path: Path, shift: str) -> None:
    model = embedded_model(tmp_path)
    (model / "scheduler" / "scheduler_config.json").write_text(f'{{"shift": {shift}}}')
    with pytest.raises(CheckpointError, match="expected a number above 0"):
        open_folder(model, ("transformer", "scheduler"))


@pytest.mark.parametrize("medians", [([0.0], [1.0]), ([1.0], [-1.0]), ([1.0, 1.0], [1.0])])
def test_comparisons_with_medians_that_cannot_be(tmp_path: Path, medians: tuple[list[float], list[float]]) -> None:
    document = json.loads((ROOT / "reports" / "records" / "h100-aa.json").read_text())
    name = next(iter(document["comparisons"][0]["medians"]))
    document["comparisons"][0]["medians"][name] = dict(zip(("base", "head"), medians, strict=True))
    (tmp_path / "aa.json").write_text(json.dumps(document))
    with pytest.raises(RecordError, match=r"expected (pairs|medians above 0)"):
        read_comparisons(tmp_path / "aa.json")


def test_comparisons_with_more_pairs_of_one_metric(tmp_path: Path) -> None:
    document = json.loads((ROOT / "reports" / "records" / "h100-aa.json").read_text())
    for sides in document["comparisons"][0]["medians"].values():
        sides["base"], sides["head"] = sides["base"][:-1], sides["head"][:-1]
        break
    (tmp_path / "aa.json").write_text(json.dumps(document))
    with pytest.raises(RecordError, match="expected as many pairs of each metric"):
        measured(read_comparisons(tmp_path / "aa.json"))


@pytest.mark.parametrize("field", ["times_s", "cycles", "energy_j"])
def test_a_sample_that_no_scale_has_makes_no_record(
    tmp_path: Path, field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = (msgspec.to_builtins(on_gpu("fused", 0.5)) for _ in range(2))
    bad[field] = {"denoise": [[0.5, 1e308]]}
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (good, bad)))
    with pytest.raises(SystemExit) as end:
        main(["report", str(tmp_path / "r.jsonl"), "-o", str(tmp_path / "p.html")])
    said = capsys.readouterr().err
    assert (end.value.code, "line 2" in said, "This is a bug" in said) == (2, True, False)


def spoilt(folder: Path) -> Path:
    """Two valid files among an empty one, one without records, a binary one, and folders with such names."""
    folder.mkdir()
    for name in ("b.jsonl", "d.jsonl"):
        (folder / name).write_text(json.dumps(msgspec.to_builtins(record(1))) + "\n")
    (folder / "a.jsonl").write_text("")
    (folder / "c.jsonl").write_text("{}\n")
    (folder / "e.jsonl").write_bytes(b"\xff\xfe\x00")
    (folder / "f.jsonl").mkdir()
    (folder / f"g{SUFFIX}").mkdir()
    (folder / f"h{SUFFIX}").write_text("{}\n")
    return folder


BAD = ("a.jsonl", "c.jsonl", "e.jsonl", "f.jsonl")


def test_a_bad_file_of_a_folder_is_named_and_the_rest_read(tmp_path: Path) -> None:
    folder = spoilt(tmp_path / "records")
    files = list(read_many([folder]))
    assert [Path(file.path).name for file in files if file.records] == ["b.jsonl", "d.jsonl"]
    said = " ".join(problem for file in files for problem in file.problems)
    assert [name for name in BAD if name in said] == list(BAD)
    columns, problems = load([folder])
    assert len(columns.key)
    assert all(any(name in problem for problem in problems) for name in (*BAD, f"g{SUFFIX}", f"h{SUFFIX}"))


@pytest.mark.parametrize(
    "words",
    [
        "report {f} --text",
        "report {f} -o {f}/../page.html --chart {f}/../c.svg",
        "history {f} --repo {f}",
        "history {f} --csv {f}/../t.csv",
    ],
)
def test_every_command_that_reads_folders_names_bad_files(
    tmp_path: Path, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = spoilt(tmp_path / "records")
    with pytest.raises(SystemExit) as end:
        main([word.format(f=folder) for word in words.split()])
    assert end.value.code == 2
    said = "".join(capsys.readouterr())
    assert [name for name in BAD if name in said] == list(BAD)
    assert "This is a bug" not in said


def test_a_folder_with_no_good_file_is_an_error_of_the_gate(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "x.jsonl").mkdir()
    with pytest.raises(RecordError, match=r"x\.jsonl.*Is a directory"):
        list(read_many([tmp_path / "base"]))
    spoilt(tmp_path / "head")
    verdict = gate_files(tmp_path / "head", tmp_path / "head", read_policy(POLICY))
    assert verdict.exit_code == 2


def results(folder: Path, rows: dict[str, Any], **changes: Any) -> Path:
    """asv's results of one machine and commit."""
    (folder / "host").mkdir(parents=True)
    (folder / "host" / "machine.json").write_text(json.dumps({"machine": "host", "version": 1}))
    head = {"commit_hash": "0" * 40, "env_name": "e", "date": 1, "params": {}, "version": 2}
    head |= {"result_columns": ["result", "params", "version"], "results": rows, **changes}
    (folder / "host" / "result.json").write_text(json.dumps(head))
    known = {name: {"unit": "seconds", "type": "time", "param_names": []} for name in rows}
    (folder / "benchmarks.json").write_text(json.dumps({"version": 2, **known}))
    return folder


def test_many_parameters_of_a_short_line_are_refused_before_they_are_multiplied(tmp_path: Path) -> None:
    values = [str(number) for number in range(300)]
    rows = {"good": [[1.0], [], "1"], "failed": [None, [values] * 8, "1"], "short": [[1.0], [values] * 8, "1"]}
    found = import_results(results(tmp_path / "asv", rows))
    assert [point.metric for point in found.points] == ["good"]
    assert "at most 10000 combinations of parameters without a value, got 65610000000000000000" in found.problems[0]
    assert "expected 65610000000000000000 values of result" in found.problems[1]


def test_numbers_without_end_in_asvs_files_are_named(tmp_path: Path) -> None:
    found = import_results(results(tmp_path / "value", {"huge": [[10**400, 10**15], [["1", "2"]], "1"]}))
    assert [(point.value, point.missing) for point in found.points] == [(None, "not finite"), (1e15, "")]
    with pytest.raises(RecordError, match="expected a date in milliseconds"):
        import_results(results(tmp_path / "date", {"good": [[1.0], [], "1"]}, date=10**400))


def test_a_prompt_of_pictures_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a", "num_images": 1' + "0" * 400 + "}\n")
    with pytest.raises(ConfigError, match="expected at most 100000 in one command"):
        jobs_of(read_prompts(path), [], Defaults(64, 64, None, None, 0, 1), None, None)


def test_prompts_take_work_that_grows_as_they_do(tmp_path: Path) -> None:
    path, given = tmp_path / "prompts.jsonl", Defaults(64, 64, None, None, 0, 1)

    def work(lines: int) -> None:
        path.write_text('{"prompt": "a"}\n' * lines)
        jobs_of(read_prompts(path), [], given, tmp_path, None)

    assert growth(work, 100) < 2.2


def test_a_name_without_end_is_shown_in_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table would wrap it over many lines in each column."""
    rows = [{**msgspec.to_builtins(record(at)), "rung": "x" * 10**6} for at in range(2)]
    hostile = tmp_path / "records" / "r.jsonl"
    hostile.parent.mkdir()
    hostile.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for words in (f"report {hostile} --text", f"history {hostile.parent} --repo {tmp_path} --all -m *denoise"):
        with pytest.raises(SystemExit) as end:
            main(words.split())
        assert end.value.code == 0
        assert "xxx" in (said := capsys.readouterr().out)
        assert len(said) < 2 * 10**6
