"""How the synthetic notes are worded: six styles, each a function that writes one visit into a Draft and thereby records the gold."""

from __future__ import annotations

from collections.abc import Callable

from pipeline import sample_draft as d
from pipeline import sample_phrases as p
from pipeline.sample_draft import ABSENT, FAMILY, POSSIBLE, Draft
from pipeline.sample_patients import Visit


def soap(draft: Draft) -> None:
    """Progress note in four parts."""
    dice, seen = draft.dice, draft.visit.presentation
    letters = dice.chance(0.4)
    draft.say("S:\n" if letters else "SUBJECTIVE\n")
    draft.section = "subjective"
    draft.say("{age} {sex} seen with ", age=draft.age(d.age_words(draft.visit)), sex=draft.sex(d.sex_word(draft.visit)))
    draft.listing(seen.symptoms, d.PRESENT)
    draft.say(".")
    p.story(draft, dice.between(1, 4))
    draft.say(" ")
    p.denies(draft, ("Denies {list}.", "{He} has had no {list}.", "No {list}."))
    draft.head("past_medical_history", ": ")
    p.history(draft)
    draft.head("medications", ":\n")
    p.regular_list(draft, p.bullets(draft))
    draft.head("allergies", ": ")
    d.say_allergies(draft, p.LONG_NONE, "{what} ({how})", ", ")
    if draft.visit.patient.family and dice.chance(0.6):
        draft.head("family_history", ": ")
        d.say_family(draft, p.FAMILY_LINES, " ")
    draft.say("\n\nO:\n" if letters else "\n\nOBJECTIVE\n")
    draft.section = "objective"
    d.say_vitals(draft, short=True, between=dice.pick((", ", " | ", "; ")))
    draft.say(".\n")
    draft.any(p.APPEARANCE if draft.visit.years >= 12 else p.CHILD_APPEARANCE)
    draft.say(". ")
    p.findings(draft)
    draft.say(".")
    if draft.visit.results:
        draft.head("results", ": ")
        d.say_results(draft, ", ")
        p.imaging(draft, ". ")
    draft.say("\n\nA:\n" if letters else "\n\nASSESSMENT\n")
    draft.section = "assessment"
    draft.say("1. {x}", x=draft.problem(d.sentence_of(seen.diagnosis)))
    if dice.chance(0.55):
        draft.any(
            ("; possible {x}.", "; cannot rule out {x}.", ", {x} less likely but possible."), x=draft.problem(seen.possible[0], POSSIBLE)
        )
    for i, (condition, _) in enumerate(draft.visit.patient.conditions):
        draft.say(f"\n{i + 2}. {{x}}", x=draft.problem(d.sentence_of(condition.name)))
        draft.any((", stable on present treatment", ", no change today", ", under review", ""))
    draft.say("\n\nP:\n" if letters else "\n\nPLAN\n")
    p.plan(draft, "- ")
    p.sign(draft)


def emergency(draft: Draft) -> None:
    """Telegraphic emergency card: one paragraph, abbreviations, few verbs."""
    dice, visit, seen = draft.dice, draft.visit, draft.visit.presentation
    letter = "F" if visit.patient.sex == "female" else "M"
    number = f"{visit.months} mo" if visit.months < 24 else str(visit.years)
    spaced = " " if visit.months < 24 else ""
    draft.any(
        (f"{{age}}{spaced}{{sex}} ", "{age} yo {sex} " if not spaced else "{age} {sex} "), age=draft.age(number), sex=draft.sex(letter)
    )
    draft.any(("c/o ", "p/w ", "BIB ambulance, ", "walk-in, "))
    draft.listing(seen.symptoms, d.PRESENT, ", ")
    draft.any((" x {n}/7", " x{span}", ", onset {span} ago"))
    draft.say(". ")
    p.denies(draft, ("Denies {list}. ", "No {list}. ", "Nil {list}. "), ", ")
    draft.section = "past_medical_history"
    if visit.patient.conditions:
        draft.say("PMH: ")
        d.say_conditions(draft, "{name}", ", ", short=True)
        draft.say(". ")
    else:
        draft.any(("PMH nil. ", "PMHx: fit and well. "))
    draft.section = "medications"
    if visit.patient.doses:
        draft.any(("Meds: ", "Rx: ", "DHx: "))
        for i, dose in enumerate(visit.patient.doses):
            draft.say(", " if i else "")
            d.say_dose(draft, dose, True, "{drug} {dose} {freq}")
        draft.say(". ")
    draft.section = "allergies"
    d.say_allergies(draft, ("NKDA", "NKA"), "ALLERGIC to {what}: {how}", "; ")
    draft.section = "vital_signs"
    draft.any((".\nObs ", ". Obs: ", ".\nVS: "))
    d.say_vitals(draft, short=True, between=dice.pick((" ", ", ")))
    draft.section = "physical_examination"
    draft.any((".\nO/E ", ". OE: "))
    draft.say("; ".join(seen.findings) + ". ")
    draft.section = "results"
    if visit.results:
        draft.any(("Bloods: ", "Labs "))
        d.say_results(draft, ", ", "{name} {value}")
        draft.say(". ")
    p.imaging(draft, "")
    draft.section = "assessment"
    draft.any(("\nImp: {x}", "\nDx {x}", "\nImpression - {x}"), x=draft.problem(dice.pick((seen.short, seen.diagnosis))))
    if dice.chance(0.5):
        draft.any((", ?{x}", " (ddx {x})"), x=draft.problem(seen.possible[0], POSSIBLE))
    draft.say(". ")
    draft.section = "plan"
    if visit.prescribed:
        p.new_drugs(draft, "", "", dice.pick((" + ", ", ")), short=True)
        draft.say(". ")
    d.say_procedure(draft, "{name} {on}. ")
    draft.any(
        ("Admit medics. ", "Bed requested. ", "Ward transfer. ")
        if seen.admitted
        else ("Home. ", "D/C home w/ leaflet. ", "Discharged, safety netted. ")
    )
    draft.say("F/U ")
    d.say_follow_up(draft, "{what} {when}", ", ")
    draft.say(".")
    for line in dice.some(p.CARD_LINES, 1 if draft.length > 480 else 3):
        draft.say(" ")
        draft.say(line)


