"""The run report: one self-contained HTML page from the figures of report.json. Counts only: it never sees a note.

The page holds its own style and drawings (inline CSS and SVG), loads nothing and runs no script. Everything that is shown is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline.record_alarm import written_figures
from schemas.reasons import FLAGS, REASONS, RETRIES
from transforms.checks import INFORMATIVE

# The texts of the codes, REASONS and FLAGS, stand in schemas/reasons.py.
HISTOGRAMS: dict[str, tuple[str, str]] = {
    "note_words": ("Length of the notes", "words"),
    "summary_words": ("Length of the summaries", "words"),
    "coverage": ("Wording taken from the note", "share of its words in passages copied from the note"),
    "compression": ("Compression", "note words per summary word"),
    "omission": ("Left out of the summaries", "share of the note's drugs, problems and procedures, by weight"),
    "windows": ("Windows per note", "parts that the model read one by one"),
}
FIELDS: dict[str, str] = {
    "age": "Age", "sex": "Sex", "problems": "Problems", "medications": "Medications", "allergies": "Allergies",
    "observations": "Observations (vital signs, laboratory)", "procedures": "Procedures", "follow_up": "Follow-up",
}  # fmt: skip
SENTENCES: dict[str, str] = {
    "exact": "Copied from the note", "lexical": "Reworded; its source found by its words",
    "semantic": "Reworded; its source found by sentence embeddings", "unsupported": "No source found in the note",
}  # fmt: skip
STAGES: dict[str, str] = {
    "read": "Read the notes", "validate": "Check them against the contract", "segment": "Cut them into sentences",
    "generate": "Write the summaries", "record": "Fill the records",
    "evidence": "Look up the evidence", "verify": "Check the summaries", "commit": "Store the results",
}  # fmt: skip
TOKENS: dict[str, str] = {
    "source": "Read by the model", "generated": "Written by the model", "padded": "Padding (computed, not used)",
    "truncated": "Dropped (tokens that no pass has read)",
}  # fmt: skip

# Drawing space of a histogram in SVG units.
_WIDTH, _HEIGHT, _BASE = 360.0, 132.0, 112.0


def render_report(report: Mapping[str, Any]) -> str:
    """The page for the figures of report.json. Missing or empty parts are left out or said to be empty; nothing is required."""
    template = _environment().get_template("report.html")
    return str(template.render(page=page_of(report)))


@cache
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, share=share_text, seconds=duration)
    return environment


def number(value: object) -> str:
    """Digits in groups of three; floats with at most four significant digits; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    if isinstance(value, int) or value.is_integer():
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4g}"


def share_text(value: object) -> str:
    """A share 0-1 in percent. What is not quite none or all never reads as none or all."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    percent = 100 * value
    if 0 < percent < 0.01:
        return "< 0.01 %"
    if 99.99 < percent < 100:
        return "> 99.99 %"
    return f"{percent:.2f}".rstrip("0").rstrip(".") + " %"


def duration(value: object) -> str:
    """Seconds as people say them: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–"
    if value < 60:
        return f"{value:.0f} s" if value >= 10 else f"{value:.2g} s"
    if value < 3600:
        minutes, seconds = divmod(round(value), 60)
        return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"
    hours, minutes = divmod(round(value / 60), 60)
    return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"


def page_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows, with every part present."""
    notes_in, summarized, quarantined = (_count(report, f"notes_{name}") for name in ("in", "summarized", "quarantined"))
    seconds, flags = _mapping(report, "seconds"), _mapping(report, "flags")
    return {
        "run_id": report.get("run_id") or "unnamed run",
        "version": report.get("version"),
        # ISO 8601 in UTC, as people write it.
        "created_at": str(report.get("created_at") or "").replace("T", " ").replace("Z", " UTC"),
        "verdict": _verdict(report),
        "notes_in": notes_in,
        "summarized": summarized,
        "quarantined": quarantined,
        "balanced": notes_in == summarized + quarantined,
        "parts": [(name, _ratio(part, notes_in)) for name, part in (("summarized", summarized), ("quarantined", quarantined))],
        "files_quarantined": _count(report, "files_quarantined"),
        "flagged": _count(report, "notes_flagged"),
        "warned": _count(report, "notes_warned"),
        "remaining": (_count(report, "remaining_notes"), _count(report, "remaining_shards")),
        "shards": (_count(report, "shards"), _count(report, "shards_resumed")),
        "reasons": _bars(_mapping(report, "reasons"), REASONS, sum(_mapping(report, "reasons").values())),
        "expectations": [_rule(rule) for rule in report.get("expectations") or ()],
        "flags": _bars({code: n for code, n in flags.items() if code not in INFORMATIVE}, FLAGS, summarized),
        "asides": _bars({code: n for code, n in flags.items() if code in INFORMATIVE}, FLAGS, summarized),
        "fields": _in_order(_mapping(report, "fields"), FIELDS, summarized),
        "written": written_figures(_mapping(report, "records")),
        "records_off": _mapping(_mapping(_mapping(report, "settings"), "tasks"), "record").get("reader") == "off",
        "sentences": _in_order(_mapping(report, "sentences"), SENTENCES, sum(_mapping(report, "sentences").values())),
        "histograms": list(_histograms(_mapping(report, "histograms"))),
        "retries": _bars(_mapping(report, "retries"), RETRIES, sum(_mapping(report, "retries").values())),
        "tokens": _in_order(_mapping(report, "tokens"), TOKENS, _mapping(report, "tokens").get("source") or 0),
        "seconds": _in_order(seconds, STAGES, sum(seconds.values())),
        "notes_per_second": report.get("notes_per_second"),
        "checks": list(_mapping(report, "gate").get("checks") or ()),
        "model": _pairs(_mapping(report, "model")),
        "versions": sorted(_mapping(report, "versions").items()),
        "settings": _pairs(_mapping(report, "settings")),
        "formats": _pairs(_mapping(report, "formats")),
        "total": _said(_mapping(report, "total")),
        "run": _said({name: figure for name, figure in _mapping(report, "run").items() if name != "retries"}),
    }


def _mapping(report: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return report.get(key) or {}


def _count(report: Mapping[str, Any], key: str) -> int:
    return int(report.get(key) or 0)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _verdict(report: Mapping[str, Any]) -> dict[str, str]:
    """The headline: `tone` (good, held, open), `title`, and one or two plain sentences."""
    gate = _mapping(report, "gate")
    failed = [str(check.get("description") or check.get("name")) for check in gate.get("checks") or () if not check.get("passed")]
    accepted = gate.get("accepted")
    remaining = _count(report, "remaining_notes")
    if report.get("complete") is False or _count(report, "remaining_shards"):
        return {
            "tone": "open",
            "title": "Not finished yet",
            "text": f"{remaining:,} notes are still to do. The same command goes on where this run stopped; figures below are so far.",
        }
    if not gate:
        return {"tone": "open", "title": "No gate was evaluated", "text": "Nothing says whether these results may be used."}
    if gate.get("passed"):
        return {"tone": "good", "title": "The run passed its gate", "text": "Every limit that was set for this run was kept."}
    were = "was" if len(failed) == 1 else "were"
    missed = f"{len(failed)} of {len(gate.get('checks') or ())} limits {were} not kept" + (f": {'; '.join(failed)}." if failed else ".")
    if accepted:
        when, why = accepted.get("at") or "at an unknown time", accepted.get("reason") or "no reason was given"
        return {"tone": "held", "title": "Released by hand", "text": f"{missed} A person accepted the results ({when}): {why}"}
    return {"tone": "bad", "title": "Held by its gate", "text": f"{missed} The results are stored but have not been released."}


def _bars(counts: Mapping[str, int], meanings: Mapping[str, str], whole: int) -> list[dict[str, Any]]:
    """Codes by falling count, with their meaning and their share of `whole`."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"code": code, "meaning": meanings.get(code, ""), "count": count, "share": _ratio(count, whole)} for code, count in ranked]


