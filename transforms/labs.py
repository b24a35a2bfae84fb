"""Laboratory values: "Na 138", "serum creatinine was 1.4 mg/dL", "ferritin 41 ng/mL, B12 260 pg/mL".

A value is a number with the name of a test before it. The name is one of a closed list, compiled for this project from common usage,
or, where the unit is one that only a laboratory uses, whatever names an item of a list. A short name without a unit counts only beside
another value or under a heading of results. It does not read results in words ("negative"), nor tables whose names stand in another line.
Each number is looked at once, with at most 90 characters before it: linear in the length of the note.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from transforms.lexicon import PROSE, word_set
from transforms.sections import Page

Span = tuple[int, int]

_NAMES = (
    "sodium|na|potassium|k|chloride|cl|bicarbonate|bicarb|hco3|carbon dioxide|co2|total co2|anion gap|blood urea nitrogen"
    "|urea nitrogen|bun|urea"
    "|creatinine|cr|scr|glucose|blood sugar|blood glucose|sugar|calcium|ca|ionized calcium|ionised calcium|magnesium|mg|mag"
    "|phosphorus|phosphate"
    "|phos|white blood cells|white blood cell count|white blood count|white cell count|white count|wbc count|wbc|wcc"
    "|red blood cell count|rbc"
    "|hemoglobin|haemoglobin|hgb|hb|hematocrit|haematocrit|hct|platelets|platelet count|platelet|plt|plts|mcv|mch|mchc|rdw|mpv|neutrophils"
    "|absolute neutrophil count|anc|lymphocytes|monocytes|eosinophils|basophils|bands|reticulocytes|reticulocyte count"
    "|aspartate aminotransferase"
    "|ast|sgot|alanine aminotransferase|alt|sgpt|alkaline phosphatase|alk phos|alp|ggt|gamma glutamyl transferase|bilirubin|total bilirubin"
    "|direct bilirubin|indirect bilirubin|t bili|tbili|bili|albumin|protein|total protein|globulin|inr|prothrombin time|pt|ptt|aptt|pt/inr"
    "|partial thromboplastin time|d-dimer|d dimer|fibrinogen|troponin|troponin i|troponin t|trop|bnp|nt-probnp|nt-pro-bnp|ck|ck-mb|ckmb"
    "|creatine kinase|creatine phosphokinase|cpk|ldh|lactate dehydrogenase|lactate|lactic acid|ammonia|amylase|lipase"
    "|c-reactive protein|crp"
    "|c reactive protein|hs-crp|erythrocyte sedimentation rate|sedimentation rate|sed rate|esr|procalcitonin|tsh"
    "|thyroid stimulating hormone"
    "|thyroid-stimulating hormone|free t4|ft4|t4|t3|free t3|thyroxine|hemoglobin a1c|haemoglobin a1c|hba1c|hgba1c|hgb a1c|a1c|cholesterol"
    "|total cholesterol|ldl|ldl cholesterol|ldl-c|low density lipoprotein cholesterol|low density lipoprotein|hdl|hdl cholesterol|hdl-c"
    "|high density lipoprotein cholesterol|high density lipoprotein|vldl|triglycerides|triglyceride|trigs|tg|ferritin|iron|serum iron|tibc"
    "|transferrin|transferrin saturation|vitamin b12|b12|folate|folic acid|vitamin d|25-hydroxyvitamin d|25-oh vitamin d|uric acid|urate"
    "|osmolality|osmolarity|psa|prostate specific antigen|prostate-specific antigen|cea|afp|alpha-fetoprotein|ca-125|ca 125|ca 19-9|ca19-9"
    "|beta-hcg|hcg|beta hcg|cortisol|acth|prolactin|testosterone|estradiol|fsh|lh|parathyroid hormone|pth|ige|igg|iga|igm|complement c3"
    "|ph|pco2|po2|pao2|paco2|base excess|egfr|gfr|glomerular filtration rate|creatinine clearance|crcl|microalbumin"
    "|microalbumin creatinine ratio"
    "|albumin creatinine ratio|albumin/creatinine ratio|acr|uacr|protein creatinine ratio|specific gravity|ceruloplasmin|haptoglobin"
    "|viral load"
    "|cd4|cd4 count|cd4 cell count|digoxin|lithium|phenytoin|vancomycin trough|tacrolimus|valproate|methemoglobin|carboxyhemoglobin"
    "|zinc|copper"
)
_KNOWN = frozenset(_NAMES.split("|"))
_LAST_WORDS = frozenset(name.split()[-1] for name in _KNOWN)
# These mean other things too.
_WEAK = word_set(
    "na k cl ca cr mg mag pt ph hb trop sugar protein urea anc bands alt", "ast alp tg ck lh iga phos plt iron zinc copper lithium k+"
)
# What is told in percent; of anything else a percentage is a share or the strength of a solution.
_SHARES = re.compile(
    r"(?:hematocrit|haematocrit|hct|\w*a1c|rdw|neutrophils|lymphocytes|monocytes|eosinophils|basophils"
    r"|bands|saturation|count)$"
)
# Before the name of a test they belong to it.
_PART_OF_NAME = word_set(
    "serum plasma blood urine urinary total free fasting random estimated", "corrected ionized direct indirect venous arterial"
)
_FILL = word_set(
    "is was were are of at to be been level levels value values count result results came back measured found as elevated low high normal",
    "approximately about around currently now decreased increased fell rose dropped peaked up down from = : | h l",
)
# Before a number, but not the name of a test.
_NO_NAME = word_set(
    "cut off cutoff cut-off range ranges ref reference nr limit target goal threshold sd class dose about than least over under"
)
_MAX_FILL, _MAX_NAME = 5, 6  # words
_REACH = 90  # characters before a number that its name may begin in
_NEAR = 30  # characters between two values of one list

_AMOUNT = r"mcg|µg|μg|ug|mg|gm|g|ng|pg|mmol|µmol|μmol|umol|nmol|pmol|meq|miu|mu|µiu|μiu|uiu|iu|u|units?|mosm|cells|copies"
_UNIT = re.compile(
    rf"[ ]?(?P<unit>(?:{_AMOUNT})[ ]?/[ ]?(?:dl|ml|l|kg|mmol|mol|mg|g|hpf|mm3|µl|μl|ul|24[ ]?h(?:rs?|ours?)?|day)(?:[ ]?feu)?"
    r"|ml/min(?:ute)?(?:[ ]?/[ ]?(?:1\.73[ ]?m(?:2|²|\^2)?|\{1\.73_m2\}))?|mm[ ]?/[ ]?(?:1st[ ])?h(?:r|our)?"
    r"|(?:x[ ]?)?10(?:\^|\*|e)?(?:3|6|9|12)[ ]?/[ ]?(?:µl|μl|ul|l|mm3)|(?:k|m|thou|mil)[ ]?/[ ]?(?:µl|μl|ul|mm3|cumm)"
    r"|/[ ]?(?:µl|μl|ul|ml|mm3|hpf|cumm)|mm[ ]?hg|seconds|secs?|fl|pg|%)(?![\w/])"
)
# What opens it is rare in a text, so that the engine skips fast; what stands before is looked at afterwards.
_NUMBER = re.compile(
    r"(?P<value>[<>\u2264\u2265\d](?<![\w.,/:+-].)(?:(?<=\d)|(?<=[<>\u2264\u2265])[ ]?\d)(?:\d{0,2}(?:,\d{3})+|\d{0,6})(?:\.\d{1,4})?)"
    r"(?![\w:-]|[.,]\d|[ ]?/(?![ ]?(?:µl|μl|ul|ml|mm3|hpf|cumm)))"
)
# A number in front of one of these is no result: "iron 65 mg", "PT 3 times a week".
_NO_RESULT = re.compile(
    r"[ -]?(?:mg|mcg|g|ml|gm|units?|tabs?|tablets?|capsules?|times?|x|days?|weeks?|wks?|months?|mos?|years?|yrs?|hours?|hrs?|minutes?|mins?"
    r"|cm|mm|kg|lbs?|in|degrees?|doses?|drops?|visits?|sessions?|episodes?|and|or|to|-|\u2013|/)(?![a-z])(?![ ]?/)"
)
_WORD = re.compile(r"[^\s,;:()\[\]=|]+|[,;:()\[\]=|]|\n")
_ENDS = frozenset(",;()[]\n")
_DIGITS = re.compile(r"\d")
# These units are also of drugs, of gases in the blood, of shares: they show a laboratory value only beside a known name.
_COMMON_UNIT = re.compile(r"%|pg$|mm ?hg|sec|(?:m|mc|µ|μ|u)?g ?/ ?(?:ml|kg|day|24)|units?/|i?u ?/ ?(?:kg|day|ml)")


@dataclass(frozen=True, slots=True)
class _Result:
    """Characters, ends exclusive. `weak`: the name alone does not show a result."""

    name: Span
    value: Span
    unit: Span | None
    weak: bool


def read_labs(page: Page, taken: Sequence[Span] = ()) -> list[dict[str, Any]]:
    """Observations of category `lab`, in order of the note. `taken`: characters of other readings, in order: no number there is a",
    "result."""
    return [_observation(page, result) for result in _trusted(page, list(_results(page, taken)))]