def _course_day(draft: Draft, day: int) -> None:
    """One ward day: a sentence on the patient, one on treatment, now and then the vital signs."""
    on = d.day_after(draft.visit, day)
    draft.say(f"Day {day} ({on.day}/{on.month}): ")
    draft.any(p.WARD_DAYS if draft.visit.years >= 12 else p.CHILD_WARD_DAYS)
    draft.say(" ")
    draft.any(p.WARD_CARE)
    if draft.dice.chance(0.35):
        draft.say(" Checked at the round: ")
        d.say_vitals(draft, short=False, again=True)
        draft.say(".")


def discharge(draft: Draft) -> None:
    """Discharge summary under shouted headings; one in fourteen is a long stay told day by day."""
    dice, visit, seen = draft.dice, draft.visit, draft.visit.presentation
    stay = dice.between(12, 30) if dice.chance(0.07) else dice.between(2, 6)
    shout, end = dice.chance(0.7), dice.pick((":\n", "\n", ": "))
    draft.say(
        f"DISCHARGE SUMMARY\nPatient: {{name}}   Born: {{born}}\nAdmitted: {{iso}}   Discharged: {d.day_after(visit, stay).isoformat()}"
    )
    draft.head("diagnoses", end, shout)
    draft.say("{x}", x=draft.problem(d.sentence_of(seen.diagnosis)))
    draft.head("history_of_present_illness", end, shout)
    draft.say("Our patient, {a} {age} {sex}, was brought in with ", age=draft.age(d.age_words(visit)), sex=draft.sex(d.sex_word(visit)))
    draft.listing(seen.symptoms, d.PRESENT)
    draft.say(".")
    p.story(draft, dice.between(2, 5))
    draft.say(" ")
    p.denies(draft, ("There was no {list}.", "{He} reported no {list}.", "On direct questioning there had been no {list}."))
    draft.head("past_medical_history", end, shout)
    p.history(draft)
    if visit.patient.family:
        draft.head("family_history", end, shout)
        d.say_family(draft, p.FAMILY_LINES, " ")
    if dice.chance(0.6):
        draft.head("social_history", end, shout)
        p.social(draft)
    draft.head("vital_signs", end, shout)
    d.say_vitals(draft, short=False)
    draft.head("physical_examination", end, shout)
    draft.any(p.APPEARANCE if draft.visit.years >= 12 else p.CHILD_APPEARANCE)
    draft.say(". ")
    p.findings(draft)
    draft.say(".")
    if visit.results:
        draft.head("results", end, shout)
        d.say_results(draft, dice.pick(("\n", "; ")), dice.pick(("{name}: {value} {unit}", "{name} {value} {unit}")))
    p.imaging(draft, "\n")
    if seen.procedure:
        draft.head("procedures", end, shout)
        d.say_procedure(draft, "{name}, {on}")
    draft.head("hospital_course", end, shout)
    if dice.chance(0.6):
        draft.any(
            ("{x} was considered at first and then set aside as tests came back.\n", "At the door the team also thought of {x}.\n"),
            x=draft.problem(seen.possible[0], POSSIBLE),
        )
    for day in range(1, stay):
        draft.say("\n" if day > 1 else "")
        _course_day(draft, day)
    draft.head("medications.discharge", end if end != ": " else ":\n", shout)
    mark = p.bullets(draft)
    p.regular_list(draft, mark)
    draft.say("\n" if visit.prescribed else "")
    p.new_drugs(draft, "New: ", "", "\n")
    draft.head("allergies", end, shout)
    d.say_allergies(draft, p.LONG_NONE, "{what}: {how}", "\n")
    draft.head("follow_up", end, shout)
    d.say_follow_up(draft, dice.pick(("{what} {when}", "Please arrange {what} {when}")), "\n")
    draft.say("\n")
    draft.any(p.ADVICE)


