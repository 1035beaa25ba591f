"""Reports → JSON for programs; tables for README, cards and console; one page to look at and listen to; what changed against another.

``report.json`` is a style's report as ``evaluate`` made it; of several styles, ``styles`` has one by name. The Markdown is what
``tools/fill`` puts into the documentation. The page is one file to look at and listen to: plots as SVG, songs as MP3, no script, nothing
fetched from anywhere. It says what was asked for, what came of it with its intervals, and what went wrong; the best, the median and the
worst passage can be heard. `write` puts all of it into a folder.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stylestream import bootstrap, plots
from stylestream.evaluate import COLUMNS, OF_SETS, OF_THE_TRUTH, SAMPLE_RATE, kept_sound

if TYPE_CHECKING:
    from rich.console import Console

Array = NDArray[np.floating]
Report = Mapping[str, Any]

LESS_IS_BETTER = ("log_mel_l1", "lsd", "lsd_16k", "mr_stft", "mfcc", "centroid", "kernel_distance", "frechet_distance")
MORE_IS_BETTER = (
    "way",
    "chroma",
    "cqt_pcc",
    "note_auc",
    "frame_f1",
    "frame_jaccard",
    "flux",
    "onset_f1",
    "tempo",
    "beat_f1",
    "timbre_cosine",
    "style_probability",
    "style_heard",
    "style_cosine",
)
BEST = {"judge_auc": 0.5}  # a judge that guesses; of all other metrics, where neither less nor more is better, 0 is best
SHOWN = {  # columns of the console's table
    "log_mel_l1": "L1, dB",
    "mfcc": "MFCC",
    "chroma": "chroma",
    "note_auc": "notes",
    "frame_f1": "pitch",
    "flux": "flux",
    "onset_f1": "onsets",
}
TABLES = {  # table: what its title adds, and the row that its way leads to
    "rows": ("", "ceiling"),
    "unseen_soundfont": (", truth in the unseen SoundFont", "same_score"),
    "with_drums": (", truth with its drums", "ceiling"),
}
WHY_MISSING = dict.fromkeys(("random", "musaicing", "ulyanov"), "no music of the style beside what is judged; name some with --material")
MAX_REPORT_BYTES = 256 * 2**20


# --- JSON --------------------------------------------------------------------------------------------------------------------------


def as_json(reports: Sequence[Report], command: str = "") -> dict[str, Any]:
    """What ``report.json`` holds: a style's report, or ``styles`` by name."""
    if len(reports) == 1:
        return {"command": command, **reports[0]}
    return {"command": command, "styles": {report["style"]: dict(report) for report in reports}}


def load_reports(path: str | Path) -> dict[str, dict[str, Any]]:
    """Reports by style, of a ``report.json`` or the folder that has one.

    Raises
    ------
    ValueError, OSError
        If there is none, or it is something else.
    """
    path = Path(path) / "report.json" if Path(path).is_dir() else Path(path)
    if path.stat().st_size > MAX_REPORT_BYTES:
        raise ValueError(f"{path}: too large for a report")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        reports: dict[str, dict[str, Any]] = dict(value["styles"]) if "styles" in value else {value["style"]: value}
        if not reports or not all(_is_report(report) for report in reports.values()):
            raise ValueError("something is not as it is written")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{path}: not a report; `stylestream evaluate` writes them as report.json") from None
    return reports


def _is_report(report: Mapping[str, Any]) -> bool:
    """Whether what a comparison reads is there, and of the right kind."""
    style, pieces = report["style"], report["pieces"]
    kinds: dict[str, Any] = {"id": str, "group": str, "start_seconds": (int, float), "seconds": (int, float), "rows": dict}
    if not isinstance(report["rows"], dict) or not isinstance(report["protocol"], dict) or not isinstance(pieces, list) or not pieces:
        return False
    named = all(isinstance(report[key], str) for key in ("style", "recipe", "kind"))
    whole = all(isinstance(piece[key], kind) for piece in pieces for key, kind in kinds.items())
    of_sets = [cell for metric, cell in report["rows"].get(style, {}).items() if metric in OF_SETS]
    ends = all(isinstance(cell[end], (int, float, NoneType)) for cell in of_sets for end in ("mean", "low", "high"))
    if not named or not whole or not ends or not all(style in piece["rows"] for piece in pieces):
        return False
    return all(isinstance(score, (int, float, NoneType)) for piece in pieces for row in piece["rows"].values() for score in row.values())