def _in_order(figures: Mapping[str, float], names: Mapping[str, str], whole: float) -> list[dict[str, Any]]:
    """Known figures in their natural order under their names, then unknown ones, each with its share of `whole`."""
    keys = [*(key for key in names if key in figures), *sorted(set(figures) - set(names))]
    return [{"name": names.get(key, key), "value": figures[key], "share": min(1.0, _ratio(figures[key], whole))} for key in keys]


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    """One rule of the contract; a rule that crashed anywhere has not passed."""
    crashed = int(rule.get("crashed") or 0)
    return {
        "description": rule.get("description") or rule.get("expectation") or rule.get("key") or "",
        "key": rule.get("key") or "",
        "column": rule.get("column") or "",
        "severity": rule.get("severity") or "",
        "reason": rule.get("reason") or "",
        "evaluated": int(rule.get("evaluated") or 0),
        "unexpected": int(rule.get("unexpected") or 0),
        "crashed": crashed,
        "share": rule.get("unexpected_share"),
        "passed": bool(rule.get("success")) and not crashed,
    }


def _histograms(histograms: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    names = [*(name for name in HISTOGRAMS if name in histograms), *sorted(set(histograms) - set(HISTOGRAMS))]
    for name in names:
        edges, counts = histograms[name].get("edges") or (), histograms[name].get("counts") or ()
        if len(counts) != len(edges) + 1 or not edges:
            continue
        title, unit = HISTOGRAMS.get(name, (name, ""))
        labels = _bin_labels(edges)
        yield {
            "name": name,
            "title": title,
            "unit": unit,
            "total": sum(counts),
            "bars": _columns(_ticks(edges), labels, counts),
            "rows": list(zip(labels, counts, strict=True)),
        }


def _bin_labels(edges: Sequence[float]) -> list[str]:
    """One label per bin: the first is below the first edge, the last at or above the last."""
    inner = [f"{number(low)} to under {number(high)}" for low, high in pairwise(edges)]
    return [f"under {number(edges[0])}", *inner, f"{number(edges[-1])} or more"]


def _ticks(edges: Sequence[float]) -> list[str]:
    """The lower edge of each bin, short enough to stand under a narrow column: <10, 10, 20, ..., 1.5k, 2k+."""
    short = [f"{edge / 1000:g}k" if edge >= 1000 else f"{edge:g}" for edge in edges]
    return [f"<{short[0]}", *short[:-1], f"{short[-1]}+"]


def _columns(ticks: Sequence[str], labels: Sequence[str], counts: Sequence[int]) -> list[dict[str, Any]]:
    """Rectangles in the drawing space; a count above zero is never invisible."""
    step, most = _WIDTH / len(counts), max([*counts, 1])
    bars = []
    for i, (tick, label, count) in enumerate(zip(ticks, labels, counts, strict=True)):
        height = max(2.0, (_BASE - 14) * count / most) if count else 0.0
        bars.append({
            "x": round(i * step + step * 0.09, 2), "width": round(step * 0.82, 2), "y": round(_BASE - height, 2),
            "height": round(height, 2), "middle": round((i + 0.5) * step, 2), "edge": tick,
            "label": label, "count": count, "top": count == most,
        })  # fmt: skip
    return bars


def _said(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), text) for name, text in _pairs(figures)]


def _pairs(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, text)."""
    pairs: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            pairs += _pairs(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            pairs.append((prefix + str(key), ", ".join(str(item) for item in value)))
        else:
            pairs.append((prefix + str(key), "yes" if value is True else "no" if value is False else number(value)))
    return pairs
