"""What a comparison says, in plain words, and no more than its intervals allow. It reads figures only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pipeline.comparison.figures import Difference, Row
from pipeline.evaluation.bootstrap import Interval

SCORE_NAMES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeLsum": "ROUGE-Lsum"}
# Below this many notes, percentile intervals are narrower than they should be.
_FEW_NOTES = 30
# Ratios of speed nearer to 1 than this are told in percent.
_TWICE_TELLING = 1.15


class Standing(StrEnum):
    """How an entrant's quality stands to the reference point's, given a margin."""

    NOT_WORSE = "not worse"
    WORSE = "worse"
    UNDECIDED = "cannot tell"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked: against whom, by which score, how many points may be lost (`margin`), over how many notes, with prices or not."""

    against: str
    by: str
    margin: float
    notes: int
    priced: bool
    references: bool

    @property
    def score_name(self) -> str:
        return SCORE_NAMES[self.by]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`answer`: which to take. `sentences`: one for each entrant, then what limits the answer. `cheapest`: the name of the one to take."""

    answer: str
    sentences: tuple[str, ...]
    cheapest: str | None

    def __str__(self) -> str:
        return " ".join((self.answer, *self.sentences))


def standing(row: Row, question: Question) -> Standing:
    """Not worse: the whole 95 % interval of the difference lies above minus the margin (a non-inferiority test at 2.5 %, Piaggio et al.
    2012, doi 10.1001/jama.2012.87802). Worse: it lies below. Otherwise these notes cannot tell."""
    if row.failure:
        return Standing.UNKNOWN
    if row.name == question.against:
        return Standing.NOT_WORSE
    if row.difference is None:
        return Standing.UNKNOWN
    if row.difference.same_share == 1:
        return Standing.NOT_WORSE
    if question.by not in row.difference.scores:
        return Standing.UNKNOWN
    found = row.difference.scores[question.by]
    if found.low > -question.margin:
        return Standing.NOT_WORSE
    return Standing.WORSE if found.high < -question.margin else Standing.UNDECIDED


def judge(rows: Sequence[Row], question: Question) -> Verdict:
    """The verdict over all rows."""
    able = [row for row in rows if row.passes_gate]
    fit = [row for row in able if standing(row, question) is Standing.NOT_WORSE] if question.references else able
    best = _best(fit, question)
    sentences = [
        *(_compared(row, question) for row in rows if row.name != question.against),
        *(_as_cheap(fit, best, question) if best else ()),
        *_cheaper_but(rows, best, question),
        *(_near_limit(best) if best else ()),
        *_caveats(rows, question),
    ]
    return Verdict(_answer(rows, best, question), tuple(sentences), best.name if best else None)


def _best(fit: Sequence[Row], question: Question) -> Row | None:
    """The one that costs least; the reference point where no other is cheaper in every round of turns."""
    base = next((row for row in fit if row.name == question.against), None)
    others = [row for row in fit if row is not base and (base is None or _times_cheaper(row).low > 1)]
    return min(others, key=lambda row: row.expense, default=base)


def _times_cheaper(row: Row) -> Interval:
    assert row.difference is not None
    return row.difference.times_cheaper or row.difference.times_faster


def _answer(rows: Sequence[Row], best: Row | None, question: Question) -> str:
    least = "cheapest" if question.priced else "fastest"
    base = next(row for row in rows if row.name == question.against)
    if not any(row.passes_gate for row in rows):
        return "None passes the gate."
    if not question.references:
        assert best is not None
        return (
            f"The {least} that passes the gate: {best.name}{_at_cost(best)}. Which writes better summaries is not known without references."
        )
    if base.failure:
        return f"{question.against}, that the others are measured against, could not run, so nothing is said of who is worse."
    wanted = f"passes the gate and is not worse than {question.against} by more than {question.margin:g} {question.score_name}"
    if best is None:
        return f"None can be said to be one that {wanted}."
    same = ", the reference point itself" if best is base else ""
    return f"The {least} that {wanted}: {best.name}{_at_cost(best)}{same}."


def _at_cost(row: Row) -> str:
    return f" ({speed_text(row.speed)} notes/s)" if row.cost_per_1000 is None else f" ({cost_text(row.cost_per_1000)} per 1,000 notes)"


def _compared(row: Row, question: Question) -> str:
    """One entrant beside the reference point."""
    if row.failure:
        return f"{row.name} could not run: {row.failure}."
    if row.difference is None:
        return f"{row.name}: {speed_text(row.speed)} notes/s, {row.flags_per_100.value:.1f} flagged per 100."
    difference = row.difference
    parts = [f"{row.name} is {_saving(difference)} {question.against}", _quality(difference, question), _flags(difference.flags_per_100)]
    return "; ".join(part for part in parts if part) + ("." if row.passes_gate else "; it does not pass the gate.")


def _saving(difference: Difference) -> str:
    """`2.1x cheaper than`; where rounds of turns disagree about who is ahead, that they cannot be told apart."""
    more, less = ("faster", "slower") if difference.times_cheaper is None else ("cheaper", "dearer")
    ratio = difference.times_cheaper or difference.times_faster
    if ratio.low <= 1 <= ratio.high:
        return f"about as {'cheap' if more == 'cheaper' else 'fast'} as"
    times, word = (ratio.value, more) if ratio.value > 1 else (1 / ratio.value, less)
    return f"{times:.1f}x {word} than" if times >= _TWICE_TELLING else f"{100 * (times - 1):.0f} % {word} than"


def _quality(difference: Difference, question: Question) -> str:
    if difference.same_share == 1:
        return "the same summaries"
    if question.by in difference.scores:
        return f"{question.score_name} {interval_text(difference.scores[question.by])}"
    agreement = "" if difference.agreement is None else f", their summaries share {difference.agreement:.0f} ROUGE-1"
    return f"{100 * difference.same_share:.0f} % of the summaries are the same{agreement}"


def _flags(found: Interval | None) -> str:
    if found is None:
        return ""
    if found == Interval(0.0, 0.0, 0.0):
        return "flags equal"
    return f"flags per 100: {interval_text(found)}"


def _as_cheap(fit: Sequence[Row], best: Row, question: Question) -> list[str]:
    """Others that would do as well, and whose turns overlap with those of the best in cost."""
    least, most = _ends_of_expense(best)
    near = [row.name for row in fit if row is not best and _ends_of_expense(row)[0] <= most and _ends_of_expense(row)[1] >= least]
    return [f"{' and '.join(near)} would do as well, for about the same {'money' if question.priced else 'time'}."] if near else []


def _ends_of_expense(row: Row) -> tuple[float, float]:
    """What its fastest and its slowest turn come to."""
    assert row.ran is not None
    return row.expense * row.speed / max(row.ran.rates), row.expense * row.speed / min(row.ran.rates)


def _cheaper_but(rows: Sequence[Row], best: Row | None, question: Question) -> list[str]:
    """What was passed over although it costs less, and why."""
    less = [row for row in rows if row.passes_gate and (best is None or row.expense < best.expense)]
    told = []
    for row in sorted(less, key=lambda row: row.expense):
        if standing(row, question) is Standing.WORSE:
            told.append(f"{row.name} {_thriftier(question)}, but is worse by more than {question.margin:g} {question.score_name}.")
        elif standing(row, question) is Standing.UNDECIDED:
            told.append(_undecided(row, question))
    return told


def _thriftier(question: Question) -> str:
    return "costs less" if question.priced else "is faster"


def _undecided(row: Row, question: Question) -> str:
    assert row.difference is not None
    found = row.difference.scores[question.by]
    room = found.value + question.margin
    needed = math.ceil(question.notes * ((found.value - found.low) / room) ** 2) if room > 0 else 0
    # A rough guess: intervals shrink with the root of the number of notes, and the difference stays as it is.
    hope = f" About {_rounded(needed):,} might." if room > 0 and needed < 100 * question.notes else ""
    worse = f"is worse by more than {question.margin:g} {question.score_name}"
    return f"Cannot tell with {question.notes:,} notes whether {row.name}, which {_thriftier(question)}, {worse}.{hope}"


def _rounded(number: int) -> int:
    """Up to two significant digits: a guess should look like one."""
    step = 10 ** max(0, len(str(number)) - 2)
    return math.ceil(number / step) * step


def _near_limit(row: Row) -> list[str]:
    """The gate looks at the share that was found; whether the true one is below its limit is another question."""
    limit = next(100 * check["limit"] for check in row.gate["checks"] if check["name"] == "max_flagged_share")
    if row.flags_per_100.high <= limit:
        return []
    found = f"{row.flagged} of {row.summarized:,} flagged, limit {limit:g} per 100"
    return [f"{row.name} passes the gate on these notes ({found}), but up to {row.flags_per_100.high:.1f} per 100 cannot be ruled out."]


def _caveats(rows: Sequence[Row], question: Question) -> list[str]:
    told = []
    base = next(row for row in rows if row.name == question.against)
    if not base.failure and not base.passes_gate:
        told.append(f"{base.name} itself does not pass the gate.")
    if not question.references:
        told.append("There are no reference texts: speed, memory, flags and agreement are compared, quality is not.")
    if any(row.ran is not None and len(row.ran.rates) == 1 for row in rows):
        told.append("One turn of each does not tell how much its speed varies.")
    if question.notes < _FEW_NOTES:
        told.append(f"Intervals of only {question.notes} notes are rough, and narrower than they should be.")
    unsteady = [row.name for row in rows if row.ran is not None and row.ran.unsteady]
    if unsteady:
        told.append(f"Not the same summaries in every turn: {', '.join(unsteady)}.")
    return told


def interval_text(found: Interval) -> str:
    """`-0.4 [-0.9, 0.1]`."""
    return f"{_points(found.value, '+')} [{_points(found.low)}, {_points(found.high)}]"


def _points(value: float, sign: str = "") -> str:
    """One decimal place; a zero has no sign."""
    return f"{value:{sign}.1f}" if abs(value) >= 0.05 else "0.0"


def cost_text(cost: float) -> str:
    """At least two decimal places and three significant digits, no exponent."""
    return f"{cost:,.{max(2, 2 - math.floor(math.log10(cost)))}f}"


def speed_text(notes_per_second: float) -> str:
    return f"{notes_per_second:.2f}" if notes_per_second < 100 else f"{notes_per_second:,.0f}"