def other_of(name: str, others: Mapping[str, Report]) -> Report:
    """The report that a style is compared with: of the same style, or the only one there is.

    Raises
    ------
    ValueError
        If there are several, of other styles.
    """
    if name not in others and len(others) > 1:
        raise ValueError(f"--compare: no style {name!r} there, but {', '.join(others)}")
    return others.get(name) or next(iter(others.values()))


def compare(report: Report, others: Mapping[str, Report]) -> dict[str, Any]:
    """What changed beyond noise against another evaluation: of the same style, or of the only one there is.

    Raises
    ------
    ValueError
        If the other has no such style, no passage in common, or its truths or songs are others.
    """
    name = report["style"]
    other = other_of(name, others)
    for what, (ours, theirs) in _settings(report, other).items():
        if ours != theirs:
            raise ValueError(f"--compare: {what} is {theirs} there, {ours} here; evaluate both in the same way")
    cells = bootstrap.difference(report["pieces"], other["pieces"], (name, other["style"]))
    of_sets = _differences_of_sets(report, other)
    same = bootstrap.same_passages(report["pieces"], other["pieces"])
    metrics = {metric: cell | {"verdict": _verdict(metric, cell)} for metric, cell in (cells | (of_sets if same else {})).items()}
    left_out = [] if same else list(of_sets)
    return {"style": other["style"], "made_with": other.get("made_with", {}), "metrics": metrics, "left_out": left_out}


def _differences_of_sets(report: Report, other: Report) -> dict[str, bootstrap.Cell]:
    """Metric → difference, of what both asked of all passages together: of single pieces there is nothing to compare."""
    ours, theirs = (one["rows"].get(one["style"], {}) for one in (report, other))
    groups = [piece["group"] for piece in report["pieces"]]
    return {metric: bootstrap.unpaired(ours[metric], theirs[metric], groups) for metric in OF_SETS if metric in ours and metric in theirs}


def compared(report: Report, others: Mapping[str, Report]) -> dict[str, Any]:
    """The report with ``compared``, or with ``not_compared``, the reason: what was measured is worth keeping in any case."""
    try:
        return {**report, "compared": compare(report, others)}
    except ValueError as error:
        return {**report, "not_compared": str(error)}


def _settings(one: Report, other: Report) -> dict[str, tuple[Any, Any]]:
    """What must be the same, that two reports can be compared."""
    kinds = {"the kind": (one["kind"], other["kind"])}
    if one["kind"] == "recordings":  # nothing is played
        return kinds
    names = {"song_soundfont": "the SoundFont of the songs", "truth_soundfont": "the SoundFont of the truths"}
    played = {what: (one["protocol"].get(key), other["protocol"].get(key)) for key, what in names.items()}
    return kinds | {"the recipe": (one["recipe"], other["recipe"])} | played


def _verdict(metric: str, cell: Mapping[str, Any]) -> str:
    if not cell["changed"]:
        return "too few songs" if cell["changed"] is None else "within noise"
    now = cell["ours"]
    if metric in LESS_IS_BETTER:
        return "better" if cell["mean"] < 0 else "worse"
    if metric in MORE_IS_BETTER:
        return "better" if cell["mean"] > 0 else "worse"
    best = BEST.get(metric, 0.0)
    return "better" if now is not None and abs(now - best) < abs(now - cell["mean"] - best) else "worse"


# --- Markdown ----------------------------------------------------------------------------------------------------------------------


def cell(value: Mapping[str, Any] | None, *, span: bool = False, percent: bool = False) -> str:
    """A mean, with its interval where ``span``; of NaN how many there are.

    >>> cell({"mean": 0.25, "low": 0.2, "high": 0.31, "n": 9}, span=True, percent=True)
    '25% [20%, 31%]'
    """
    if value is None:
        return ""
    if value["mean"] is None:
        return f"NaN ({value.get('nan', 0)} of {value['n']})"
    digits = "{:.0%}" if percent else "{:.2f}"
    text = digits.format(value["mean"])
    return f"{text} [{digits.format(value['low'])}, {digits.format(value['high'])}]" if span and value["low"] is not None else text