def letter(draft: Draft) -> None:
    """Specialist's letter to the family doctor."""
    dice, visit, seen = draft.dice, draft.visit, draft.visit.presentation
    doctor, writer = dice.pick(p.DOCTORS), dice.pick(p.DOCTORS)
    draft.say(f"{{date}}\n\nDear Dr {doctor},\n\nRe: {{title}} {{name}}, born {{born}}\n\n")
    draft.any((
        "Many thanks for sending me this {age} {sex}, who was bothered by ",
        "I met this pleasant {age} {sex} today on account of ",
        "Your patient, {a} {age} {sex}, came to my rooms this week troubled by ",
    ), age=draft.age(d.age_words(visit)), sex=draft.sex(d.sex_word(visit)))  # fmt: skip
    draft.listing(seen.symptoms, d.PRESENT)
    draft.say(".")
    p.story(draft, dice.between(2, 5))
    draft.say(" ")
    p.denies(draft, ("I could elicit no {list}.", "I heard of no {list}.", "{He} tells me there is no {list}."))
    draft.say("\n\n")
    if visit.patient.conditions:
        draft.any(("{His} background: ", "From your records I note ", "Other active problems are "), His=d.sentence_of(draft.words["his"]))
        d.say_conditions(draft, "{name}", ", ")
        draft.say(". ")
    if visit.patient.doses:
        draft.any(("{He} takes ", "At home {he} uses "))
        for i, dose in enumerate(visit.patient.doses):
            draft.say(", " if i else "")
            d.say_dose(draft, dose, False, "{drug} {dose} {freq}")
        draft.say(". ")
    for _, disease, age in visit.patient.family[:1]:
        draft.any(
            ("There is {x} in the family, in a relative aged {at}. ", "A close relative had {x} at {at}. "),
            x=draft.problem(disease, FAMILY),
            at=str(age),
        )
    draft.say("As to allergies: ")
    d.say_allergies(draft, ("none known", "no drug allergy known"), "{what} caused {how}", ", ")
    draft.say(".\n\n")
    draft.any(("In clinic I recorded ", "My nurse measured ", "Today's readings were "))
    d.say_vitals(draft, short=False)
    if dice.chance(0.6):
        draft.say(", ")
        d.say_build(draft)
    draft.say(". ")
    p.findings(draft)
    draft.say(".")
    if visit.results:
        draft.any((" The blood results: ", " Of the tests you sent, ", " From the laboratory: "))
        d.say_results(draft, ", ")
        draft.say(".")
    p.imaging(draft, " ")
    draft.any(
        ("\n\nI believe this is {x}.", "\n\nTaken together this fits {x}.", "\n\nMy conclusion is {x}."), x=draft.problem(seen.diagnosis)
    )
    if dice.chance(0.5):
        draft.any(
            (" I have kept {x} in mind as a possibility.", " {x} remains possible and will be looked into."),
            x=draft.problem(seen.possible[0], POSSIBLE),
        )
    p.new_drugs(draft, dice.pick((" I have started ", " I suggest ", " Would you kindly prescribe ")), ".", "")
    d.say_procedure(draft, " {name} is planned for {on}.")
    draft.say(" ")
    draft.any(p.ADVICE)
    draft.say("\n\nNext steps: ")
    d.say_follow_up(draft, "{what} {when}", "; ")
    draft.say(f".\n\nWith kind regards,\nDr {writer}, consultant.")


