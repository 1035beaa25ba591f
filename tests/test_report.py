"""Reports: the tables say what the report says, promises that are broken are named, changes are told from noise, the page is whole."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("librosa", reason="evaluation needs the extra [eval]")

from stylestream import evaluate, report
from stylestream.passages import key_of
from stylestream.sound import write_sound

METRICS = [metric for metric in evaluate.COLUMNS if not metric.startswith("roughness")]


def piece(path: str, rows: dict[str, dict[str, float | None]]) -> dict[str, Any]:
    return {"path": path, "id": path, "group": path, "start_seconds": 0.0, "seconds": 3.0, "rows": rows, "warnings": []}


def cells(**values: float | None) -> dict[str, dict[str, Any]]:
    base = dict.fromkeys(METRICS, 0.0) | {"chroma": 0.9, "flux": 0.8, "note_auc": 0.97} | values
    return {metric: {"mean": value, "low": value, "high": value, "n": 5} for metric, value in base.items()}


def of_one_piece(cells: dict[str, dict[str, Any]]) -> dict[str, float | None]:
    return {metric: cell["mean"] for metric, cell in cells.items() if metric not in evaluate.OF_SETS}


def report_of(ours: dict[str, Any], *, reached: float = 0.5, ripple_db: float = 0.0) -> dict[str, Any]:
    rows = {
        "copy": cells(log_mel_l1=9.0, mfcc=50.0),
        "equalise": cells(log_mel_l1=8.0, mfcc=30.0),
        "rock": ours,
        "ceiling": cells(log_mel_l1=1.0, modulation_20_43=ripple_db),
        "truth": cells(),
    }
    ways = {row: {"mean": reached, "low": reached, "high": reached, "n": 5} for row in rows}
    made: dict[str, Any] = {
        "style": "rock",
        "recipe": "rock",
        "rows": rows,
        "way": ways,
        "kind": "reduction",
        "with_drums": None,
        "unseen_soundfont": None,
        "pieces": [piece(str(i), {row: of_one_piece(cells) for row, cells in rows.items()}) for i in range(5)],
        "missing": ["plain"],
        "failures": {},
        "refused": {},
        "curves": None,
        "errors": {},
        "cost": {},
        "protocol": {},
        "made_with": {},
    }
    return made | {"claims": evaluate.claims(made, "rock")}


GOOD = {
    "log_mel_l1": 5.0,
    "mfcc": 20.0,
    "modulation_2_5": -1.0,
    "modulation_5_10": -4.0,
    "modulation_10_20": -9.0,
    "modulation_20_43": -9.0,
}


def test_every_promise_is_kept_by_a_good_style() -> None:
    assert [c["claim"] for c in report_of(cells(**GOOD))["claims"] if not c["holds"]] == []


@pytest.mark.parametrize(
    ("broken", "claim"),
    [
        ({"log_mel_l1": 6.9}, "log-mel L1 re equalise"),
        ({"mfcc": 26.0}, "MFCC distance re equalise"),
        ({"chroma": 0.89}, "chroma"),
        ({"note_auc": 0.94}, "note AUC"),
        ({"flux": 0.74}, "flux correlation"),
        ({"modulation_2_5": -3.1}, "modulation 2–5 Hz dB"),
        ({"modulation_5_10": -8.1}, "modulation 5–10 Hz dB"),
        ({"modulation_20_43": 0.3}, "modulation, worst band dB"),
        ({"modulation_10_20": None}, "modulation, worst band dB"),
        ({"chroma": None}, "chroma"),
    ],
)
def test_a_broken_promise_is_named(broken: dict[str, float | None], claim: str) -> None:
    made = report_of(cells(**(GOOD | broken)))
    assert [c["claim"] for c in made["claims"] if not c["holds"]] == [claim]


@pytest.mark.parametrize(("ours_db", "ceiling_db", "holds"), [(0.3, 0.8, True), (0.9, 0.8, False), (0.3, -0.8, False), (-0.1, -0.8, True)])
def test_ripple_is_measured_against_the_truth_or_where_it_is_higher_the_ceiling(ours_db: float, ceiling_db: float, holds: bool) -> None:
    made = report_of(cells(**(GOOD | {"modulation_20_43": ours_db})), ripple_db=ceiling_db)
    (claim,) = [c for c in made["claims"] if c["claim"] == "modulation, worst band dB"]
    assert claim["holds"] is holds
    assert claim["note"] == f"20–43 Hz, where the ceiling has {ceiling_db:+.2f}"
    assert (claim["value"], claim["bound"]) == (ours_db, max(ceiling_db, 0.0))


def test_the_tables_say_what_the_report_says() -> None:
    from rich.console import Console

    made = report_of(cells(**GOOD))
    text = report.markdown(made)
    assert "|  | copy | equalise | rock | ceiling | truth |" in text
    assert "| part of the way |  | 50% | 50% [50%, 50%] |  |  |" in text
    assert "| log-mel L1, dB | 9.00 | 8.00 | 5.00 [5.00, 5.00] | 1.00 | 0.00 |" in text
    stream = io.StringIO()
    report.show(made, Console(file=stream, width=80, no_color=True))
    printed = stream.getvalue()
    assert "part of the way 50% [50%, 50%], log-mel L1 5.00 [5.00, 5.00] dB" in printed
    assert "…" not in printed  # it fits a terminal
    assert "yes part of the way: 0.500 >= 0.400" in printed
    assert "row plain: not trained" in printed


def test_the_promises_are_a_table_that_says_which_are_not_kept() -> None:
    kept, broken = report_of(cells(**GOOD)), report_of(cells(**(GOOD | {"mfcc": 26.0})), reached=0.3)
    lines = report.markdown_claims([kept, broken]).splitlines()
    assert lines[2] == "| part of the way | 0.50 ≥ 0.40 | **no:** 0.30, not ≥ 0.40 |"
    assert "| MFCC distance re equalise | 0.67 ≤ 0.85 | **no:** 0.87, not ≤ 0.85 |" in lines
    assert len(lines) == 2 + len(kept["claims"])
    assert "≤ 0.00 (2–5 Hz, where the ceiling has +0.00)" in lines[-1]


def test_the_summary_has_a_line_a_style_and_the_card_the_means() -> None:
    made = report_of(cells(**GOOD, centroid=None))
    assert report.markdown_summary([made]).splitlines()[2] == "| rock | 9.00 | 8.00 | 5.00 | 1.00 | **50% [50%, 50%]** | 5 |"
    card = report.card_metrics(made)
    assert card["rock"]["log_mel_l1"] == 5
    assert card["rock"]["way"] == 0.5
    assert "centroid" not in card["rock"]


# --- JSON, and what changed


def test_a_report_comes_back_from_its_file_and_others_are_refused(tmp_path: Path) -> None:
    made = report_of(cells(**GOOD))
    report.write([made], tmp_path, command="stylestream evaluate x")
    assert report.load_reports(tmp_path / "report.json") == {"rock": {"command": "stylestream evaluate x", **made}}
    jazz = [one | {"rows": one["rows"] | {"jazz": one["rows"]["rock"]}} for one in made["pieces"]]
    (tmp_path / "two.json").write_text(json.dumps(report.as_json([made, made | {"style": "jazz", "pieces": jazz}])))
    assert set(report.load_reports(tmp_path / "two.json")) == {"rock", "jazz"}
    words = report_of(cells(**GOOD))
    words["pieces"][0]["rows"]["copy"]["log_mel_l1"] = "far"
    for text in ("", "[]", "{}", '{"style": "rock"}', '{"styles": 3}', "nonsense", json.dumps(words)):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match="bad.json: not a report"):
            report.load_reports(tmp_path / "bad.json")
    with pytest.raises(FileNotFoundError):
        report.load_reports(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("metric", "old", "new", "verdict"),
    [
        ("log_mel_l1", 5.0, 4.0, "better"),
        ("chroma", 0.9, 0.8, "worse"),
        ("modulation_2_5", -1.0, -2.0, "worse"),
        ("modulation_2_5", 2.0, 1.0, "better"),
        ("modulation_2_5", -1.0, 0.5, "better"),
        ("chroma", 0.9, 0.9, "within noise"),
    ],
)
def test_what_changed_is_called_better_or_worse(metric: str, old: float, new: float, verdict: str) -> None:
    before, after = (report_of(cells(**(GOOD | {metric: value}))) for value in (old, new))
    changed = report.compare(after, {"rock": before})
    assert changed["metrics"][metric]["verdict"] == verdict
    of_it = {metric, "way"} if metric == "log_mel_l1" else {metric}
    assert changed["metrics"]["way"]["verdict"] == (verdict if "way" in of_it else "within noise")
    assert {cell["verdict"] for other, cell in changed["metrics"].items() if other not in of_it} == {"within noise"}
    said = "\n".join(report.changes(after | {"compared": changed}))
    assert ("nothing changed beyond noise" in said) == (verdict == "within noise")
    assert "on 5 same passages" in said


def spans(**values: tuple[float | None, float | None, float | None]) -> dict[str, dict[str, Any]]:
    return {metric: dict(zip(("mean", "low", "high"), ends, strict=True)) | {"n": 5} for metric, ends in values.items()}


@pytest.mark.parametrize(
    ("metric", "old", "new", "verdict"),
    [
        ("kernel_distance", (5.0, 4.0, 6.0), (2.0, 1.0, 3.0), "better"),
        ("kernel_distance", (5.0, 4.0, 6.0), (7.0, 6.0, 8.0), "worse"),
        ("kernel_distance", (5.0, 4.0, 6.0), (3.7, 2.7, 4.7), "within noise"),  # 1.3 apart, which two errors of 1 reach
        ("frechet_distance", (5.0, 0.0, 14.0), (1.0, 0.5, 1.5), "within noise"),  # the interval ends where a distance does
        ("judge_auc", (0.95, 0.9, 1.0), (0.6, 0.5, 0.7), "better"),
        ("judge_auc", (0.5, 0.45, 0.55), (0.3, 0.25, 0.35), "worse"),  # a judge that is always wrong tells them apart, too
        ("judge_auc", (0.95, None, None), (0.6, 0.5, 0.7), "too few songs"),
    ],
)
def test_what_is_asked_of_all_passages_is_compared_by_its_intervals(
    metric: str, old: tuple[float, float, float], new: tuple[float, float, float], verdict: str, tmp_path: Path
) -> None:
    before, after = (report_of(cells(**GOOD) | spans(**{metric: ends})) for ends in (old, new))
    changed = report.compare(after, {"rock": before})
    assert changed["metrics"][metric]["verdict"] == verdict
    assert {cell["verdict"] for other, cell in changed["metrics"].items() if other != metric} == {"within noise"}
    both = after | {"compared": changed}
    assert (f"{verdict}: {evaluate.COLUMNS[metric]} " in "\n".join(report.changes(both))) == (verdict in ("better", "worse"))
    assert "compared by the two intervals" in report.write([both], tmp_path).read_text()


def test_what_is_asked_of_other_passages_is_not_compared_and_this_is_said(tmp_path: Path) -> None:
    made = report_of(cells(**GOOD))
    fewer = made | {"pieces": made["pieces"][:4]}
    both = made | {"compared": report.compare(made, {"rock": fewer})}
    assert not set(evaluate.OF_SETS) & set(both["compared"]["metrics"])
    said = "not compared: KAD, FAD, judge AUC: they are of all passages together, and the two reports are not of the same ones"
    assert said in report.changes(both)
    text = report.write([both], tmp_path).read_text()
    assert said in text
    assert "compared by the two intervals" not in text


def test_without_such_metrics_nothing_is_said_of_them() -> None:
    made = report_of({metric: cell for metric, cell in cells(**GOOD).items() if metric not in evaluate.OF_SETS})
    fewer = made | {"pieces": made["pieces"][:4]}
    assert report.compare(made, {"rock": fewer})["left_out"] == []


def test_another_report_must_have_the_style_and_the_passages() -> None:
    made = report_of(cells(**GOOD))
    assert report.compare(made, {"mine": made | {"style": "rock"}})["style"] == "rock"  # the only one there is
    with pytest.raises(ValueError, match="no style 'rock' there, but a, b"):
        report.compare(made, {"a": made, "b": made})
    with pytest.raises(ValueError, match="no passage in common"):
        report.compare(made, {"rock": made | {"pieces": [one | {"seconds": 9.0} for one in made["pieces"]]}})


@pytest.mark.parametrize(
    ("there", "what"),
    [
        ({"recipe": "strings"}, "the recipe is strings there, rock here"),
        ({"kind": "recordings"}, "the kind is recordings there, reduction here"),
        ({"protocol": {"truth_soundfont": "musescore"}}, "the SoundFont of the truths is musescore there, fluidr3 here"),
    ],
)
def test_other_truths_are_not_compared_and_what_was_measured_stays(there: dict[str, Any], what: str, tmp_path: Path) -> None:
    made = report_of(cells(**GOOD)) | {"protocol": {"truth_soundfont": "fluidr3"}}
    both = report.compared(made, {"rock": made | there})
    assert "compared" not in both
    assert both["rows"] == made["rows"]
    assert f"not compared: --compare: {what}; evaluate both in the same way" in report.troubles(both)
    assert what in report.write([both], tmp_path).read_text()


def test_the_verdict_is_of_the_passages_that_both_have() -> None:
    before, after = (report_of(cells(**(GOOD | {"modulation_2_5": value}))) for value in (0.0, 1.0))
    far = [piece(str(i), {"rock": {"modulation_2_5": -9.0}}) for i in range(5, 9)]
    after = after | {"pieces": [*after["pieces"], *far]}
    assert report.compare(after, {"rock": before})["metrics"]["modulation_2_5"]["verdict"] == "worse"


@pytest.mark.parametrize(
    "spoilt",
    [
        *({"pieces": 3}, {"pieces": [{}]}, {"pieces": []}, {"rows": []}, {"rows": {"rock": {"judge_auc": {"mean": "0.5"}}}}),
        *({"recipe": None}, {"protocol": None}, {"style": "other"}),
    ],
)
def test_half_a_report_is_no_report(spoilt: dict[str, Any], tmp_path: Path) -> None:
    half = report_of(cells(**GOOD)) | spoilt
    values: list[dict[str, Any]] = [half, {"styles": {"rock": half}}, {"styles": {}}]
    for value in values:
        (tmp_path / "report.json").write_text(json.dumps(value))
        with pytest.raises(ValueError, match="not a report"):
            report.load_reports(tmp_path)


# --- the page


class Tags(HTMLParser):
    """Counts what opens, and sees to it that what opens is closed."""

    EMPTY = ("meta", "br", "img", "path", "use")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: dict[str, int] = {}
        self.addresses: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen[tag] = self.seen.get(tag, 0) + 1
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing(tmp_path: Path, rng: np.random.Generator) -> None:
    name = "<b>rock & roll</b>"
    made = report_of(cells(**GOOD)) | {"style": name, "failures": {"<i>": "no & song"}}
    made["rows"] = {name if row == "rock" else row: columns for row, columns in made["rows"].items()}
    made["way"] = {name if row == "rock" else row: columns for row, columns in made["way"].items()}
    made["pieces"] = [one | {"rows": {name if row == "rock" else row: c for row, c in one["rows"].items()}} for one in made["pieces"]]
    for piece in made["pieces"]:
        for part in ("song", "style", "truth"):
            write_sound(tmp_path / f"{key_of(name, part, piece['id'])}.flac", rng.normal(scale=0.1, size=(2, 22050)).astype(np.float32))
    text = report.page([made], command="stylestream evaluate '<script>'", sounds=tmp_path)
    tags = Tags(text)
    assert "<b>rock" not in text
    assert "<script" not in text
    assert "stylestream evaluate &#x27;&lt;script&gt;&#x27;" in text
    assert tags.seen["audio"] == 9
    assert tags.seen["img"] == 3
    assert tags.seen["svg"] >= 1
    assert all(address.startswith(("data:", "#")) for address in tags.addresses)
    assert "5.00" in text
    assert "not scored: &lt;i&gt;: no &amp; song" in text


def test_the_sound_of_the_page_is_the_song(tone: Any) -> None:
    import soundfile

    y = tone(1.0)
    heard, sample_rate = soundfile.read(io.BytesIO(report.encode(y)), always_2d=True)
    assert sample_rate == 44100
    size = min(len(heard), y.shape[1])
    assert np.corrcoef(heard[:size, 0], y[0, :size])[0, 1] > 0.99
    assert len(report.encode(y)) < 40_000  # a second at 120 kbit/s, and a header
    assert report.encode(np.zeros((1, 44100), np.float32))


def test_the_best_the_median_and_the_worst_are_shown() -> None:
    made = report_of(cells(**GOOD))
    for place, one in enumerate(made["pieces"]):
        one["rows"]["rock"] = {**one["rows"]["rock"], "log_mel_l1": [3.0, 8.0, 5.0, 4.0, None][place]}
    assert [(title.split()[0], piece["path"]) for title, piece in report.cases(made)] == [("best", "0"), ("median", "2"), ("worst", "4")]
    made["pieces"] = made["pieces"][:2]
    assert [piece["path"] for _, piece in report.cases(made)] == ["0", "1"]


def test_two_reports_of_one_song_are_compared_without_a_verdict(tmp_path: Path) -> None:
    made = report_of(cells(**GOOD))
    made["pieces"] = [piece | {"group": "one tune"} for piece in made["pieces"]]
    changed = report.compare(made, {"rock": made})
    assert {cell["verdict"] for cell in changed["metrics"].values()} == {"too few songs"}
    both = made | {"compared": changed}
    assert "5 different songs at least tell a change from noise" in "\n".join(report.changes(both))
    assert "too few songs" in report.write([both], tmp_path).read_text()