def _results(page: Page, taken: Sequence[Span]) -> Iterator[_Result]:
    folded, behind, others = page.folded, 0, iter((*taken, (len(page.folded) + 1, len(page.folded) + 1)))
    other = next(others)
    for match in _NUMBER.finditer(folded):
        while other[1] <= match.start():
            behind, other = max(behind, other[1]), next(others)
        if other[0] <= match.start():
            continue
        unit = _UNIT.match(folded, match.end())
        if unit is None and _NO_RESULT.match(folded, match.end()):
            behind = match.end()
            continue
        name = _name(folded, max(behind, match.start() - _REACH), match.start(), unit["unit"] if unit else None)
        behind = unit.end() if unit else match.end()
        if name is not None:
            weak = unit is None and folded[slice(*name)].strip(".") in _WEAK
            yield _Result(name, match.span("value"), unit.span("unit") if unit else None, weak)


def _name(folded: str, start: int, end: int, unit: str | None) -> Span | None:
    """The name of the test in [start, end), behind which only a few filler words stand; None without one."""
    words = [match.span() for match in _WORD.finditer(folded, start, end)]
    if words and words[0][0] == start and start and folded[start - 1].isalnum() and folded[start].isalnum():
        words.pop(0)  # cut off
    words = _less_fill(folded, words)
    named = _run(folded, words)
    known = _known(folded, named) or (_known(folded, _run(folded, _less_marks(folded, words))) if unit else None)
    if known:
        return known if unit != "%" or _SHARES.search(folded, *known) else None
    if unit is None or _COMMON_UNIT.match(unit):
        return None
    texts = [folded[slice(*word)] for word in named]
    opened = len(named) == len(words) or not any(folded[words[-len(named) - 1][0]] == mark for mark in "/-")
    item = 0 < len(named) <= _MAX_NAME and texts[0][0].isalpha() and not (PROSE | _FILL | _NO_NAME).intersection(texts)
    return (named[0][0], named[-1][1]) if item and opened else None


