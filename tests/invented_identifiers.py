"""Identifiers of nobody, by kind, as people write them: what the leak check has to find."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from random import Random

FIRST = "Anna Ben Dmitri Eun-ji Fatima Grace Hiro Ines João Kofi Lena Mehmet Nadia Olu Priya Quentin Rosa Sven Tomás Uma Yusuf".split()
LAST = (
    "Adeyemi Berg Castillo Dubois Eriksson Fernández Grünwald Hughes Ito Jensen Kowalski Lindqvist MacLeod Ngũgĩ O'Brien Papadopoulos "
    "Quispe Rossi Smith-Jones Tran Unger Vasquez Wójcik Yıldız Zhang"
).split()
MONTHS = "January February March April May June July August September October November December".split()


def digits(draw: Random, count: int) -> str:
    return "".join(draw.choice("0123456789") for _ in range(count))


def name(draw: Random) -> str:
    first, last = draw.choice(FIRST), draw.choice(LAST)
    title = draw.choice(["Mr", "Mr.", "Mrs.", "Ms", "Miss", "Dr", "Dr.", "Prof."])
    return draw.choice([
        f"{title} {last}", f"{title} {first} {last}", f"{title} {first[0]}. {last}", f"{title} van der {last}",
        f"Patient: {first} {last}", f"Patient name: {last}, {first}", f"Pt: {last}", f"patient {first} {last} was seen",
        f"Name: {first} {last}", f"Surname: {last}", f"First name: {first}", f"PATIENT: {last.upper()}, {first.upper()}",
    ])  # fmt: skip


def social_security_number(draw: Random) -> str:
    area = draw.choice([draw.randint(1, 665), draw.randint(667, 899)])
    plain = f"{area:03}-{draw.randint(1, 99):02}-{draw.randint(1, 9999):04}"
    return draw.choice([plain, plain.replace("-", " "), f"SSN {plain}", f"SSN: {plain.replace('-', '')}", f"Social Security # {plain}"])


def nhs_number(draw: Random) -> str:
    while True:
        nine = digits(draw, 9)
        check = (11 - sum(int(d) * w for d, w in zip(nine, range(10, 1, -1), strict=True)) % 11) % 11
        if check < 10:
            ten = f"{nine}{check}"
            spaced = f"{ten[:3]} {ten[3:6]} {ten[6:]}"
            return draw.choice([spaced, spaced.replace(" ", "-"), f"NHS number: {spaced}", f"NHS No. {ten}", f"NHS {ten}"])


def telephone_number(draw: Random) -> str:
    area, exchange, line = draw.randint(201, 989), draw.randint(200, 999), digits(draw, 4)
    country = draw.choice(["44 20", "44 7700", "49 30", "33 1", "61 2", "91 98", "81 3", "353 1"])
    return draw.choice([
        f"{area}-{exchange}-{line}", f"({area}) {exchange}-{line}", f"{area}.{exchange}.{line}", f"+1 {area} {exchange} {line}",
        f"1-{area}-{exchange}-{line}", f"Tel: {exchange}-{line}", f"phone {area}{exchange}{line}", f"Fax: ({area}) {exchange}-{line}",
        f"+{country} {digits(draw, 4)} {digits(draw, 4)}", f"+{country.replace(' ', '')}{digits(draw, 8)}",
        f"Mobile no. 07{digits(draw, 9)}", f"pager {digits(draw, 7)}",
    ])  # fmt: skip


def e_mail_address(draw: Random) -> str:
    first, last = draw.choice(FIRST[:8]).lower(), draw.choice(LAST[:8]).lower()
    domain = draw.choice(["mail.example", "clinic.example.org", "x-y.example.co.uk"])
    return f"{first}{draw.choice(['.', '_', '', '+'])}{last}{draw.choice(['', '77'])}@{domain}"


def written_date(draw: Random) -> str:
    day = date(1930, 1, 1) + timedelta(days=draw.randrange(34_000))
    month = MONTHS[day.month - 1]
    return draw.choice([
        day.isoformat(), f"{day:%m/%d/%Y}", f"{day:%d.%m.%Y}", f"{day.month}/{day.day}/{day:%y}", f"{day:%d-%m-%Y}",
        f"{day.day} {month} {day.year}", f"{month} {day.day}, {day.year}", f"{day.day:02}-{month[:3]}-{day.year}",
        f"{month[:3]} {day.day}, {day.year}",
    ])  # fmt: skip


def date_of_birth(draw: Random) -> str:
    labels = ["DOB ", "DOB: ", "D.O.B. ", "Date of birth: ", "date of birth is ", "born ", "born on ", "Birthdate: ", "Birth date "]
    return draw.choice(labels) + written_date(draw)


def event_date(draw: Random) -> str:
    labels = ["admitted ", "Admission date: ", "discharged on ", "Discharge date ", "died ", "seen on ", "Visit date: ", "Death: "]
    return draw.choice(labels) + written_date(draw)


def age_over_89(draw: Random) -> str:
    age = draw.randint(90, 112)
    return draw.choice([f"{age}-year-old", f"{age} years old", f"{age} yo", f"{age} y/o", f"aged {age}", f"Age: {age}", f"{age} yrs old"])


def record_number(draw: Random) -> str:
    seven = digits(draw, 7)
    number = draw.choice([seven, f"{seven}0", f"{seven[:3]}-{seven[3:]}", f"A{seven}", f"AB-{seven}"])
    label = draw.choice([
        "MRN ", "MRN: ", "MRN#", "mrn=", "Medical record number: ", "Medical Record No. ", "Hospital no: ", "Chart # ", "Patient ID: ",
        "patient_id ", "Account number ", "Acct: ", "Member ID ", "Policy number: ", "Encounter ID: ", "Health plan no. ", "Accession # ",
    ])  # fmt: skip
    return label + number


def address(draw: Random) -> str:
    street = f"{draw.randint(1, 9999)} {draw.choice(['Maple', 'Elm Tree', 'Saint Mary', 'King', 'Oakwood'])}"
    kind = draw.choice(["Street", "St", "Avenue", "Ave.", "Road", "Lane", "Drive", "Blvd", "Court", "Terrace"])
    return draw.choice([
        f"{street} {kind}", f"{street} {kind}, Springfield, IL {digits(draw, 5)}", f"Springfield, OH {digits(draw, 5)}-{digits(draw, 4)}",
        f"ZIP {digits(draw, 5)}", f"zip code: {digits(draw, 5)}", f"P.O. Box {digits(draw, 4)}", f"PO Box {digits(draw, 3)}",
        "Postcode: AB12 3CD",
    ])  # fmt: skip


INVENTED: dict[str, Callable[[Random], str]] = {
    "name": name, "social security number": social_security_number, "nhs number": nhs_number, "telephone number": telephone_number,
    "e-mail address": e_mail_address, "date of birth": date_of_birth, "date": event_date, "age over 89": age_over_89,
    "record number": record_number, "address": address,
}  # fmt: skip
