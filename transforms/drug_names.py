"""Where a text names drugs: the vocabulary's names with the salts, forms and partners that belong to them, classes, and INN stems.

Stems: WHO, "The use of stems in the selection of International Nonproprietary Names (INN) for pharmaceutical substances" (2018,
WHO/EMP/RHT/TSN/2018.1); only those long enough to mark a drug in running text. Classes, abbreviations of eye drops and everyday short names
were compiled for this project. It does not know whether the patient takes what is named. One pass over the names: linear.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from transforms.lexicon import word_set
from transforms.terms import Term

Span = tuple[int, int]

# Drugs by what they are called besides a name of a substance or a brand.
_CLASSES = (
    r"(?:cortico)?steroids?|glucocorticoids?|nsaids?|non-?steroidal anti-?inflammator(?:y|ies)(?: (?:drugs?|agents?))?|antibiotics?"
    r"|antivirals?"
    r"|antifungals?|anticoagulants?|anticoagulation|antidepressants?|tricyclics?|antipsychotics?|neuroleptics?|anticonvulsants?"
    r"|antiepileptics?"
    r"|antihistamines?|antihypertensives?|antiemetics?|antacids?|beta[- ]?blockers?|ace[- ]inhibitors?|calcium[- ]channel blockers?"
    r"|diuretics?"
    r"|thiazides?(?: diuretics?)?|loop diuretics?|statins?|opioids?|opiates?|narcotics?|benzodiazepines?|barbiturates?|ssris?|snris?|maois?"
    r"|(?:selective )?serotonin reuptake inhibitors?|proton pump inhibitors?|ppis?|bisphosphonates?|cephalosporins?|aminoglycosides?"
    r"|fluoroquinolones?|macrolides?|sulfonylureas?|(?:oral )?contraceptives?|prostaglandin analogu?(?:e)?s?|bronchodilators?|laxatives?"
    r"|immunosuppressants?|chemotherapy|multivitamins?|(?:eye|lubricating|lubricant) (?:drops?|ointments?|gels?)"
    r"|lubricants?|interleukin-\d{1,2}|il-2|g-csf|gm-csf|interferons?|intravenous immunoglobulins?|ivig|ifn[- ]?(?:alpha|beta|gamma)?"
    r"|peginterferon"
)
# Short names that the vocabulary leaves out because they mean other things elsewhere; before an eye, a frequency or a dose they are drugs.
_SHORT = (
    r"pf[- ]?at'?s?|at's|pfats?|artificial tears?|pres(?:ervative)?[- ]free (?:artificial )?tears?|a\.? tears|pred(?: forte)?|fml|mmc"
    r"|atra|aza"
    r"|cbz|mtx|5-?fu|ara-?c|gtn|hctz|ointments?|oflox|cipro|vanc|vanco|tobra"
)
# Artificial tears; in small letters a preposition.
_TEARS = re.compile(r"(?<![\w/*.'-])(?:PF )?AT[s']?s?(?![\w/'-])")
_OTHERS = (
    r"refresh(?: (?:plus|optive|liquigel|tears|pm|celluvisc))?|systane(?: (?:ultra|balance|gel|complete))?|genteal|soothe(?: xp)?"
    r"|theratears|celluvisc"
    r"|optive|ocuvite|preservision|areds(?: ?2)?|iopidine|polytrim|acular|ritalin|lutein|durezol|lotemax|xiidra|vyzulta|rhopressa"
    r"|rocklatan|zioptan"
    r"|simbrinza|azopt"
    r"|betimol|istalol|muro ?128|niacin|nicotinic acid|fish oil|omega-?3|vitamin [a-k]\d{0,2}|cytosine arabinoside|gold|fluorometholone"
    r"|retinoic acid|amoxycillin|(?:calcium|iron|zinc|magnesium|potassium) (?:supplements?|tablets?|carbonate|citrate|sulfate|sulphate)"
)
_WORDED = re.compile(rf"(?<![\w/*-])(?:{_OTHERS}|{_CLASSES})(?![\w])")
_SHORTENED = re.compile(rf"(?<![\w/*.'-])(?:{_SHORT})(?![\w'/-])")
_STEMS = (
    "olol|prost|mab|tinib|ciclib|rafenib|parib|navir|ciclovir|cyclovir|buvir|asvir|tegravir|conazole|cillin|mycin|micin|floxacin|cycline"
    "|statin|sartan|dipine|gliptin|gliflozin|glutide|glitazone|prazole|triptan|setron|parin|xaban|gatran|caine|curium|zepam|zolam"
    "|barbital|profen|coxib|fibrate|dronate|sone|solone|pramine|triptyline|oxetine|azepine|thiazide|semide|zolamide|onidine|terol"
    "|tidine|terone|platin|rubicin|taxel|poside|tecan|trexate|mustine|fungin|quine|nidazole|vudine|tropium"
)
_STEM = re.compile(rf"(?<![\w-])[a-z]{{3,18}}(?:{_STEMS})(?![\w-])")
# Words that end like a drug and are none.
_NO_STEM = word_set(
    "control protocol cholesterol somatostatin keystone milestone limestone person someone membrane cocaine routine marine",
    "aldosterone cortisone",
    "progesterone testosterone aldosterone gravestone gallstone kidneystone headstone winsone blesone ransone nystatin",
)
_SALT = (
    r"acetate|sodium|hydrochloride|hcl|hci|maleate|mesylate|tartrate|bitartrate|succinate|phosphate|sulfate|sulphate|citrate"
    r"|potassium|calcium"
    r"|magnesium|fumarate|besylate|bromide|chloride|hydrobromide|nitrate|propionate|furoate|valerate|acetonide|gluconate|carbonate|pamoate"
    r"|macrocrystals|monohydrate/macrocrystals|isophane|human isophane|human|decanoate|palmitate|monohydrate|dihydrate|trihydrate"
    r"|anhydrous|medoxomil|axetil|etexilate|disoproxil"
)
_FORM = r"xr|er|sr|cr|xl|la|odt|ec|dr|cd|ointment|ung|gel|cream|inhaler|z|p|pf|(?:alpha|alfa|beta|gamma)(?:[- ]?\d[ab]?)?|v potassium|v"
_BEHIND = re.compile(rf"(?:[ -](?:{_SALT})(?![\w-]))?(?:[ -](?:{_FORM})(?![\w/'-]))?")
_BEFORE = re.compile(
    r"(?:^|(?<=[\s(,;:/*-]))(?:(?:preservative[- ]free|pf|d|l|dl|all-trans|low[- ]molecular[- ]weight|unfractionated|liposomal"
    r"|pegylated|recombinant|ethinyl|sodium|potassium|calcium|magnesium|disodium|para|cis|5|enteric[- ]coated|conjugated)[ -])+$"
)
_JOINT = re.compile(r"[ ]?/[ ]?|-")
# What is named but not taken as a medicine, or is the name of a test.
_NO_MEDICINE = word_set(
    "alcohol ethanol cocaine heroin cannabis marijuana nicotine tobacco caffeine oxygen water glucose urea creatinine cholesterol",
    "amphetamine",
    "methamphetamine protein iron sodium potassium chloride calcium magnesium phosphorus bicarbonate serotonin methanol hemoglobin lactate",
)
_FOOD = word_set("milk casein egg eggs soy soybean wheat gluten peanut peanuts shellfish latex pollen ragweed dander mold mould")
_WORDS = re.compile(r"[a-z]+")
_ABOUT = re.compile(
    r"[ -](?:levels?|deficien|allerg|intoleran|screen|antibod|abuse|use\b|dependence|addiction|misuse|concentrations?|excretion"
    r"|clearance|binding"
    r"|sensitiv|resistan|challenge|receptor|metabolism|saturation)"
)
_REACH = 40


def find_drugs(written: str, folded: str, terms: Sequence[Term]) -> list[Span]:
    """Characters [start, end) of the drugs that a text names, in order; none overlaps another.

    `folded`: the text in lower case, of the same length. `terms`: those of the text. Drugs joined by a slash or a hyphen
    are one: "dorzolamide/timolol".
    """
    found = _joined(folded, sorted(_apart(_candidates(written, folded, terms))))
    return [span for span in found if not _is_no_medicine(folded, span)]


def _candidates(written: str, folded: str, terms: Sequence[Term]) -> Iterator[Span]:
    named = [(term.start, term.end) for term in terms if term.kind == "drug"]
    others = [(term.start, term.end) for term in terms if term.kind != "drug"]
    yield from (_widened(folded, span) for span in named)
    yield from (match.span() for match in _WORDED.finditer(folded))
    yield from (match.span() for match in _SHORTENED.finditer(folded))
    yield from (match.span() for match in _TEARS.finditer(written))
    taken = {start for start, _ in (*named, *others)}
    for match in _STEM.finditer(folded):
        if match.start() not in taken and match.group() not in _NO_STEM:
            yield _widened(folded, match.span())


def _widened(folded: str, span: Span) -> Span:
    """With what belongs to the name: "preservative-free", "sodium", "acetate", "XL"."""
    start, end = span
    behind = _BEHIND.match(folded, end)
    before = _BEFORE.search(folded[max(0, start - _REACH) : start])
    return start - len(before.group()) if before else start, behind.end() if behind else end


def _apart(spans: Iterator[Span]) -> Iterator[Span]:
    """Of spans that overlap, the one that begins first, and of these the longest."""
    reach = 0
    for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start >= reach:
            reach = end
            yield start, end


def _joined(folded: str, spans: Sequence[Span]) -> list[Span]:
    joined: list[Span] = []
    for start, end in spans:
        if joined and (joint := _JOINT.match(folded, joined[-1][1])) and joint.end() == start:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined


def _is_no_medicine(folded: str, span: Span) -> bool:
    name = folded[slice(*span)]
    return name in _NO_MEDICINE or not _FOOD.isdisjoint(_WORDS.findall(name)) or _ABOUT.match(folded, span[1]) is not None