def headings(part: Report) -> dict[str, str]:
    """Metric → heading, of every metric that a table has."""
    there = dict.fromkeys(metric for cells in part["rows"].values() for metric in cells)
    known = {metric: heading for metric, heading in COLUMNS.items() if metric in there}
    return known | {metric: metric.replace("_", " ") for metric in there if metric not in COLUMNS}


def way_of(part: Report, row: str) -> Mapping[str, Any] | None:
    """Its part of the way, where that says something."""
    return None if row in ("copy", *OF_THE_TRUTH, "same_score") else part["way"].get(row)


def lines_of(part: Report, name: str, *, span: bool) -> list[list[str]]:
    """Cells of a table: a heading, the part of the way, then a line a metric; a column a row of the report."""
    rows = part["rows"]
    lines = [["", *rows], ["part of the way", *(cell(way_of(part, row), span=span and row == name, percent=True) for row in rows)]]
    for metric, heading in headings(part).items():
        lines.append([heading, *(cell(cells.get(metric), span=span and row == name) for row, cells in rows.items())])
    return [line for line in lines if any(line[1:])]


def parts_of(report: Report) -> list[tuple[str, Report]]:
    """Titles and tables."""
    name, kind = report["style"], "recordings, compared with the song" if report["kind"] == "recordings" else "held-out pieces"
    found = [(key, added, report if key == "rows" else report.get(key)) for key, (added, _) in TABLES.items()]
    counted = [(added, part, next(iter(part["rows"]["copy"].values()))["n"]) for _, added, part in found if part]
    return [(f"{name}{added}: {n} {kind if not added else 'pieces'}", part) for added, part, n in counted]


def markdown(report: Report) -> str:
    """The tables for README and cards: means, and for the style 95 % intervals."""
    return "\n".join(_markdown_table(title, lines_of(part, report["style"], span=True)) for title, part in parts_of(report))


def _markdown_table(title: str, lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(lines[0]) - 1)
    return "\n".join([title, "", *map(_markdown_line, (lines[0], rule, *lines[1:])), ""])


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def markdown_summary(reports: Sequence[Report]) -> str:
    """One table for several styles: a line a style, log-mel L1 of every row, and the part of the way. Recordings are in no such table."""
    fullest = sorted(reports, key=lambda report: -len(report["rows"]))  # whose order of rows has a place for all
    names = [*dict.fromkeys(row for r in fullest for row in r["rows"] if row not in (r["style"], *OF_THE_TRUTH)), "style", "ceiling"]
    lines = [_summary_line(report, names) for report in reports if report["way"]]
    if not lines:
        return ""
    heading = [_markdown_line(["log-mel L1, dB", *names, "part of the way", "pieces"]), _markdown_line(["---"] * (len(names) + 3))]
    return "\n".join(heading + lines) + "\n"


def _summary_line(report: Report, names: Sequence[str]) -> str:
    rows = {"style" if row == report["style"] else row: columns["log_mel_l1"] for row, columns in report["rows"].items()}
    reached = cell(report["way"][report["style"]], span=True, percent=True)
    return _markdown_line([report["style"], *(cell(rows.get(name)) for name in names), f"**{reached}**", str(len(report["pieces"]))])


def markdown_claims(reports: Sequence[Report]) -> str:
    """What the styles promise: a line a promise, a column a style, and whether it is kept."""
    promising = [report for report in reports if report["claims"]]
    if not promising:
        return ""
    text = [_markdown_line(["promise", *(report["style"] for report in promising)]), _markdown_line(["---"] * (len(promising) + 1))]
    for same in zip(*(report["claims"] for report in promising), strict=True):
        text.append(_markdown_line([same[0]["claim"], *map(_claim_cell, same)]))
    return "\n".join(text) + "\n"


def _claim_cell(claim: Mapping[str, Any]) -> str:
    numbers = claim["value"], claim["bound"]
    digits = next((n for n in (2, 3) if len({f"{number or 0:.{n}f}" for number in numbers}) == 2), 3)  # what is not kept is to be seen
    value, bound = ("NaN" if number is None else f"{number:.{digits}f}" for number in numbers)
    sign = {">=": "≥", "<=": "≤"}[claim["sign"]]
    note = f" ({claim['note']})" if claim["note"] else ""
    return (f"{value} {sign} {bound}" if claim["holds"] else f"**no:** {value}, not {sign} {bound}") + note


