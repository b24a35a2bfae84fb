"""What the entrants' work comes to: scores, flags, speed, memory and cost, each with an interval, and differences note by note."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any

from pipeline.comparison.contenders import Entrant
from pipeline.comparison.pareto import pareto_front
from pipeline.comparison.runs import Ran, Written
from pipeline.evaluation.bootstrap import Interval, interval_of_difference, interval_of_mean
from pipeline.gate import check_gate
from schemas.commit import RunStats

SCORES = ("rouge1", "rouge2", "rougeLsum")
_SECONDS_PER_HOUR = 3600
_PER = 1000
_NONE = Interval(0.0, 0.0, 0.0)

Scorer = Callable[[Sequence[str], Sequence[str]], Sequence[Sequence[float]]]


@dataclass(frozen=True, slots=True)
class Terms:
    """How it is judged. `against`: name of the reference point. `by`: one of SCORES. `margin`: points of it that may be lost. `limits`: the
    gate section of a job. `repeats`: turns that count."""

    against: str
    by: str
    margin: float
    limits: Mapping[str, Any]
    repeats: int


@dataclass(frozen=True, slots=True)
class Difference:
    """An entrant less the reference point, over the same notes.

    `scores`: points (0-100), empty without reference texts. `flags_per_100`: summaries flagged, of notes that both summarized; None where
    there are none.
    `times_faster`, `times_cheaper`: the median over rounds of turns with the least and the most (not an interval of confidence);
    `times_cheaper` is None without prices. `same_share`: share (0-1) of notes with the same summary. `agreement`: mean ROUGE-1 (0-100) of
    the one's summaries against the other's; told only where there are no reference texts and ROUGE is installed.
    """

    scores: Mapping[str, Interval]
    flags_per_100: Interval | None
    times_faster: Interval
    times_cheaper: Interval | None
    same_share: float
    agreement: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """One entrant. `failure`: why it could not run; then the figures mean nothing.

    `scores`: mean F1 (0-100), failed notes as 0; empty without reference texts. `flagged`: summaries with a flag that counts, of
    `summarized`; `flags_per_100`: the same per 100. `codes`: summaries with each flag, counting or not. `failed`: notes by reason.
    `cost_per_1000`: notes, in the price's currency. `gate`: as `check_gate` gives it. `difference`: None for the reference point itself.
    """

    name: str
    settings: Mapping[str, Any]
    failure: str | None = None
    ran: Ran | None = field(default=None, repr=False)
    scores: Mapping[str, Interval] = field(default_factory=dict)
    summarized: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    flagged: int = 0
    flags_per_100: Interval = _NONE
    codes: Mapping[str, int] = field(default_factory=dict)
    gate: Mapping[str, Any] = field(default_factory=dict)
    cost_per_1000: float | None = None
    difference: Difference | None = None
    on_front: bool = False

    @property
    def passes_gate(self) -> bool:
        return self.failure is None and bool(self.gate["passed"])

    @property
    def seconds_per_1000(self) -> float:
        return _PER / self.speed

    @property
    def speed(self) -> float:
        """Notes per second."""
        assert self.ran is not None
        return self.ran.notes_per_second

    @property
    def expense(self) -> float:
        """What is to be saved: cost per 1,000 notes, or seconds where no price is known."""
        return self.seconds_per_1000 if self.cost_per_1000 is None else self.cost_per_1000

    def quality(self, by: str) -> Interval:
        """A score, or, without reference texts, summaries per 100 without a flag that counts. More is better."""
        if by in self.scores:
            return self.scores[by]
        flags = self.flags_per_100
        return Interval(100 - flags.value, 100 - flags.high, 100 - flags.low)


@dataclass(frozen=True, slots=True)
class Paired:
    """One entrant's scores note by note, beside its row."""

    row: Row
    scores: Mapping[str, Sequence[float]] = field(repr=False)


def rows_of(
    entrants: Sequence[Entrant],
    ran: Mapping[str, Ran],
    failures: Mapping[str, str],
    references: Sequence[str] | None,
    terms: Terms,
    score: Scorer | None,
) -> tuple[Row, ...]:
    """A row per entrant, in order. `references`: one right summary per note, None if there are none. `score`: of candidates against
    references (0-100), in the order of SCORES; None where that cannot be had, which is no harm without references."""
    alone = {
        entrant.name: _alone(entrant, ran[entrant.name], references, terms.limits, score)
        if entrant.name in ran
        else Paired(Row(entrant.name, entrant.settings, failures[entrant.name]), {})
        for entrant in entrants
    }
    prices = {entrant.name: entrant.price_per_hour for entrant in entrants}
    agreement = score if references is None else None
    rows = [_beside(mine, alone[terms.against], prices, agreement) for mine in alone.values()]
    return _with_front(rows, terms.by)


def _alone(entrant: Entrant, ran: Ran, references: Sequence[str] | None, limits: Mapping[str, Any], score: Scorer | None) -> Paired:
    scores = _scores(ran.summaries, references, score) if references is not None and score else {}
    written = [one for one in ran.summaries if not one.failed]
    flagged = sum(one.flagged for one in written)
    row = Row(
        entrant.name,
        entrant.settings,
        ran=ran,
        scores={name: interval_of_mean(values) for name, values in scores.items()},
        summarized=len(written),
        failed=Counter(one.failed for one in ran.summaries if one.failed),
        flagged=flagged,
        flags_per_100=wilson_interval(flagged, len(written)),
        codes=Counter(code for one in written for code in one.flags),
        gate=_gate(len(ran.summaries), len(written), flagged, limits),
        cost_per_1000=None if entrant.price_per_hour is None else cost_per_1000(entrant.price_per_hour, ran.notes_per_second),
    )
    return Paired(row, scores)


