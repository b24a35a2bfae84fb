"""Phrases and passages that several styles of synthetic note share. A passage writes into a Draft and leaves its section as it found it."""

from __future__ import annotations

from collections.abc import Callable

from pipeline import sample_draft as d
from pipeline.sample_draft import ABSENT, HISTORICAL, Draft

LONG_LINE = (
    "{drug} {dose} {route} {freq}",
    "{drug} {dose} {freq}",
    "{drug} {dose}, {freq}",
    "{drug} {dose} {route} {freq} for {reason}",
)
LONG_NONE = ("No drug allergy known", "NKDA", "None known")
ONSET = (
    "It began {span} ago and has been getting steadily worse.",
    "Things started {span} ago while {he} was at home.",
    "This came on {span} ago without an obvious trigger.",
    "{He} dates the onset to {span} before being seen.",
    "The trouble has lasted {span}, with little relief from rest.",
)
COURSE = (
    "{He} tried to carry on as usual but gave up yesterday.",
    "A neighbour urged {him} to have it looked at.",
    "Sleep has been broken for most of that time.",
    "{He} has been eating less but still drinks plenty.",
    "Nobody else in the household is unwell.",
    "Simple remedies from the chemist made hardly any difference.",
    "{He} recalls nothing quite like it in earlier years.",
    "The worst spell was in the early hours of this morning.",
)
APPEARANCE = (
    "Comfortable at rest and talking freely",
    "Looks tired but well hydrated",
    "Walked in unaided and undressed without help",
    "Alert, warm hands, good colour",
    "Uncomfortable on movement but settled when left alone",
)
ADVICE = (
    "Warning signs were gone through in plain language and {they} could repeat them back.",
    "A printed leaflet was handed over and the main points underlined.",
    "{They} will ring the same day if things take a turn.",
    "We agreed what to watch for overnight and whom to call.",
    "Fluids, rest and a gradual return to normal activity were suggested.",
    "{They} agreed with this and had no further questions.",
)
CHILD_COURSE = (
    "{He} has slept badly and wants to be carried.",
    "Feeds are smaller than usual but there are still wet nappies.",
    "Play was back for an hour this morning, then it faded again.",
    "An older cousin was poorly last week.",
    "The parents gave a remedy from the chemist, to little effect.",
    "Nursery had rung to have {him} collected early.",
)
CHILD_APPEARANCE = (
    "Watching everything from a parent's lap",
    "Clingy but easily distracted by a toy",
    "Tired, warm to the touch, good colour",
)
HOME = (
    "Lives alone on the second floor with a lift.",
    "Lives with a partner and two cats.",
    "Shares a house with an adult daughter who helps with shopping.",
    "Lives with a brother; independent in all daily tasks.",
)
CHILD_HOME = ("Lives with both parents and a younger sibling.", "At home with mother and grandmother; vaccinations up to date.")
FAMILY_LINES = (
    "{Who} had {dx} at {at}.",
    "{Who} was treated for {dx} from the age of {at}.",
    "{Who}: {dx}, diagnosed aged {at}.",
)
DRINK = ("Alcohol only at weddings.", "Drinks about six units a week.", "No alcohol.", "A glass of wine most evenings.")
CARD_LINES = (
    "Seen {time}, own transport home.",
    "Relative present, informed.",
    "Tetanus status asked, up to date.",
    "D/W senior, agrees w/ plan.",
    "Leaflet given, return if worse.",
    "Pain score offered twice, improving.",
    "Notes from last visit reviewed.",
)
WARD_DAYS = (
    "slept through and asked for breakfast.",
    "felt a little brighter, still weak on the stairs.",
    "a restless night, settled after the ward round.",
    "pain easing, sat out in the chair for lunch.",
    "walked the corridor twice with the therapist.",
    "temperature settled and appetite returning.",
    "no new complaints; family visited in the afternoon.",
    "tired, but more at ease than on arrival.",
)
CHILD_WARD_DAYS = (
    "slept in short stretches, took half of each feed.",
    "breathing easier and smiling at visitors.",
    "a parent stayed overnight; feeds back to normal.",
    "lively between naps, no new worry.",
)
WARD_CARE = (
    "Treatment carried on unaltered.",
    "The drip came down and medicines went on by mouth.",
    "Blood tests were repeated and moved in the right direction.",
    "The pharmacist went through every medicine at the bedside.",
    "The therapist left a set of exercises for home.",
    "The senior doctor reviewed and was content with progress.",
    "Oxygen and fluids were weaned as planned.",
)
DOCTORS = (
    "Amundsen",
    "Bielefeldt",
    "Chukwu",
    "de la Fontaine",
    "Erikson-Bell",
    "Fournière",
    "Gallacher",
    "Hatzis",
    "Ibáñez",
    "Jayawardena",
)
CHILD_NURSE_LINES = (
    "Asleep in the cot, mother at the side.",
    "Took a small feed and kept it down.",
    "Wet nappy changed, skin intact.",
    "Nose cleared with saline, breathing quieter afterwards.",
    "Cuddled by father, smiling now and then.",
    "Monitor lead replaced, trace good.",
    "Grandmother rang and was told all is calm.",
)
NURSE_LINES = (
    "Washed and dressed with the help of one.",
    "Ate half of lunch and finished the tea.",
    "Skin over heels and sacrum checked, intact.",
    "Pressure mattress working, turned to the left side.",
    "Relative rang; told that the day had gone quietly.",
    "Call bell placed within reach and explained again.",
    "Mobilised to the bathroom with a frame, steady.",
    "Passed urine, good amount, clear.",
    "Cannula site clean and flushed easily.",
    "Resting with eyes closed, breathing quietly.",
)
# Findings that are only asked of one sex.
ONE_SEX = {"heavy periods": "female", "vaginal discharge": "female", "testicular swelling": "male"}


