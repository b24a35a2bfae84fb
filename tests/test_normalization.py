"""Normal forms: what is certain gets one, what is not gets none, and the words of the note stay as they are."""

from __future__ import annotations

import copy
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.record import LEAF, RECORD_TYPE
from tests.records import leaves
from transforms.normalization import normalize_record, plain
from transforms.normalization.frequencies import times_per_day
from transforms.normalization.times import DateOrder, NoteTime, age, duration, iso_date, iso_duration, relative, relative_date
from transforms.normalization.units import _PINT, _SPELLINGS, convert, measure, ucum
from transforms.record import parse_record, read_record

JUNE = NoteTime(date(2019, 6, 20))


@pytest.mark.parametrize(
    ("written", "known"),
    [
        ("500 mg", (500, "mg")),
        ("1,000 MG", (1000, "mg")),
        (".5 mcg", (0.5, "ug")),
        ("1.5 µg", (1.5, "ug")),
        ("100 mg/5 mL", (20, "mg/mL")),
        ("90 mcg/actuat", (90, "ug/{actuat}")),
        ("10 mg/kg", (10, "mg/kg")),
        ("10 units", (10, "{unit}")),
        ("10 U", (10, "{unit}")),
        ("400 IU", (400, "[iU]")),
        ("two tablets", (2, "{tbl}")),
        ("half a tablet", (0.5, "{tbl}")),
        ("1/2 tab", (0.5, "{tbl}")),
        ("a puff", (1, "{puff}")),
        ("5 cc", (5, "mL")),
        ("2.5%", (2.5, "%")),
        ("81", (81, None)),
        # Ranges, pairs, two drugs, comparisons and what is no unit have none.
        *[(unsure, None) for unsure in "5-10 mg|5 to 10 mg|120/80|5 mg/325 mg|1/2 mg|<5 mg|1,5 mg|500 mg tablet|mg||one".split("|")],
        *[(unsure, None) for unsure in "5 apples|1/0 mg|100 mg/0 mL|500 mg/8 h|10 mg 20 mg|٣ mg".split("|")],
    ],
)
def test_doses(written: str, known: tuple[float, str | None] | None) -> None:
    assert measure(written, dose=True) == known


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("mg/dl", "mg/dL"),
        ("G/DL", "g/dL"),
        ("mg per dl", "mg/dL"),
        ("K/uL", "10*3/uL"),
        ("x10^9/L", "10*9/L"),
        ("M/uL", "10*6/uL"),
        ("IU/L", "[iU]/L"),
        ("U/L", "U/L"),
        ("units/L", "{unit}/L"),
        ("mL/min/1.73m2", "mL/min/{1.73_m2}"),
        ("mm Hg", "mm[Hg]"),
        ("kg/m²", "kg/m2"),
        ("/hpf", "/[HPF]"),
        ("bpm", "/min"),
        ("°F", "[degF]"),
        *[(unsure, None) for unsure in ("mM", "M", "k", "", "/", "mg//dl", "a/b/c/d", "positive", "mg-dl")],
    ],
)
def test_units(written: str, code: str | None) -> None:
    assert ucum(written) == code


ATOMS = sorted(atom for atom in _SPELLINGS if atom != "{1.73_m2}")


@given(st.sampled_from(ATOMS), st.sampled_from([None, *ATOMS]))
def test_a_ucum_code_is_its_own(first: str, per: str | None) -> None:
    code = f"{first}/{per}" if per else first
    assert ucum(code) == code


@given(st.sampled_from(sorted(set(_PINT) & set(_SPELLINGS))), st.sampled_from(sorted(_PINT)), st.floats(0.01, 1e5))
def test_conversions_lead_back(unit: str, target: str, value: float) -> None:
    there = convert(value, unit, target)
    back = None if there is None else convert(there, target, unit)
    assert there is None or back == pytest.approx(value, rel=1e-6, abs=1e-5)


def test_conversions_by_the_book() -> None:
    """NIST Special Publication 811: a pound is 0.45359237 kg, an inch 2.54 cm."""
    assert convert(100, "[lb_av]", "kg") == 45.359237 and convert(10, "[in_i]", "cm") == 25.4
    assert convert(98.6, "[degF]", "Cel") == 37 and convert(1, "g/L", "mg/dL") == 100
    assert convert(1, "kg", "cm") is None and convert(1, "{tbl}", "mg") is None and convert(1, "mo", "d") is None