def card_metrics(report: Report) -> dict[str, dict[str, float]]:
    """The means of a report as a style's card keeps them: row → metric → value, ``way`` among them; nulls are left out."""
    rows: dict[str, dict[str, float]] = {}
    for row, columns in report["rows"].items():
        cells = {**columns, "way": report["way"][row]} if row in report["way"] else columns
        rows[row] = {metric: round(cell["mean"], 4) for metric, cell in cells.items() if cell["mean"] is not None}
    return rows


# --- console -----------------------------------------------------------------------------------------------------------------------


def show(report: Report, console: Console) -> None:
    """Print what matters most of the tables, the claims, what changed, and what went wrong; the rest is in the page."""
    name = report["style"]
    for title, part in parts_of(report):
        console.print(_console_table(title, part, name))
        spans = [cell(way_of(part, name), span=True, percent=True), cell(part["rows"][name].get("log_mel_l1"), span=True)]
        if spans[0]:
            _say(console, f"{name} (95 %): part of the way {spans[0]}, log-mel L1 {spans[1]} dB")
    for claim in report["claims"]:
        mark = "[green]yes[/]" if claim["holds"] else "[red]no [/]"
        console.print(f"{mark} {claim_text(claim)}", soft_wrap=True)
    for line in (*changes(report), *troubles(report)):
        _say(console, line)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _console_table(title: str, part: Report, name: str) -> Any:
    """A line a row, and as many metrics as a terminal is wide."""
    from rich.table import Table

    shown = Table(title=title)
    metrics = [metric for metric in SHOWN if metric in headings(part)]
    for heading in ("", "way", *(SHOWN[metric] for metric in metrics)):
        shown.add_column(heading, justify="right" if heading else "left", no_wrap=not heading)
    for row, cells in part["rows"].items():
        values = [cell(way_of(part, row), percent=True), *(cell(cells.get(metric)) for metric in metrics)]
        shown.add_row(row, *values, style="bold" if row == name else "")
    return shown


def claim_text(claim: Mapping[str, Any]) -> str:
    """A promise with its value and its bound."""
    value, bound = ("NaN" if number is None else f"{number:.3f}" for number in (claim["value"], claim["bound"]))
    return f"{claim['claim']}: {value} {claim['sign']} {bound}" + (f" ({claim['note']})" if claim["note"] else "")


def changes(report: Report) -> list[str]:
    """Lines of what changed beyond noise."""
    changes = report.get("compared")
    if not changes:
        return []
    cells = {metric: cell for metric, cell in changes["metrics"].items() if cell["changed"]}
    lines = [f"{cell['verdict']}: {COLUMNS.get(metric, metric)} {signed(cell)}" for metric, cell in cells.items()]
    n = max((cell["n"] for cell in changes["metrics"].values()), default=0)
    few = any(cell["changed"] is None and cell["mean"] is not None for cell in changes["metrics"].values())
    nothing = f"{bootstrap.LEAST_GROUPS} different songs at least tell a change from noise" if few else "nothing changed beyond noise"
    return [f"against {changes['style']} on {n} same passages: " + ("" if lines else nothing), *lines, *_left_out(changes)]


def _left_out(changes: Mapping[str, Any]) -> list[str]:
    """The line that says what could not be compared, if something could not."""
    named = ", ".join(COLUMNS[metric] for metric in changes["left_out"])
    return [f"not compared: {named}: they are of all passages together, and the two reports are not of the same ones"] if named else []


def signed(change: Mapping[str, Any]) -> str:
    """A difference with its interval, where it has one."""
    span = f" [{change['low']:+.3f}, {change['high']:+.3f}]" if change["low"] is not None else ""
    return f"{change['mean']:+.3f}{span}"