def social(draft: Draft) -> None:
    if draft.visit.years < 18:
        return draft.any(CHILD_HOME)
    draft.any(("Works as a {job}; {smoke}. ", "Occupation: {job}. Tobacco: {smoke}. ") if draft.words["job"] else ("Tobacco: {smoke}. ",))
    draft.any(HOME)
    draft.say(" ")
    return draft.any(DRINK)


def story(draft: Draft, sentences: int) -> None:
    """How it began, and some sentences of course, each with a space before it."""
    draft.say(" ")
    draft.any(ONSET)
    for line in draft.dice.some(COURSE if draft.visit.years >= 12 else CHILD_COURSE, sentences):
        draft.say(" ")
        draft.say(line)


def denies(draft: Draft, templates: tuple[str, ...], last: str = " or ") -> None:
    absent = [name for name in draft.visit.presentation.absent if ONE_SEX.get(name, draft.visit.patient.sex) == draft.visit.patient.sex]
    before, _, after = draft.dice.pick(templates).partition("{list}")
    draft.say(before)
    draft.listing(absent, ABSENT, last)
    draft.say(after)


def bullets(draft: Draft) -> Callable[[int], str]:
    style = draft.dice.pick(("- ", "* ", "• ", "", "#"))
    return (lambda i: f"{i + 1}. ") if style == "#" else lambda i: style


def history(draft: Draft) -> None:
    """Long-term conditions, a resolved one, and operations, as sentences."""
    patient = draft.visit.patient
    if patient.conditions:
        d.say_conditions(draft, draft.dice.pick(("{name} since {since}", "{name} (diagnosed {since})", "{name}")), "; ")
        draft.say(". ")
    else:
        draft.any(("No long-term illness on record. ", "Nothing of note until now. "))
    if patient.resolved:
        name = patient.resolved.removeprefix("a ")
        draft.say("Had {a}{x} years ago, fully recovered. ", a=patient.resolved[: -len(name)], x=draft.problem(name, HISTORICAL))
    if patient.surgeries:
        draft.say("Operations: ")
        d.say_surgeries(draft, "{name} in {on}", ", ")
        draft.say(". ")


def regular_list(draft: Draft, mark: Callable[[int], str], short: bool = False) -> None:
    template = draft.dice.pick(LONG_LINE)
    doses = draft.visit.patient.doses
    for i, dose in enumerate(doses):
        draft.say(("\n" if i else "") + mark(i))
        d.say_dose(draft, dose, short, template)
    if not doses:
        draft.any(("None taken regularly.", "No regular medicines."))
    for drug, why in draft.visit.patient.stopped:
        draft.say(
            "\n" + mark(len(doses)) + "{x} was stopped because of {why}",
            x=d.Leaf(draft.entity("medications"), "name", drug.name, HISTORICAL),
            why=why,
        )


def new_drugs(draft: Draft, lead: str, end: str, between: str, short: bool = False) -> None:
    for i, dose in enumerate(draft.visit.prescribed):
        draft.say(between if i else "")
        draft.say(lead)
        d.say_dose(draft, dose, short, d.course("{drug} {dose} {route} {freq}", dose, short))
        draft.say(end)


def findings(draft: Draft, between: str = ". ") -> None:
    draft.say(between.join(d.sentence_of(finding) for finding in draft.visit.presentation.findings))


def imaging(draft: Draft, before: str) -> None:
    if draft.visit.presentation.imaging:
        draft.say(before)
        draft.say(d.sentence_of(draft.visit.presentation.imaging[0]) + ".")


def plan(draft: Draft, mark: str) -> None:
    draft.section = "plan"
    new_drugs(draft, mark + draft.dice.pick(("Start ", "Begin ", "Commence ")), "\n", "")
    d.say_procedure(draft, mark + "{name} on {on}\n")
    draft.say(mark)
    draft.any(ADVICE)
    draft.say("\n")
    d.say_follow_up(draft, mark + draft.dice.pick(("{what} {when}", "Arrange {what} {when}", "Booked: {what} {when}")), "\n")


def sign(draft: Draft) -> None:
    draft.any(
        ("\n\nSigned: Dr {doctor}, {time}.", "\n\nDictated by Dr {doctor} and read back.", "\n\nDr {doctor}, bleep on request."),
        doctor=draft.dice.pick(DOCTORS),
    )