@pytest.mark.parametrize(
    ("phrases", "times"),
    [
        ("twice daily|BID|b.i.d.|bid prn|2 times a day|2x/day|x2/day|two times daily|every 12 hours|q12h|12-hourly|2xday", 2),
        ("in the morning and at night|every morning and evening|twice a day with meals", 2),
        ("TID|t.i.d. (as needed)|q8h|every eight hours|thrice daily|3x daily|tds|three times per day before meals", 3),
        ("qid|qds|q6h|every 6 hrs as needed|6-hourly if needed", 4),
        ("daily|once daily|q.d.|QD|od|every day|at bedtime|qhs prn|nightly|every morning|in the evening|once a day|q24h", 1),
        ("every other day|qod|every 2 days|q48h", 0.5),
        ("weekly|once a week|every 7 days|q week", 1 / 7),
        ("3 times a week|three times weekly|3x/week", 3 / 7),
        ("every 2 weeks|every other week", 1 / 14),
        ("hourly|q1h|every hour", 24),
    ],
)
def test_times_per_day(phrases: str, times: float) -> None:
    assert {phrase: times_per_day(phrase) for phrase in phrases.split("|")} == dict.fromkeys(phrases.split("|"), times)


@pytest.mark.parametrize(
    "written",
    [
        *"prn|as needed|as directed|q4-6h|every 4 to 6 hours|1-2 times daily|once|stat|with meals|every month|q0h|three times".split("|"),
        *"bid for 7 days|before meals and at bedtime|0 times a day||every morning and every morning|x2".split("|"),
    ],
)
def test_no_number_where_the_frequency_is_not_certain(written: str) -> None:
    assert times_per_day(written) is None


@pytest.mark.parametrize(
    ("written", "iso"),
    [
        ("2019-04-13", "2019-04-13"),
        ("2019-04-13T10:05:00Z", "2019-04-13"),
        ("2019-04-13 10:05:00.25+02:00", "2019-04-13"),
        ("April 13, 2019", "2019-04-13"),
        ("13th of april 2019", "2019-04-13"),
        ("13-APR-2019", "2019-04-13"),
        ("04/13/2019", "2019-04-13"),
        ("13.4.2019", "2019-04-13"),
        ("March 2014", "2014-03"),
        ("3/2014", "2014-03"),
        ("since 2014", "2014"),
        ("4/13/19", "2019-04-13"),
        ("4/13/95", "1995-04-13"),
        *[(unsure, None) for unsure in "05/12/2019|5.12.2019|2019-02-30|2019-13|March 3|about 2014|4/13/60|last Monday".split("|")],
        *[(unsure, None) for unsure in "2014 or 2015||13|2019-04-13 was fine|childhood|Q2 2019".split("|")],
    ],
)
def test_dates(written: str, iso: str | None) -> None:
    assert iso_date(written, JUNE) == iso


def test_the_job_may_say_what_a_date_in_digits_means() -> None:
    month, day = (NoteTime(None, order) for order in (DateOrder.MONTH_FIRST, DateOrder.DAY_FIRST))
    for written in ("05/12/2019", "05-12-2019", "5.12.2019"):
        assert (iso_date(written, month), iso_date(written, day)) == ("2019-05-12", "2019-12-05")
    # What can be read in one way only is read in that way.
    assert iso_date("13/05/2019", month) == "2019-05-13" and iso_date("5/13/19", day) is None


@given(st.dates(date(1900, 1, 1), date(2099, 12, 31)), st.sampled_from([JUNE, NoteTime()]))
def test_a_date_is_never_another_day(day: date, note: NoteTime) -> None:
    for shape in ("%Y-%m-%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d %B %Y", "%B %d, %Y", "%d-%b-%Y"):
        iso = iso_date(day.strftime(shape), note)
        assert iso == day.isoformat() or (iso is None and day.day <= 12 and shape[1] in "md" and "/" in shape + "/" and "B" not in shape)


def test_the_notes_own_date() -> None:
    assert NoteTime.of("2019-06-20T23:30:00-05:00").written == date(2019, 6, 20)
    for unknown in (None, "", "05/06/2019", "2019", "June 2019", "1561000000", "20 June"):
        assert NoteTime.of(unknown).written is None
    assert NoteTime.of("05/06/2019", DateOrder.DAY_FIRST).written == date(2019, 6, 5)
    assert "2019" not in repr(NoteTime.of("2019-06-20"))