def troubles(report: Report) -> list[str]:
    """What a reader must know before believing the tables."""
    apart = [f"not compared: {report['not_compared']}"] if "not_compared" in report else []
    missing = [f"row {row}: {WHY_MISSING.get(row, 'not trained for this style')}" for row in report["missing"]]
    heard = [f"passed over: {path}: {reason}" for path, reason in report["refused"].items() if "was trained on" in reason]
    return [*apart, *missing, *heard, *(f"not scored: {path}: {reason}" for path, reason in report["failures"].items())]


# --- page --------------------------------------------------------------------------------------------------------------------------

LISTEN_LUFS = -20.0
MP3_LEVEL = 0.55  # of libsndfile, 0 to 1: about 120 kbit/s
CONTENT = ("chroma", "note_auc", "frame_f1", "flux", "onset_f1")  # what a result should keep; 1 is all of it
KEEPS = "frame_f1"  # how well recordings are ranked by

STYLE_SHEET = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; } h3 { margin-top: 1.6rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .87rem; }
th, td { padding: .2rem .55rem; text-align: right; border-bottom: 1px solid #eee; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid #999; vertical-align: bottom; }
.wide { overflow-x: auto; } .ours { background: #fff4e8; font-weight: 600; } .span { color: #666; font-weight: 400; font-size: .8em; }
.headline { font-size: 1.15rem; } .yes, .better { color: #2d6a1f; } .no, .worse { color: #a12622; font-weight: 600; }
.note { color: #555; } code, pre { background: #f4f4f4; border-radius: 4px; } code { padding: .1em .3em; }
pre { padding: .6rem .8rem; overflow-x: auto; } figure { margin: 1rem 0; } figcaption { color: #555; font-size: .87rem; }
svg, img { max-width: 100%; height: auto; } audio { width: 100%; height: 2.2rem; }
.listen { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .4rem 1rem; }
.listen p { margin: 0; font-weight: 600; }
summary { cursor: pointer; color: #0b6e99; margin: .6rem 0; }
"""


def page(reports: Sequence[Report], *, command: str = "", sounds: Path | None = None) -> str:
    """The whole page as HTML."""
    names = ", ".join(one["style"] for one in reports)
    body = [f"<h1>{_safe(names)}</h1>", _asked(reports[0], command), *(_section(one, sounds) for one in reports)]
    title = _safe(f"StyleStream: {names}")
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f"<head>{meta}<title>{title}</title><style>{STYLE_SHEET}</style></head>"
    return f'<!doctype html>\n<html lang="en">{head}\n<body>{"".join(body)}</body></html>'


def _safe(text: object) -> str:
    return html.escape(str(text))


def _asked(first: Report, command: str) -> str:
    """The command, the protocol, versions and hardware."""
    facts = {**first["made_with"], **{key: value for key, value in first["protocol"].items() if value is not None}}
    said = " · ".join(f"{_safe(key.replace('_', ' '))} <b>{_safe(value)}</b>" for key, value in facts.items())
    typed = f"<pre>{_safe(command)}</pre>" if command else ""
    return f'{typed}<p class="note">{said}</p>'


def _section(one: Report, sounds: Path | None) -> str:
    parts = [f"<h2>{_safe(one['style'])}</h2>", _headline(one), _rows_plot(one), _tables(one), _claims(one), _changed(one)]
    return "".join([*parts, _listening(one, sounds), _errors(one), _curves(one), _steps(one), _costs(one), _pieces(one), _troubles(one)])


def _headline(one: Report) -> str:
    reached = cell(way_of(one, one["style"]), span=True, percent=True)
    if reached:
        said = f"<b>{_safe(reached)}</b> of the way from the song to what a perfect canvas would give, on log-mel L1"
    else:
        said = (
            "Real songs have no truth: the table says what of the song is kept, as far as the estimators can tell. Rows <b>mp3</b> and "
            "<b>mild_eq</b> are the song itself, barely changed: more than they keep nobody can"
        )
    return f'<p class="headline">{said}; {len(one["pieces"])} passages, 95 % intervals over pieces.</p>'


# --- page: tables ------------------------------------------------------------------------------------------------------------------


def _table(heading: Sequence[str], lines: Sequence[Sequence[str]], *, ours: int = -1) -> str:
    """Cells are HTML. ``ours``: the column that the table is about."""
    marks = [' class="ours"' if i == ours else "" for i in range(len(heading))]
    head = "".join(f"<th{mark}>{cell}</th>" for mark, cell in zip(marks, heading, strict=True))
    body = "".join("<tr>" + "".join(f"<td{mark}>{cell}</td>" for mark, cell in zip(marks, line, strict=True)) + "</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _tables(one: Report) -> str:
    return "".join(f"<h3>{_safe(title)}</h3>{_metric_table(part, one['style'])}" for title, part in parts_of(one))


def _metric_table(part: Report, name: str) -> str:
    rows = part["rows"]
    lines = [["part of the way", *(_spanned(way_of(part, row), percent=True) for row in rows)]] if part["way"] else []
    lines += [[_safe(text), *(_spanned(cells.get(metric)) for cells in rows.values())] for metric, text in headings(part).items()]
    return _table(["", *map(_safe, rows)], lines, ours=1 + list(rows).index(name))


def _spanned(value: Mapping[str, Any] | None, *, percent: bool = False) -> str:
    """A mean, and under it its interval."""
    text = _safe(cell(value, span=True, percent=percent))
    mean, bracket, rest = text.partition(" [")
    return f'{mean}<br><span class="span">{bracket.strip()}{rest}</span>' if bracket else text


def _claims(one: Report) -> str:
    if not one["claims"]:
        return ""
    lines = [[_safe(claim_text(claim)), _mark(claim["holds"], "kept", "not kept")] for claim in one["claims"]]
    return f"<h3>Promises</h3>{_table(['promise', ''], lines)}"


def _mark(good: bool, yes: str, no: str) -> str:
    return f'<span class="yes">{yes}</span>' if good else f'<span class="no">{no}</span>'


def _changed(one: Report) -> str:
    compared = one.get("compared")
    if not compared:
        return ""
    lines = [
        [
            _safe(COLUMNS.get(metric, metric)),
            _safe(signed(cell)),
            f'<span class="{cell["verdict"].split()[0]}">{cell["verdict"]}</span>',
        ]
        for metric, cell in compared["metrics"].items()
        if cell["mean"] is not None
    ]
    note = f"Difference to {_safe(compared['style'])} of the other report, piece by piece; one value in twenty changes by chance."
    if any(metric in compared["metrics"] for metric in OF_SETS):
        note += " What is asked of all passages together (KAD, FAD, judge AUC) is compared by the two intervals, which is stricter."
    note = " ".join([note, *(f"{_safe(line)}." for line in _left_out(compared))])
    return f'<h3>What changed</h3><p class="note">{note}</p>{_table(["", "difference [95 %]", ""], lines)}'


def _costs(one: Report) -> str:
    lines = [[_safe(row), f"{seconds:.2f}"] for row, seconds in one["cost"].items()]
    note = "Seconds to make each row of a passage, where it was first made; baselines are kept and not made again."
    return f'<details><summary>Cost</summary><p class="note">{note}</p>{_table(["row", "seconds a passage"], lines)}</details>'


def _pieces(one: Report) -> str:
    """Every single score of the style."""
    name, metrics = one["style"], headings(one)
    lines = [
        [_safe(piece["path"]), f"{piece['start_seconds']:.1f} s", *(_number(piece["rows"][name].get(metric)) for metric in metrics)]
        for piece in one["pieces"]
    ]
    table = _table(["passage", "from", *map(_safe, metrics.values())], lines)
    return f"<details><summary>Every passage</summary>{table}</details>"


def _number(value: float | None) -> str:
    return "NaN" if value is None else f"{value:.2f}"


def _troubles(one: Report) -> str:
    refused = [f"passed over: {path}: {reason}" for path, reason in one["refused"].items() if "was trained on" not in reason]
    said = [f"{piece['path']}: {text}" for piece in one["pieces"] for text in piece["warnings"]]
    lines = "".join(f"<li>{_safe(text)}</li>" for text in (*troubles(one), *refused, *said))
    return f"<h3>To be known</h3><ul>{lines}</ul>" if lines else ""


# --- page: plots -------------------------------------------------------------------------------------------------------------------


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{_safe(caption)}</figcaption></figure>"


def _rows_plot(one: Report) -> str:
    if not one["way"]:
        return ""
    cells = {row: columns["log_mel_l1"] for row, columns in one["rows"].items() if row != "truth"}
    values = {
        row: tuple(cell["mean"] if cell[key] is None else cell[key] for key in ("mean", "low", "high"))
        for row, cell in cells.items()
        if cell["mean"] is not None
    }
    svg = plots.plot_dots(values, label="log-mel L1 to the truth, dB (less is closer)", highlight=one["style"])
    return _figure(svg, "How far every row is from the truth: means over passages with 95 % intervals.")


def _errors(one: Report) -> str:
    titles = {"octave": "octave", "since_onset": "since the last onset", "polyphony": "notes sounding"}
    rows = one["errors"]
    if not rows or one["kind"] == "recordings":
        return ""
    panels = []
    for axis, title in titles.items():
        places = [place for place in next(iter(rows.values()))[axis] if any(rows[row][axis][place]["n"] for row in rows)]
        panels.append((title, places, {row: _curve([rows[row][axis][place] for place in places]) for row in rows}))
    svg = plots.plot_lines(panels, label="log-mel L1, dB")
    return "<h3>Where the error is</h3>" + _figure(svg, "By octave, by the time since the last onset, and by how many notes sound.")


def _curve(cells: Sequence[Mapping[str, Any]]) -> plots.Curve:
    mean, low, high = ([math.nan if cell[key] is None else cell[key] for cell in cells] for key in ("mean", "low", "high"))
    return mean, low, high


def _curves(one: Report) -> str:
    """Content kept against style reached, as the dials turn."""
    if not one["curves"]:
        return ""
    dials = {dial: one["curves"][dial] for dial in ("strength", "dream")}
    kept = [(dial, list(swept), {COLUMNS[m]: _swept(swept, m) for m in CONTENT}) for dial, swept in dials.items()]
    reached = [(dial, list(swept), {one["style"]: _swept(swept, "log_mel_l1")}) for dial, swept in dials.items()]
    count = next(iter(dials["strength"].values()))["chroma"]["n"]
    return "".join(
        [
            "<h3>The dials</h3>",
            _figure(
                plots.plot_lines(kept, label="content kept"), f"What is kept of the song's notes, harmony and rhythm; {count} passages."
            ),
            _figure(plots.plot_lines(reached, label="log-mel L1 to the truth, dB"), "How far the style is from being reached."),
        ]
    )


def _swept(swept: Mapping[str, Any], metric: str) -> plots.Curve:
    return _curve([scores[metric] for scores in swept.values()])


def _steps(one: Report) -> str:
    """What each latent step tells, and what is lost with it."""
    if not one["curves"]:
        return ""
    steps, whole = one["curves"]["steps"], one["curves"]["dream"]["0"]
    places = [str(k + 1) for k in range(len(steps))]
    told = [("KL, nats a cell", places, {"KL": _curve([step["kl"] for step in steps])})]
    grew = [("change of the canvas, dB", places, {"dB": _curve([step["grew_db"] for step in steps])})]
    lines = [
        [
            str(k + 1),
            _spanned(step["kl"]),
            _spanned(step["grew_db"]),
            *(_lost(step["without"][m], whole[m]) for m in ("log_mel_l1", *CONTENT)),
        ]
        for k, step in enumerate(steps)
    ]
    heading = ["step", "KL", "canvas, dB", *(_safe(COLUMNS[m]) for m in ("log_mel_l1", *CONTENT))]
    note = (
        "What every step tells about the song (KL to the style's own expectation), by how much it changes the canvas, and how the scores "
        "change when its latents are the style's own."
    )
    figures = _figure(plots.plot_lines(told, label="nats a cell"), "") + _figure(plots.plot_lines(grew, label="dB"), "")
    return f'<h3>The steps</h3><p class="note">{note}</p><div class="listen">{figures}</div>{_table(heading, lines)}'


def _lost(without: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    if without["mean"] is None or whole["mean"] is None:
        return "NaN"
    return f"{without['mean'] - whole['mean']:+.3f}"


# --- page: sound -------------------------------------------------------------------------------------------------------------------


def cases(one: Report) -> list[tuple[str, Report]]:
    """The best, the median and the worst passage: by the part of the way, of recordings by the notes that are kept."""
    ranked = sorted(((_merit(piece, one["style"]), piece["path"]) for piece in one["pieces"]), reverse=True)
    pieces = {piece["path"]: piece for piece in one["pieces"]}
    places = dict.fromkeys((0, len(ranked) // 2, len(ranked) - 1))
    names = ("best", "median", "worst") if len(places) == 3 else ("best", "worst")
    return [(f"{name} ({ranked[i][0]:.2f})", pieces[ranked[i][1]]) for name, i in zip(names, places, strict=False)]


def _merit(piece: Report, name: str) -> float:
    rows = piece["rows"]
    try:
        if "ceiling" not in rows:
            return float(rows[name][KEEPS])
        copied, ours, best = (rows[row]["log_mel_l1"] for row in ("copy", name, "ceiling"))
        return float((copied - ours) / (copied - best)) if copied > best else -math.inf
    except (TypeError, ZeroDivisionError):  # a value is NaN
        return -math.inf


def _listening(one: Report, sounds: Path | None) -> str:
    if sounds is None or not sounds.is_dir():
        return ""
    ranked = "the notes that are kept" if one["kind"] == "recordings" else "the part of the way"
    heard = "".join(_case(title, piece, one, sounds) for title, piece in cases(one))
    return f'<h3>To be heard</h3><p class="note">The best, the median and the worst passage by {ranked}, all at one loudness.</p>{heard}'


def _case(title: str, piece: Report, one: Report, sounds: Path) -> str:
    named = {"song": "song", "style": one["style"], "truth": "truth"}
    there = {shown: kept_sound(sounds, one["style"], part, piece["id"]) for part, shown in named.items()}
    played = {shown: y for shown, y in there.items() if y is not None}
    players = "".join(f"<div><p>{_safe(shown)}</p>{_player(y)}</div>" for shown, y in played.items())
    picture = base64.b64encode(plots.plot_spectrograms(played, SAMPLE_RATE)).decode()
    image = f'<img alt="spectrograms of {_safe(", ".join(played))}" src="data:image/jpeg;base64,{picture}">'
    return f'<h4>{_safe(title)}: {_safe(piece["path"])}</h4><div class="listen">{players}</div><figure>{image}</figure>'


def _player(y: Array) -> str:
    return f'<audio controls preload="metadata" src="data:audio/mpeg;base64,{base64.b64encode(encode(y)).decode()}"></audio>'


def encode(y: Array) -> bytes:
    """A waveform (C, N) at 44.1 kHz as MP3 of about 120 kbit/s, at −20 LUFS where its peaks allow."""
    import soundfile

    from stylestream.audio import loudness

    level = loudness(y, SAMPLE_RATE)
    gain = 10 ** ((LISTEN_LUFS - level) / 20) if math.isfinite(level) else 1.0
    gain = min(gain, 0.97 / max(float(np.abs(y).max(initial=0.0)), 1e-9))
    file = io.BytesIO()
    soundfile.write(file, (y[:2] * gain).T, SAMPLE_RATE, format="MP3", compression_level=MP3_LEVEL)
    return file.getvalue()


# --- all of it, into a folder ------------------------------------------------------------------------------------------------------


def write(reports: Sequence[Report], folder: str | Path, *, command: str = "", sounds: str | Path | None = None) -> Path:
    """Write ``report.json``, ``report.html``, ``report.md`` and ``summary.md``, each whole or not at all.

    Parameters
    ----------
    command : str
        What was asked for, as it can be typed again.
    sounds : path, optional
        Where ``evaluate_all`` left the songs (``keep``); without it the page has nothing to listen to.

    Returns
    -------
    Path
        Of the page.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    summary = [markdown_summary(reports).strip(), markdown_claims(reports).strip()]
    tables = [markdown(one).strip() for one in reports]
    _write(folder / "summary.md", "\n\n".join(part for part in summary if part))
    _write(folder / "report.md", "\n\n".join(part for part in summary + tables if part))
    _write(folder / "report.json", json.dumps(as_json(reports, command), indent=1, ensure_ascii=False, allow_nan=False))
    _write(folder / "report.html", page(reports, command=command, sounds=None if sounds is None else Path(sounds)))
    return folder / "report.html"


def _write(path: Path, text: str) -> None:
    from stylestream.files import whole_file

    with whole_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