def _scores(summaries: Sequence[Written], references: Sequence[str], score: Scorer) -> dict[str, Sequence[float]]:
    found = score([one.text for one in summaries], references)
    return {name: [values[i] for values in found] for i, name in enumerate(SCORES)}


def _gate(notes: int, summarized: int, flagged: int, limits: Mapping[str, Any]) -> dict[str, Any]:
    """The very gate of a job, but for its contract and its files, which play no part here."""
    stats = RunStats(notes_in=notes, notes_summarized=summarized, notes_quarantined=notes - summarized, notes_flagged=flagged)
    found = check_gate(stats, (), {}, {**limits, "contract": "ignore"})
    return {**found, "checks": [check for check in found["checks"] if check["name"] in limits]}


def cost_per_1000(price_per_hour: float, notes_per_second: float) -> float:
    """What 1,000 notes cost on a machine of this price that does nothing else."""
    return price_per_hour / _SECONDS_PER_HOUR * _PER / notes_per_second


def wilson_interval(part: int, whole: int) -> Interval:
    """A share per 100 with its 95 % interval, which is not empty where nothing, or everything, was found (Wilson 1927, doi
    10.1080/01621459.1927.10502953). 0 to 100 of nothing."""
    if not whole:
        return Interval(0.0, 0.0, 100.0)
    z, share = 1.959964, part / whole
    middle = (share + z * z / (2 * whole)) / (1 + z * z / whole)
    half = z / (1 + z * z / whole) * (share * (1 - share) / whole + z * z / (4 * whole * whole)) ** 0.5
    return Interval(100 * share, 100 * max(0.0, middle - half), 100 * min(1.0, middle + half))


def _beside(mine: Paired, base: Paired, prices: Mapping[str, float | None], score: Scorer | None) -> Row:
    row = mine.row
    if row is base.row or row.ran is None or base.row.ran is None:
        return row
    pairs = list(zip(row.ran.summaries, base.row.ran.summaries, strict=True))
    both = [(one, other) for one, other in pairs if not one.failed and not other.failed]
    faster = [own / theirs for own, theirs in zip(row.ran.rates, base.row.ran.rates, strict=True)]
    price, base_price = prices[row.name], prices[base.row.name]
    priced = price is not None and base_price is not None
    difference = Difference(
        {name: interval_of_difference(values, base.scores[name]) for name, values in mine.scores.items()},
        interval_of_difference([100.0 * one.flagged for one, _ in both], [100.0 * other.flagged for _, other in both]) if both else None,
        _range(faster),
        _range([times * base_price / price for times in faster]) if priced and price and base_price else None,
        sum(one.text == other.text for one, other in pairs) / len(pairs),
        _agreement(both, score),
    )
    return replace(row, difference=difference)


def _agreement(both: Sequence[tuple[Written, Written]], score: Scorer | None) -> float | None:
    if not both or score is None:
        return None
    found = score([one.text for one, _ in both], [other.text for _, other in both])
    return sum(values[0] for values in found) / len(found)


def _range(values: Sequence[float]) -> Interval:
    return Interval(median(values), min(values), max(values))


def _with_front(rows: Sequence[Row], by: str) -> tuple[Row, ...]:
    """Marks what no other that passes the gate beats in both cost and quality."""
    eligible = [i for i, row in enumerate(rows) if row.passes_gate]
    front = pareto_front([(rows[i].expense, rows[i].quality(by).value) for i in eligible])
    chosen = {eligible[i] for i in front}
    return tuple(replace(row, on_front=i in chosen) for i, row in enumerate(rows))


def row_json(row: Row) -> dict[str, Any]:
    """A row as JSON: numbers and codes only."""
    told: dict[str, Any] = {"name": row.name, "settings": dict(row.settings), "failure": row.failure, "on_front": row.on_front}
    if row.ran is None:
        figures = ("scores", "intervals", "flags_per_100", "notes_per_second", "peak_mb", "cost_per_1000", "difference")
        return told | dict.fromkeys(figures) | {"passes_gate": False}
    ran = row.ran
    return told | {
        "scores": {name: round(found.value, 4) for name, found in row.scores.items()} or None,
        "intervals": {name: _ends(found) for name, found in row.scores.items()} | {"flags_per_100": _ends(row.flags_per_100)},
        "flags_per_100": round(row.flags_per_100.value, 4),
        "flags": dict(sorted(row.codes.items())),
        "summarized": row.summarized,
        "failed": dict(sorted(row.failed.items())),
        "passes_gate": row.passes_gate,
        "gate": row.gate["checks"],
        "notes_per_second": round(ran.notes_per_second, 4),
        "spread": [round(min(ran.rates), 4), round(max(ran.rates), 4)],
        "load_seconds": round(ran.load_seconds, 2),
        "peak_mb": ran.peak_mb,
        "gpu_mb": ran.gpu_mb,
        "cost_per_1000": None if row.cost_per_1000 is None else round(row.cost_per_1000, 6),
        "seconds_per_1000": round(row.seconds_per_1000, 2),
        "unsteady": ran.unsteady,
        "engine": dict(ran.engine),
        "difference": _difference_json(row.difference) if row.difference else None,
    }


def _difference_json(difference: Difference) -> dict[str, Any]:
    told = {name: asdict(found) for name, found in difference.scores.items()}
    others = {name: getattr(difference, name) for name in ("flags_per_100", "times_faster", "times_cheaper")}
    return told | {
        **{name: None if found is None else asdict(found) for name, found in others.items()},
        "same_share": round(difference.same_share, 4),
        "agreement": difference.agreement,
    }


def _ends(found: Interval) -> list[float]:
    return [round(found.low, 4), round(found.high, 4)]
