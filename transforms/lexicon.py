"""Closed lists of ordinary words that tell an item of a list from prose. Compiled for this project from common clinical usage."""

from __future__ import annotations


def word_set(*lines: str) -> frozenset[str]:
    """The words of the lines."""
    return frozenset(word for line in lines for word in line.split())


# Words that sentences have and lists do not.
PROSE = word_set(
    "is was were are has had have he she they his her patient pt will would should been be which who that this i we"
    " you it there did does do",
    "because although however reports reported states stated underwent presents presented started showed shows",
)

# A problem does not begin with these.
NO_PROBLEM = word_set(
    "the none nil unremarkable noncontributory non-contributory negative neg nothing healthy unknown n/a na as see"
    " above below per from one two three",
    "stable continue start stop follow follow-up followup rtc return order obtain check repeat monitor refer"
    " recommend consider schedule given advised",
    "discussed increase decrease add plan will significant same unchanged reviewed well no labs today resume hold"
    " take consulted prescription s/p",
    "healthcare medical reasoning treatment instructions counseling education agreements testing referrals",
)

# The name of a drug has none of these.
NO_DRUG = word_set(
    "a an the of and or for to in at by on from with was were is are be been being has had have he she they his her"
    " their it its we i you this that",
    "which who patient pt will would should could may not no none nil unknown n/a na see list reviewed unchanged"
    " same other others medication",
    "self helps instills instill compliance medications medicine meds drug drugs above below denies without reconciled per continue",
    "regular current seen examined including",
)
# Words between a drug's name and its first attribute.
DRUG_TAIL = word_set("take takes taking apply applied use inject tablet tablets tab tabs capsule capsules cap caps half one two x")

# The name of what somebody is allergic to has none of these.
NO_SUBSTANCE = PROSE | word_set(
    "the none nil no known unknown allergies allergy denies reviewed reaction reactions nkda nka to include"
    " includes any other same medication",
    "medications drug drugs",
)
