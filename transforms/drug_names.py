"""Where a text names drugs: the vocabulary's names with the salts, forms and partners that belong to them, classes, and INN stems.

Stems: WHO, "The use of stems in the selection of International Nonproprietary Names (INN) for pharmaceutical substances" (2018,
WHO/EMP/RHT/TSN/2018.1); only those long enough to mark a drug in running text. Classes, abbreviations of eye drops and everyday short names
were compiled for this project. It does not know whether the patient takes what is named. One pass over the names: linear.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from transforms.lexicon import word_set
from transforms.sections import Page
from transforms.terms import Term
from transforms.words import Phrases, Words

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
    r"|cbz|mtx|ara-?c|gtn|hctz|ointments?|oflox|cipro|vanc|vanco|tobra"
)
# Artificial tears; in small letters a preposition.
_TEARS = re.compile(r"[AP](?<![\w/*.'-].)(?:(?<=P)F AT|(?<=A)T)[s']?s?(?![\w/'-])", re.DOTALL)
_OTHERS = (
    r"refresh(?: (?:plus|optive|liquigel|tears|pm|celluvisc))?|systane(?: (?:ultra|balance|gel|complete))?|genteal|soothe(?: xp)?"
    r"|theratears|celluvisc"
    r"|optive|ocuvite|preservision|areds(?: ?2)?|iopidine|polytrim|acular|ritalin|lutein|durezol|lotemax|xiidra|vyzulta|rhopressa"
    r"|rocklatan|zioptan"
    r"|simbrinza|azopt"
    r"|betimol|istalol|muro ?128|niacin|nicotinic acid|fish oil|omega-?3|vitamin [a-k]\d{0,2}|cytosine arabinoside|gold|fluorometholone"
    r"|retinoic acid|amoxycillin|(?:calcium|iron|zinc|magnesium|potassium) (?:supplements?|tablets?|carbonate|citrate|sulfate|sulphate)"
)
_WORDED = Phrases(
    rf"(?<![\w/*-])(?:{_OTHERS}|{_CLASSES})(?![\w])",
    "ace acul amin amox anta anti ared azop barb benz beta beti bisp bron calc cell ceph chem cont cort cyto diur dure eye fish"
    " fluo g gent gluc gm gold ifn ifna ifnb ifng il immu inte intr iopi iron ista ivig laxa loop lote lubr lute macr magn maoi"
    " mult muro narc neur niac nico non nons nsai ocuv omeg opia opio opti oral pegi poly pota ppi ppis pres pros prot refr reti"
    " rhop rita rock sele sero simb snri soot ssri stat ster sulf syst ther thia tric vita vyzu xiid zinc ziop",
)
_SHORTENED = Phrases(
    rf"(?<![\w/*.'-])(?:{_SHORT})(?![\w'/-])",
    "a ara arac arti at atra aza cbz cipr fml gtn hctz mmc mtx oflo oint pf pfat pred pres tobr vanc",
)
_FLUOROURACIL = re.compile(r"5(?<![\w/*.'-].)-?fu(?![\w'/-])", re.DOTALL)
_STEMS = (
    "olol|prost|mab|tinib|ciclib|rafenib|parib|navir|ciclovir|cyclovir|buvir|asvir|tegravir|conazole|cillin|mycin|micin|floxacin|cycline"
    "|statin|sartan|dipine|gliptin|gliflozin|glutide|glitazone|prazole|triptan|setron|parin|xaban|gatran|caine|curium|zepam|zolam"
    "|barbital|profen|coxib|fibrate|dronate|sone|solone|pramine|triptyline|oxetine|azepine|thiazide|semide|zolamide|onidine|terol"
    "|tidine|terone|platin|rubicin|taxel|poside|tecan|trexate|mustine|fungin|quine|nidazole|vudine|tropium"
)
_STEM = re.compile(rf"(?<![\w-])[a-z]{{3,18}}(?:{_STEMS})(?![\w-])")
# The last letters of a word with a stem, as many as the shortest stem has: few words have them, and only these are matched.
_STEM_END = 3
_STEM_ENDS = frozenset(stem[-_STEM_END:] for stem in _STEMS.split("|"))
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


def find_drugs(page: Page, terms: Sequence[Term]) -> list[Span]:
    """Characters [start, end) of the drugs that a note names, in order; none overlaps another.

    `terms`: those of the note. Drugs joined by a slash or a hyphen are one: "dorzolamide/timolol".
    """
    found = _joined(page.folded, sorted(_apart(_candidates(page, terms))))
    return [span for span in found if not _is_no_medicine(page.folded, span)]


def _candidates(page: Page, terms: Sequence[Term]) -> Iterator[Span]:
    folded = page.folded
    named = [(term.start, term.end) for term in terms if term.kind == "drug"]
    others = [(term.start, term.end) for term in terms if term.kind != "drug"]
    yield from (_widened(folded, span) for span in named)
    yield from (match.span() for match in _WORDED.finditer(page.words))
    yield from (match.span() for match in _SHORTENED.finditer(page.words))
    yield from (match.span() for match in _FLUOROURACIL.finditer(folded))
    yield from (match.span() for match in _TEARS.finditer(page.lined))
    taken = {start for start, _ in (*named, *others)}
    for match in _with_stem(page.words):
        if match.start() not in taken and match.group() not in _NO_STEM:
            yield _widened(folded, match.span())


def _with_stem(words: Words) -> Iterator[re.Match[str]]:
    for word, start in zip(words.runs, words.starts, strict=True):
        if word[-_STEM_END:] in _STEM_ENDS and (match := _STEM.match(words.folded, start)):
            yield match


def _widened(folded: str, span: Span) -> Span:
    """With what belongs to the name: "preservative-free", "sodium", "acetate", "XL"."""
    start, end = span
    behind = _BEHIND.match(folded, end)
    before = _BEFORE.search(folded, max(0, start - _REACH), start)
    return before.start() if before else start, behind.end() if behind else end


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
