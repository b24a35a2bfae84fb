"""Precision, recall and F1 of values, pooled over notes, with an interval of the micro F1. It sees counts only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.evaluation.bootstrap import interval_of, resampled_means
from pipeline.evaluation.record_matching import MISSED, Matched, Tally


def record_figures(matched: Sequence[Matched], fields: Iterable[str], resamples: int, seed: int) -> dict[str, Any]:
    """All figures of the notes' counts: percent, None where there was nothing to count. `fields` in the order to tell them."""
    names = tuple(fields)
    texts = [note.text for note in matched]
    return {
        **_pooled(texts, names),
        "micro_f1_interval": _interval(texts, resamples, seed),
        **_assertion_figures(matched),
        "offsets": _offset_figures(matched, names),
    }


def _pooled(tallies: Sequence[Tally], fields: Sequence[str]) -> dict[str, Any]:
    pooled = Tally()
    for tally in tallies:
        for total, counts in ((pooled.right, tally.right), (pooled.said, tally.said), (pooled.gold, tally.gold)):
            total.update(counts)
    known = [name for name in fields if pooled.gold[name] or pooled.said[name]]
    micro = _scores(pooled.right.total(), pooled.said.total(), pooled.gold.total())
    return {
        "fields": {
            name: {**_scores(pooled.right[name], pooled.said[name], pooled.gold[name]), "n": pooled.gold[name], "said": pooled.said[name]}
            for name in known
        },
        **{f"micro_{name}": score for name, score in micro.items()},
    }


def _scores(right: int, said: int, gold: int) -> dict[str, float | None]:
    return {"precision": _percent(right, said), "recall": _percent(right, gold), "f1": _percent(2 * right, said + gold)}


def _percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 3) if whole else None


def _interval(tallies: Sequence[Tally], resamples: int, seed: int) -> list[float] | None:
    """Of the micro F1, which is a mean over values; notes that neither gold nor we say anything of have no part in it."""
    counts = [(2 * tally.right.total(), tally.said.total() + tally.gold.total()) for tally in tallies]
    told = [(right, values) for right, values in counts if values]
    if not told:
        return None
    right, values = zip(*told, strict=True)
    found = interval_of(0.0, 100 * resampled_means(right, values, resamples, seed)[:, 0])
    return [round(found.low, 3), round(found.high, 3)]


def _assertion_figures(matched: Sequence[Matched]) -> dict[str, Any]:
    """`assertion_accuracy`: of found values that gold asserts, how many say the same. `assertions`: gold's, then ours or missed."""
    told: Counter[tuple[str, str]] = Counter()
    for note in matched:
        told.update(note.assertions)
    found = {pair: count for pair, count in told.items() if pair[1] != MISSED}
    same = sum(count for (gold, ours), count in found.items() if gold == ours)
    table: dict[str, dict[str, int]] = {}
    for (gold, ours), count in sorted(told.items()):
        table.setdefault(str(gold), {})[ours] = count
    return {"assertion_accuracy": _percent(same, sum(found.values())), "assertions": table}


def _offset_figures(matched: Sequence[Matched], fields: Sequence[str]) -> Mapping[str, Any] | None:
    """The same by offsets; None where gold lacks any."""
    tallies = [note.offsets for note in matched if note.offsets is not None]
    if len(tallies) < len(matched) or not any(tally.gold for tally in tallies):
        return None
    return _pooled(tallies, fields)