@given(st.integers(0, 999))
def test_relative_days(days: int) -> None:
    for written, sign in ((f"{days} days ago", -1), (f"in {days} days", 1), (f"{days} days from now", 1)):
        assert relative(written) == (sign * days, "d")
        assert relative_date(relative(written), JUNE) == (date(2019, 6, 20) + timedelta(days=sign * days)).isoformat()
        assert relative_date(relative(written), NoteTime()) is None


def test_other_relative_times() -> None:
    near = {word: relative_date(relative(word), JUNE) for word in ("today", "yesterday", "tomorrow")}
    assert near == {"today": "2019-06-20", "yesterday": "2019-06-19", "tomorrow": "2019-06-21"}
    # Weeks and longer are said roughly: a number, no date.
    assert relative("two weeks ago") == (-2, "wk") and relative("in a month") == (1, "mo") and relative_date((-2, "wk"), JUNE) is None
    assert relative("2 weeks") is None and relative("2 weeks", ahead=True) == (2, "wk")
    for unsure in ("in 2-3 weeks", "about 2 weeks ago", "last week", "next month", "soon", "last night", "a few days ago"):
        assert relative(unsure, ahead=True) is None


def test_durations_and_ages() -> None:
    assert [duration(said) for said in ("for 7 days", "x 2 weeks", "10-day course", "for the next three months", "for a week")] == [
        (7, "d"),
        (2, "wk"),
        (10, "d"),
        (3, "mo"),
        (1, "wk"),
    ]
    assert [duration(said) for said in ("for 7-10 days", "for a while", "indefinitely", "until seen")] == [None] * 4
    assert [iso_duration(span) for span in ((7.0, "d"), (12.0, "h"), (2.0, "wk"), (3.0, "mo"))] == ["P7D", "PT12H", "P2W", "P3M"]
    assert [age("", normal) for normal in ("P83Y", "P2Y6M", "P6M", "PT12H")] == [(83, "a"), (2.5, "a"), (6, "mo"), (12, "h")]
    assert [age(said, None) for said in ("45-year-old", "a 45 yo", "6 months", "sixty-one years old")] == [
        (45, "a"),
        (45, "a"),
        (6, "mo"),
        (61, "a"),
    ]
    assert age("45", None) is None and age("elderly", None) is None


def leaf(text: str, normal: str | None = None) -> dict[str, Any]:
    return {"text": text, "start": 0, "end": len(text), "section": None, "assertion": "present", "normal": normal}


def observed(name: str, value: str, unit: str | None, category: str = "vital") -> dict[str, Any]:
    """As a reader without normal forms leaves it, normalized."""
    said = {"name": leaf(name), "value": leaf(value), "unit": unit and leaf(unit)}
    record = parse_record("") | {"observations": [{"category": category, **said, "codes": [], "readers": ["model"]}]}
    (done,) = normalize_record(record, NoteTime())["observations"]
    return done


def test_values_of_vital_signs_come_in_one_unit() -> None:
    said = [
        (observed("weight", "154", "lbs"), ("body_weight", 69.9, "kg")),
        (observed("Temp", "98.6", "°F"), ("body_temperature", 37, "Cel")),
        (observed("HR", "72", None), ("heart_rate", 72, None)),
        (observed("height", "170", "cm"), ("body_height", 170, "cm")),
        # A unit that the sign cannot have, and a pair of numbers.
        (observed("weight", "154", "cm"), ("body_weight", None, None)),
        (observed("BP", "120/80", "mmHg"), ("blood_pressure", None, None)),
    ]
    for entity, wanted in said:
        assert (entity["name"]["normal"], entity["value"]["number"], entity["value"]["ucum"]) == wanted
    assert observed("BP", "120/80", "mmHg")["unit"]["ucum"] == "mm[Hg]"
    # As the rules write it, so that two readers agree.
    (by_rules,) = parse_record("weight 154 lbs")["observations"]
    assert observed("weight", "154", "lbs")["value"]["normal"] == by_rules["value"]["normal"] == "69.9"