def nursing(draft: Draft) -> None:
    """A shift told by the clock: observations, care, drugs given."""
    dice, visit, seen = draft.dice, draft.visit, draft.visit.presentation
    draft.any(("NURSING NOTE {iso}\n", "Shift report, {iso}\n", "Ward nursing entry {iso}\n"))
    draft.say("{age} {sex} with ", age=draft.age(d.age_words(visit)), sex=draft.sex("female" if visit.patient.sex == "female" else "male"))
    draft.say("{x}. ", x=draft.problem(seen.diagnosis))
    d.say_allergies(draft, ("NKDA", "No allergy known"), "Red band: {what}, {how}", "; ")
    draft.say(".")
    hour, drugs = dice.between(7, 9), list(visit.prescribed or visit.patient.doses)
    lines = dice.some(p.NURSE_LINES if visit.years >= 12 else p.CHILD_NURSE_LINES, dice.between(4, 7))
    for turn, line in enumerate(lines):
        draft.say(f"\n{hour:02d}:{dice.between(0, 59):02d} ")
        hour += 1 + dice.between(0, 1)
        draft.say(line)
        if turn % 2 == 0:
            draft.any((" Reports {x}.", " Complains of {x}."), x=draft.problem(dice.pick(seen.symptoms)))
            draft.say(" Obs: ")
            d.say_vitals(draft, short=True, again=turn > 0)
            draft.say(".")
        elif drugs:
            draft.say(" Given ")
            d.say_dose(draft, drugs.pop(0), True, "{drug} {dose} {route}")
            draft.any((" as charted.", " and tolerated.", " with water."))
        else:
            draft.any((" No {x}.", " Denies {x}."), x=draft.problem(dice.pick(seen.absent), ABSENT))
    draft.say("\nTo do: ")
    d.say_follow_up(draft, "{what} {when}", ", ")
    draft.any((". Handed over to the next shift at the bedside.", ". Care plan updated and signed."))


def clinic(draft: Draft) -> None:
    """Clinic note under headings, sentences rather than lists."""
    dice, visit, seen = draft.dice, draft.visit, draft.visit.presentation
    end = dice.pick((": ", ":\n"))
    draft.head("chief_complaint", end)
    draft.listing(seen.symptoms[:2], d.PRESENT)
    draft.head("history_of_present_illness", end)
    draft.say("{name} is {a} {age} {sex}.", age=draft.age(d.age_words(visit)), sex=draft.sex(d.sex_word(visit)))
    p.story(draft, dice.between(2, 6))
    draft.say(" ")
    p.denies(draft, ("{He} has noticed no {list}.", "Negative for {list}.", "{He} denies {list}."))
    draft.head("past_medical_history", end)
    p.history(draft)
    draft.head("medications", ":\n")
    p.regular_list(draft, p.bullets(draft))
    draft.head("allergies", end)
    d.say_allergies(draft, p.LONG_NONE, "{what} - {how}", "; ")
    if visit.patient.family:
        draft.head("family_history", end)
        d.say_family(draft, p.FAMILY_LINES, " ")
    draft.head("social_history", end)
    p.social(draft)
    draft.head("vital_signs", end)
    d.say_vitals(draft, short=False)
    draft.say("; ")
    d.say_build(draft)
    draft.head("physical_examination", end)
    draft.any(p.APPEARANCE if draft.visit.years >= 12 else p.CHILD_APPEARANCE)
    draft.say(". ")
    p.findings(draft)
    draft.say(".")
    if visit.results:
        draft.head("results", end)
        d.say_results(draft, "\n", dice.pick(("{name}: {value} {unit}", "{name} {value} {unit}")))
    p.imaging(draft, "\n")
    draft.head("assessment", end)
    draft.say("{x}", x=draft.problem(d.sentence_of(seen.diagnosis)))
    if dice.chance(0.4):
        draft.any((". Differential includes {x}", ", possibly with {x}"), x=draft.problem(seen.possible[0], POSSIBLE))
    draft.say(".")
    draft.head("plan", ":\n")
    p.plan(draft, dice.pick(("- ", "• ", "")))
    p.sign(draft)


Style = Callable[[Draft], None]
# Name, the note types it goes by, weight out of 100, and whether it needs an admission.
STYLES: tuple[tuple[Style, tuple[str, ...], int, bool], ...] = (
    (soap, ("Progress note",), 22, False),
    (emergency, ("Emergency department note",), 24, False),
    (discharge, ("Discharge summary",), 16, True),
    (letter, ("Letter", "Consultation note"), 14, False),
    (nursing, ("Nursing note",), 10, True),
    (clinic, ("Clinic note", "Outpatient note"), 14, False),
)


def style_for(visit: Visit, draw: float) -> tuple[Style, tuple[str, ...]]:
    """The style that a draw in [0, 1) picks among those that fit the visit, by weight."""
    fitting = [style for style in STYLES if visit.presentation.admitted or not style[3]]
    mark = draw * sum(weight for _, _, weight, _ in fitting)
    for write, types, weight, _ in fitting:
        mark -= weight
        if mark < 0:
            return write, types
    return fitting[-1][:2]