def _less_fill(folded: str, words: list[Span]) -> list[Span]:
    for _ in range(_MAX_FILL):
        if not words or folded[slice(*words[-1])] not in _FILL:
            break
        words = words[:-1]
    return words


def _less_marks(folded: str, words: list[Span]) -> list[Span]:
    """ "hemoglobin, 9.9 g/dL" and "hormone (TSH) (<0.01 mIU/L)": a unit behind the number shows that a mark ends no item."""
    while words and folded[words[-1][0]] in ",()" and len(words) > 1:
        words = words[:-1]
    return words


def _run(folded: str, words: Sequence[Span]) -> list[Span]:
    """The last words without a mark, a number or the end of a sentence between them."""
    run: list[Span] = []
    for start, end in reversed(words):
        word = folded[start:end]
        if word[0] in _ENDS or word in (":", "=", "|") or word.endswith((".", "!", "?")) or _is_number(word) or len(run) > _MAX_NAME:
            break
        run.append((start, end))
    return run[::-1]


def _is_number(word: str) -> bool:
    return word[0].isdigit() and not any(char.isalpha() for char in word)


def _known(folded: str, words: Sequence[Span]) -> Span | None:
    """The longest known name that the words end with, and what before it belongs to it."""
    if not words or folded[slice(*words[-1])] not in _LAST_WORDS:
        return None
    for first in range(max(0, len(words) - _MAX_NAME), len(words)):
        phrase = " ".join(folded[slice(*word)] for word in words[first:])
        if phrase in _KNOWN:
            while first and folded[slice(*words[first - 1])] in _PART_OF_NAME:
                first -= 1
            return words[first][0], words[-1][1]
    return None


def _trusted(page: Page, results: Sequence[_Result]) -> list[_Result]:
    """Without the short names that stand alone. Trust spreads to the neighbour on either side: "Na 138 K 4.1 Cl 101 BUN 12"."""
    trusted = [not result.weak or page.section_at(result.name[0]) == "results" for result in results]
    for order in (range(1, len(results)), range(len(results) - 2, -1, -1)):
        for index in order:
            other = index - order.step
            left, right = sorted((index, other))
            near = results[right].name[0] - (results[left].unit or results[left].value)[1] <= _NEAR
            trusted[index] = trusted[index] or (near and trusted[other])
    # Two short names beside each other show each other: "Na 138, K 4.1".
    for index in range(1, len(results)):
        if results[index].name[0] - (results[index - 1].unit or results[index - 1].value)[1] <= 3:
            trusted[index - 1 : index + 1] = [True, True]
    return [result for result, kept in zip(results, trusted, strict=True) if kept]


def _observation(page: Page, result: _Result) -> dict[str, Any]:
    return {
        "category": "lab",
        "name": page.leaf(*result.name),
        "value": page.leaf(*result.value),
        "unit": None if result.unit is None else page.leaf(*result.unit),
        "codes": [],
        "readers": ["rules"],
    }
