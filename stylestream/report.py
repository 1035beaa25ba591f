"""Reports → JSON for programs; tables for the README, the cards and the console; what changed against another report.

``report.json`` is a style's report as ``evaluate`` made it; of several styles, ``styles`` has one by name. The Markdown is what
``tools/fill`` puts into the documentation. The page to look at and listen to is in ``page.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylestream import bootstrap
from stylestream.evaluate import COLUMNS, OF_THE_TRUTH

if TYPE_CHECKING:
    from rich.console import Console

Report = Mapping[str, Any]

LESS_IS_BETTER = ("log_mel_l1", "lsd", "lsd_16k", "mr_stft", "mfcc", "centroid")
MORE_IS_BETTER = (
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
        reports = value["styles"] if "styles" in value else {value["style"]: value}
        for report in reports.values():
            _ = report["style"], report["rows"], report["pieces"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{path}: not a report; `stylestream evaluate` writes them as report.json") from None
    return reports


def compare(report: Report, others: Mapping[str, Report]) -> dict[str, Any]:
    """What changed beyond noise against another evaluation: of the same style, or of the only one there is.

    Raises
    ------
    ValueError
        If the other has no such style, or no passage in common.
    """
    name = report["style"]
    if name not in others and len(others) > 1:
        raise ValueError(f"--compare: no style {name!r} there, but {', '.join(others)}")
    other = others.get(name) or next(iter(others.values()))
    cells = bootstrap.difference(report["pieces"], other["pieces"], (name, other["style"]))
    metrics = {metric: cell | {"verdict": _verdict(metric, cell, report, name)} for metric, cell in cells.items()}
    return {"style": other["style"], "made_with": other.get("made_with", {}), "metrics": metrics}


def _verdict(metric: str, cell: Mapping[str, Any], report: Report, name: str) -> str:
    if not cell["changed"]:
        return "within noise"
    now = report["rows"][name][metric]["mean"]
    if metric in LESS_IS_BETTER:
        return "better" if cell["mean"] < 0 else "worse"
    if metric in MORE_IS_BETTER:
        return "better" if cell["mean"] > 0 else "worse"
    return "better" if now is not None and abs(now) < abs(now - cell["mean"]) else "worse"  # of the others 0 is best


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
    names = [*dict.fromkeys(row for r in reports for row in r["rows"] if row not in (r["style"], *OF_THE_TRUTH)), "style", "ceiling"]
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
    value, bound = ("NaN" if number is None else f"{number:.2f}" for number in (claim["value"], claim["bound"]))
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
    cells = {metric: cell for metric, cell in changes["metrics"].items() if cell["verdict"] != "within noise"}
    lines = [f"{cell['verdict']}: {COLUMNS.get(metric, metric)} {signed(cell)}" for metric, cell in cells.items()]
    n = max((cell["n"] for cell in changes["metrics"].values()), default=0)
    return [f"against {changes['style']} on {n} same passages: " + ("" if lines else "nothing changed beyond noise"), *lines]


def signed(change: Mapping[str, Any]) -> str:
    """A difference with its interval."""
    return f"{change['mean']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]"


def troubles(report: Report) -> list[str]:
    """What a reader must know before believing the tables."""
    missing = [f"row {row}: {WHY_MISSING.get(row, 'not trained for this style')}" for row in report["missing"]]
    heard = [f"passed over: {path}: {reason}" for path, reason in report["refused"].items() if "was trained on" in reason]
    return [*missing, *heard, *(f"not scored: {path}: {reason}" for path, reason in report["failures"].items())]
