"""Whether a plan asks for what a word calls for: it opens an item ("- Repeat CBC") or a word asks for it ("will ...", "advised to ...").

What is past, denied or under a condition is not asked for. What is only reported ("was told to ...") counts in a plan and near the end of
a note, where nothing tells what came of it. The triggers were compiled for this project, in the manner of NegEx (Chapman et al. 2001,
doi 10.1006/jbin.2001.1029). At most BEFORE characters before a word and 120 behind it are looked at.
"""

from __future__ import annotations

import re

from transforms.lexicon import word_set
from transforms.sections import Page

# Headings of lists of what is to happen; of plans; of what was.
HEADED = word_set("follow_up follow_up_arrangements follow_up_appointments follow_up_plan appointments next_steps to_do")
PLANS = HEADED | word_set("plan assessment_and_plan instructions management_plan recommendations discharge_plan")
TOLD = word_set(
    "history_of_present_illness past_medical_history past_surgical_history family_history social_history review_of_systems birth_history",
    "physical_examination results gynecologic_history psychiatric_history timeline discussion clinical_findings patient_information",
    "chief_complaint",
)
BEFORE = 72  # characters
_LAST = 400  # characters of a note's end

# Words that say nothing else.
_PLAIN = (
    r"please|be|also|then|and|or|need|to|have|get|obtain|order(?:ed)?|for|a|an|the|his|her|your|their|with|close|early|routine|regular"
    r"|urgent|outpatient|clinic|patient|pt|again|now|schedule|arrange|book|make|set[ ]up|recommend|plan|all|one|home"
)
_FILLER = rf"(?:(?:{_PLAIN}|him|he|she|they|you|them)[ ]){{0,5}}"
_OPENS = re.compile(rf"(?:^|[\n.;:,\u2022*|>)]|[ ][-\u2013]|\n[-\u2013])[ \t]*(?:[-\u2013*\u2022][ \t]+)?(?:(?:{_PLAIN})[ ]){{0,5}}$")
_ASKED = re.compile(
    r"(?<!\w)(?:will|should|shall|must|needs?|please|would[ ](?:like|recommend)|going[ ]to|recommend(?:ed)?|advised?|asked|told|instructed"
    r"|suggest(?:ed)?|encouraged?|plan(?:s|ned)?(?:[ ](?:to|for))?|agreed|arrange[ds]?|schedule|ordered|requested|booked|ensure|then"
    rf"|(?:is|are|want|wants|like|continue[sd]?|needs?|ought|has|have)[ ]to)[ ](?:[^.;:\n]{{1,40}}[ ](?:and|then)[ ])?{_FILLER}$"
)
_REPORTED = re.compile(
    r"(?<!\w)(?:was|were|had[ ]been|been|being)[ ](?:\w{1,12}ly[ ]|then[ ]|also[ ])?(?:recommended|encouraged|scheduled|planned|discharged"
    r"|ordered|requested|given)(?:[ ][^.;:\n]{0,40})?$"
    r"|(?<!have )(?<!has )(?<!\w)(?:advised|instructed|asked|told)(?:[ ][^.;:\n]{0,40})?$"
    r"|(?<!\w)(?:presents?|presented|presenting|here|comes|came|seen|in[ ]order|returned|able|unable|failed|had|likely|was|were|used"
    r"|decided|chose|wanted|went|opted|began)[ ](?:today[ ])?(?:to|for)[ ](?:[a-z]{1,8}[ ]){0,2}$"
)
_REPORTED_BEHIND = re.compile(
    r"[^.;\n]{0,80}?[ ](?:was|were|had[ ]been)[ ](?:ordered|scheduled|arranged|recommended|advised|planned|requested)(?!\w)"
)
_REFUSED = re.compile(
    r"(?<!\w)(?:(?:no|not|never|without|declin(?:e[sd]?|ing)|refus(?:e[sd]?|ing)|denies|lost|failed|missed|\w{0,5}n['\u2019]t|cannot)"
    r"(?:[ ][^.,;:\n]{0,44})?[ ]|(?:if|unless|in[ ]case|in[ ]the[ ]event)[ ][^.;\n]{0,66})$"
)
# "upon referral to": the time or the ground of something else.
_ALREADY = re.compile(
    r"(?<!\w)(?:at|upon|on|after|before|prior[ ]to|since|by|following|during|last|from|of|until)[ ](?:[a-z]{1,8}[ ]){0,2}$"
)
_SENT = re.compile(
    r"(?:^|[\n:\u2022*]|[ ]-|(?<!\w)(?:have|place|send|sent|made|make|put[ ]in|provided?|submit(?:ted)?))[ ]*(?:an?[ ]|the[ ])?$"
)
_CONSIDERED = re.compile(r"(?<!\w)(?:consider(?:ed|ing)?|possibl[ey]|may|might|could|potential(?:ly)?)[ ](?:[^.;\n]{0,40}[ ])?$")
_CAME_ABOUT = re.compile(
    r"[^.;\n]{0,120}?(?<!\w)(?:show(?:s|ed|ing)|reveal(?:s|ed|ing)|demonstrat(?:es|ed|ing)|confirmed|remained|had|were|found|noted|obtained"
    r"|performed|was(?![ ](?:ordered|scheduled|arranged|recommended|advised|planned|made|placed|sent|booked|requested|provided|given)))"
    r"(?!\w)"
)
_NOUNS = ("referral", "is ", "are ", "booked")


def is_requested(page: Page, call: re.Match[str]) -> bool:
    """Whether what stands around a call, a match in `page.folded`, asks for it and leaves it open."""
    folded, start, low = page.folded, call.start(), clause_start(page.folded, call.start())
    if is_refused(folded, start) or _CAME_ABOUT.match(folded, call.end()):
        return False
    current = len(folded) - start < _LAST or page.section_at(start) in PLANS
    if not current and (_REPORTED.search(folded, low, start) or _REPORTED_BEHIND.match(folded, call.end())):
        return False
    if not call.group().startswith(_NOUNS):
        return bool(_OPENS.search(folded, low, start) or _ASKED.search(folded, low, start))
    sent = current or not call.group().startswith("referral") or _SENT.search(folded, low, start)
    return bool(sent) and not _ALREADY.search(folded, low, start)


def is_refused(folded: str, offset: int) -> bool:
    """Whether a denial or a condition stands before it in its clause."""
    return _REFUSED.search(folded, clause_start(folded, offset), offset) is not None


def is_considered(folded: str, offset: int) -> bool:
    """Whether it is only thought of."""
    return _CONSIDERED.search(folded, clause_start(folded, offset), offset) is not None


def came_about(folded: str, offset: int) -> bool:
    """Whether its clause tells what was."""
    return _CAME_ABOUT.match(folded, clause_start(folded, offset)) is not None


def clause_start(folded: str, offset: int) -> int:
    """The mark that a clause begins behind (the end of a line or sentence, a semicolon); at most BEFORE characters before `offset`."""
    low = max(0, offset - BEFORE)
    return max(low, folded.rfind("\n", low, offset), folded.rfind(". ", low, offset), folded.rfind(";", low, offset))