def test_laboratory_values_stay_in_the_unit_of_the_note() -> None:
    sodium = observed("sodium", "1,138", "mEq/L", "lab")
    assert (sodium["value"]["number"], sodium["value"]["ucum"], sodium["unit"]["normal"]) == (1138, "meq/L", "meq/L")
    unknown = observed("factor", "12", "wobbles", "lab")
    assert (unknown["value"]["number"], unknown["value"]["ucum"], unknown["unit"]["normal"]) == (None, None, None)
    assert observed("lactate", "<2", "mmol/L", "lab")["value"]["number"] is None
    assert observed("p", "4", None, "lab")["name"]["normal"] is None


NOTE = """\
30-year-old man, 5'6" tall, weight 70.5 kg, T 98.6 F, pain 7/10.
MEDICATIONS:
- ramipril 5 mg PO BID for 7 days
- aspirin 81-162 mg daily as needed
PAST MEDICAL HISTORY:
- gout since 3/2014
PROCEDURES:
05/12/2019: knee arthroscopy
"""


def test_a_note() -> None:
    record = read_record(NOTE, "2019-06-20", DateOrder.DAY_FIRST)
    ramipril, aspirin = record["medications"]
    said = {name: (ramipril[name]["number"], ramipril[name]["ucum"]) for name in ("dose", "frequency", "duration")}
    assert said == {"dose": (5, "mg"), "frequency": (2, "/d"), "duration": (7, "d")} and ramipril["duration"]["normal"] == "P7D"
    assert (ramipril["frequency"]["normal"], aspirin["frequency"]["number"], aspirin["dose"]["number"]) == ("BID", 1, None)
    assert (record["age"]["number"], record["age"]["ucum"]) == (30, "a")
    assert record["problems"][0]["onset"]["normal"] == "2014-03" and record["procedures"][0]["date"]["normal"] == "2019-12-05"
    vitals = {o["name"]["normal"]: (o["value"]["number"], o["value"]["ucum"]) for o in record["observations"]}
    assert vitals == {"body_weight": (70.5, "kg"), "body_temperature": (37, "Cel"), "pain_score": (7, "{score}")}
    assert read_record(NOTE, None)["procedures"][0]["date"]["normal"] is None


PIECES = ("BP 120/80", "weight 154 lbs", "a 45-year-old man ", "T 98.6", "\nALLERGIES: latex\n", "½", "١", "PMH: gout since 2014\n")
PIECES += ("\nMEDICATIONS:\n", "- aspirin 81 mg po daily\n", "- iron 5-10 mg q4-6h prn\n", "- insulin 10 units qhs for 3 days\n")
PIECES += ("PROCEDURES:\n2019-02-30: biopsy\n", "PROCEDURES:\n05/12/2019: biopsy\n")


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=15).map("".join), st.none() | st.text(max_size=12))
def test_the_words_of_the_note_stay(text: str, written_at: str | None) -> None:
    """Nothing but normal, number and ucum changes, a normal form that was there stays, and a second time changes nothing."""
    before = parse_record(text)
    kept, note = copy.deepcopy(before), NoteTime.of(written_at)
    after = normalize_record(before, note)
    assert before == kept and normalize_record(after, note) == after
    for old, new in zip(leaves(before), leaves(after), strict=True):
        assert {**old, "normal": None, "number": None, "ucum": None} == {**new, "normal": None, "number": None, "ucum": None}
        assert old["normal"] in (None, new["normal"]) and set(new) == {LEAF.field(i).name for i in range(LEAF.num_fields)}
    pa.array([after], type=RECORD_TYPE)


@given(st.text(alphabet="0123456789.,/- mgdlqxbitweeksayofrPn½µ°²", max_size=30))
def test_any_words_can_be_asked(text: str) -> None:
    for found in (measure(text, dose=True), measure(text), relative(text, ahead=True), duration(text), age(text, None)):
        assert found is None or found[1] is None or found[0] == found[0]
    times_per_day(text), ucum(text), iso_date(text, JUNE), age(text, text)
    # No number comes from words without one.
    found = measure(text, dose=True)
    assert found is None or any(char.isdigit() or char in "½¼¾" for char in text) or "a" in text or "n" in text


def test_plain() -> None:
    assert [plain(value) for value in (500.0, 0.5, 69.853225, 0.0, 100000.0, 1e-5)] == ["500", "0.5", "69.853225", "0", "100000", "0.00001"]
