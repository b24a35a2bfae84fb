"""FHIR R4 rules over exported NDJSON: the R4B models of fhir.resources, and what those let pass.

The models check element names, types, formats and required primitives. They do not check codes against their value sets, required elements
that are given as null, XHTML, or references: that is done here. The codes are those of the R4 value sets with a required binding
(https://hl7.org/fhir/R4/terminologies-valuesets.html) that the export uses. Problems are named by resource and element, never by value.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from fhir.resources.R4B import get_fhir_model_class
from lxml import etree

# (resource, path) -> allowed codes. A path steps through lists; `coding` checks a CodeableConcept's codes.
_REQUIRED = {
    ("AllergyIntolerance", "clinicalStatus.coding.code"): "active inactive resolved",
    ("AllergyIntolerance", "verificationStatus.coding.code"): "unconfirmed confirmed refuted entered-in-error",
    ("Composition", "status"): "preliminary final amended entered-in-error",
    ("Composition", "relatesTo.code"): "replaces transforms signs appends",
    ("Composition", "section.text.status"): "generated extensions additional empty",
    ("Condition", "clinicalStatus.coding.code"): "active recurrence relapse inactive remission resolved",
    ("Condition", "verificationStatus.coding.code"): "unconfirmed provisional differential confirmed refuted entered-in-error",
    ("Device", "status"): "active inactive entered-in-error unknown",
    ("Device", "deviceName.type"): "udi-label-name user-friendly-name patient-reported-name manufacturer-name model-name other",
    ("DocumentReference", "status"): "current superseded entered-in-error",
    ("FamilyMemberHistory", "status"): "partial completed entered-in-error health-unknown",
    ("MedicationStatement", "status"): "active completed entered-in-error intended stopped on-hold unknown not-taken",
    ("Observation", "status"): "registered preliminary final amended corrected cancelled entered-in-error unknown",
    ("Observation", "valueQuantity.comparator"): "< <= >= >",
    ("Observation", "dataAbsentReason.coding.code"): "unknown",
    ("Procedure", "status"): "preparation in-progress not-done on-hold stopped completed entered-in-error unknown",
    ("Provenance", "entity.role"): "derivation revision quotation source removal",
}
# Elements of cardinality 1..1 or 1..* that the models let be left out.
_MANDATORY = {
    "AllergyIntolerance": "clinicalStatus patient",
    "Composition": "status type date author title section",
    "Condition": "subject verificationStatus code",
    "Device": "deviceName",
    "DocumentReference": "status content",
    "FamilyMemberHistory": "status patient relationship",
    "MedicationStatement": "status medicationCodeableConcept subject",
    "Observation": "status code",
    "Procedure": "status subject",
    "Provenance": "target recorded agent",
}
# Asserted by a machine, so they have to say so.
_LABELLED = frozenset(_MANDATORY) - {"Device", "DocumentReference", "Provenance"}
_XHTML = "{http://www.w3.org/1999/xhtml}"
_PARSER = etree.XMLParser(resolve_entities=False, no_network=True)


class References:
    """Ids and literal references: resources refer within their own shard, or to what belongs to all (shard None).

    Shards come one after the other. Of a shard that is done only what did not resolve within it is kept.
    """

    def __init__(self) -> None:
        self._shard: str | None = None
        self._known: set[str] = set()
        self._wanted: Counter[str] = Counter()
        self._shared: set[str] = set()
        self._open: Counter[str] = Counter()

    def enter(self, shard: str | None) -> None:
        """What is added from now on belongs to this shard."""
        if shard != self._shard:
            self._open.update({name: count for name, count in self._wanted.items() if name not in self._known})
            self._shard, self._known, self._wanted = shard, set(), Counter()

    def add(self, name: str) -> bool:
        """False when the resource is there already."""
        known = self._shared if self._shard is None else self._known
        new = name not in known
        known.add(name)
        return new

    def want(self, name: str) -> None:
        self._wanted[name] += 1

    def unresolved(self) -> Counter[str]:
        """References that lead nowhere, by the type that they name."""
        self.enter(None)
        self._open.update(self._wanted)
        self._wanted.clear()
        lost: Counter[str] = Counter()
        for name, count in self._open.items():
            if name not in self._shared:
                lost[f"reference to a {name.partition('/')[0]} that is not there"] += count
        return lost


def check_lines(table: str, data: bytes, shard: str | None, references: References) -> tuple[int, Counter[str]]:
    """(resources, problems by kind) of one NDJSON file."""
    problems: Counter[str] = Counter()
    # Not splitlines: texts may hold other line separators than NDJSON's.
    lines = data.decode().split("\n")
    references.enter(shard)
    if lines.pop():
        problems[f"{table}: the last line does not end"] += 1
    for line in lines:
        problems.update(f"{table}: {problem}" for problem in check_resource(json.loads(line), table, references))
    return len(lines), problems


def check_resource(resource: dict[str, Any], table: str, references: References) -> Iterator[str]:
    """What is wrong with a resource."""
    if resource.get("resourceType") != table:
        yield "resource of another type"
        return
    yield from _model_problems(resource)
    for element in _MANDATORY[table].split():
        if not resource.get(element):
            yield f"{element} is missing"
    for (kind, path), codes in _REQUIRED.items():
        if kind == table and any(code not in codes.split() for code in _values(resource, path.split("."))):
            yield f"{path} is not of its value set"
    if table in _LABELLED and not any(label.get("code") == "AIAST" for label in resource.get("meta", {}).get("security", ())):
        yield "no label says that a machine asserted it"
    if not references.add(f"{table}/{resource.get('id')}"):
        yield "id is not unique"
    yield from _walk(resource, references)


def _model_problems(resource: dict[str, Any]) -> Iterator[str]:
    from pydantic import ValidationError

    try:
        get_fhir_model_class(resource["resourceType"]).model_validate(resource)
    except ValidationError as error:
        # Names of elements and kinds of errors only: the messages quote values.
        for found in error.errors(include_input=False, include_context=False, include_url=False):
            place = ".".join(str(step) for step in found["loc"] if isinstance(step, str))
            yield f"{place or 'resource'}: {found['type']}"


def _values(element: Any, path: list[str]) -> Iterator[Any]:
    if isinstance(element, list):
        for item in element:
            yield from _values(item, path)
    elif not path:
        yield element
    elif isinstance(element, dict) and path[0] in element:
        yield from _values(element[path[0]], path[1:])


def _walk(element: Any, references: References) -> Iterator[str]:
    """Rules that hold everywhere: nothing is null or empty, narratives are XHTML; collects references."""
    if element is None or element in ("", [], {}):
        yield "an element is empty"
    elif isinstance(element, list):
        for item in element:
            yield from _walk(item, references)
    elif isinstance(element, dict):
        if isinstance(element.get("reference"), str):
            references.want(element["reference"])
        if "div" in element and not _is_narrative(element["div"]):
            yield "a narrative is not XHTML"
        for value in element.values():
            yield from _walk(value, references)


def _is_narrative(div: str) -> bool:
    try:
        root = etree.fromstring(div.encode(), _PARSER)
    except etree.XMLSyntaxError:
        return False
    # Only what we write: an escape that failed would show as another element.
    return root.tag == f"{_XHTML}div" and all(part.tag in (f"{_XHTML}{name}" for name in ("div", "p", "br")) for part in root.iter())
