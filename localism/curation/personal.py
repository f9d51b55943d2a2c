"""Gate personal_data: patterns that may belong to a person, with the checksums they carry.

What was made for examples passes: example.com, 555 numbers, documentation addresses, the published
test cards and accounts, and role addresses such as info@. So do toll-free numbers: they belong to
hotlines and firms. Names, postal addresses and passwords are not looked for, since invented ones
cannot be told from real ones.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Iterator

from localism.curation.candidate import Candidate, Verdict

_EMAIL = re.compile(
    r"(?<![\w.+-])([\w.+-]{1,64})@((?:[a-z0-9-]{1,63}\.)+[a-z]{2,24})\b", re.IGNORECASE
)
_SPELLED_EMAIL = re.compile(
    r"\b[\w.+-]{1,64}\s*[\[({]\s*at\s*[\])}]\s*[\w-]{1,63}\s*[\[({]\s*dot\s*[\])}]\s*[a-z]{2,24}\b",
    re.IGNORECASE,
)
_EXAMPLE_DOMAIN = re.compile(
    r"(?:^|\.)(?:example|test|invalid|localhost|local)$|(?:^|\.)(?:example|sample|test|domain|company"
    r"|yourcompany|yourdomain|mydomain|mycompany|acme|email|school|university|bank|website|site)"
    r"\.(?:com|org|net|edu|co\.uk|de|fr|es)$",
    re.IGNORECASE,
)
_ROLE_ADDRESS = re.compile(
    r"(?:info|support|contact|sales|no-?reply|admin|hello|help|office|service|jobs|press|team|booking"
    r"|bookings|billing|feedback|marketing|hr|careers|orders|events|webmaster|postmaster|git|user"
    r"|username|name|your[\w.-]*|kontakt|buero|accueil|contacto)",
    re.IGNORECASE,
)
_INTERNATIONAL = re.compile(r"(?<![\w.+])\+\d{1,3}(?:[\s.-]?\(?\d{1,4}\)?){2,5}(?![\w-])")
_NORTH_AMERICAN = re.compile(
    r"(?<![\w.+-])(?:\+?1[ .-])?(?:\((\d{3})\) ?|(\d{3})[-. ])(\d{3})[-. ]?(\d{4})(?![\w-])"
)
_NATIONAL = re.compile(
    r"(?:\b(?:phone|tel|telephone|call|mobile|cell|fax|telefon|handy|mobil|téléphone|teléfono|whatsapp)"
    r"\b\.?\s*(?:me|us|number|no\.?|nummer)?\s*(?:is|at|on|under|ist|unter)?\s*[:：]?\s*)"
    r"(0\d{1,4}[ /-]?\d{2,4}(?:[ -]?\d{2,4}){1,3})(?!\w)",
    re.IGNORECASE,
)
# Mobile numbers of Britain, Germany and France as they stand alone.
_MOBILE = re.compile(
    r"(?<![\w.+-])(?:07\d{3}[ -]?\d{3}[ -]?\d{3}|01[567]\d[ /-]?\d{7,8}|0[67](?:[ .-]?\d{2}){4})"
    r"(?![\w-]|\.\d)"
)
_TOLL_FREE = frozenset("800 822 833 844 855 866 877 888".split())
# Ofcom's numbers for drama; Germany's; Australia's; France's.
_DRAMA = re.compile(
    r"^(?:44|0)(?:7700900|2079460|1632960|1134960)|^(?:49|0)(?:30)?23125|^(?:61|0)(?:491570|491571)"
    r"|^(?:33|0)(?:199|1990|639980)"
)
_SEQUENCE = re.compile(r"123456|0{5}|1{5}|2{5}|9{5}|987654")
_CARD = re.compile(
    r"(?<![\w.-])(?:\d[ -]?){12,18}\d(?![\w.-]*\d)|(?<![\w.-])\d{4}(?:\.\d{4}){3}(?![\w.-]*\d)"
)
_TEST_CARDS = frozenset(
    "4111111111111111 4242424242424242 4012888888881881 5555555555554444 5105105105105100"
    " 378282246310005 371449635398431 6011111111111117 6011000990139424 30569309025904"
    " 3530111333300000 4000056655665556 5200828282828210 4444333322221111".split()
)
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")
_TEST_IBANS = frozenset(
    "GB82WEST12345698765432 GB29NWBK60161331926819 DE89370400440532013000"
    " FR1420041010050500013M02606 ES9121000418450200051332 NL91ABNA0417164300"
    " CH9300762011623852957 IT60X0542811101000000123456 AT611904300234573201"
    " BE68539007547034 DE75512108001245126199".split()
)
_SSN = re.compile(r"(?<![\w-])(?!000|666|9)(\d{3})-(?!00)(\d{2})-(?!0000)(\d{4})(?![\w-])")
_SPACED_SSN = re.compile(
    r"(?:social security|\bSSN\b)[^.\n\d]{0,40}(?!000|666|9)\d{3} (?!00)\d{2} (?!0000)\d{4}(?!\w)",
    re.IGNORECASE,
)
_TEST_SSNS = frozenset(("078-05-1120", "219-09-9999", "123-45-6789", "111-11-1111"))
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:])(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}(?![\w:])", re.IGNORECASE)
_PUBLIC_SERVICES = frozenset(("8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9"))
_KEY = re.compile(
    r"\bsk-(?:proj-|ant-)?[A-Za-z0-9_-]{20,}|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{30,}\b"
    r"|\bAIza[0-9A-Za-z_-]{35}\b|\bxox[abprs]-[0-9A-Za-z-]{20,}|\bglpat-[0-9A-Za-z_-]{20,}"
    r"|\bhf_[A-Za-z0-9]{30,}\b|-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----"
    r"|\beyJ[\w-]{15,}\.eyJ[\w-]{15,}\.[\w-]{20,}"
    r"|\b(?i:aws_secret_access_key)\W{1,4}[A-Za-z0-9/+]{35,45}\b"
)
_PLACEHOLDER = re.compile(r"example|your|x{4}|placeholder|\.\.\.|sample|12345|abcde", re.IGNORECASE)


def personal_data(candidate: Candidate, most: int) -> Verdict:
    """No more than `most` pieces of personal data in both parts; the value is their number.

    The reason names their kinds and never repeats them.
    """
    kinds = list(found_kinds(candidate.text))
    if len(kinds) > most:
        counted = ", ".join(f"{kind} ({n})" for kind, n in sorted(Counter(kinds).items()))
        return Verdict(False, f"personal data: {counted}", len(kinds))
    return Verdict(True, value=len(kinds))


def found_kinds(text: str) -> Iterator[str]:
    """The kind of each piece of personal data in a text."""
    yield from ("e-mail address" for found in _EMAIL.finditer(text) if _is_someones(found))
    yield from ("e-mail address" for _ in _SPELLED_EMAIL.finditer(text))
    ibans = {found[0].replace(" ", "") for found in _IBAN.finditer(text)}
    yield from ("bank account" for iban in ibans - _TEST_IBANS if _is_iban(iban))
    # The digits of an account may pass for a card's.
    cards = {re.sub(r"\D", "", found[0]) for found in _CARD.finditer(_IBAN.sub(" ", text))}
    yield from ("payment card" for card in cards - _TEST_CARDS if _is_card(card))
    yield from (
        "social security number" for found in _SSN.finditer(text) if found[0] not in _TEST_SSNS
    )
    yield from ("social security number" for _ in _SPACED_SSN.finditer(text))
    yield from ("phone number" for _ in _phones(text))
    yield from ("internet address" for found in _IPV4.finditer(text) if _is_host(text, found))
    yield from ("internet address" for found in _IPV6.finditer(text) if _is_global(found[0]))
    yield from ("access key" for found in _KEY.finditer(text) if not _PLACEHOLDER.search(found[0]))


def _is_someones(address: re.Match[str]) -> bool:
    name, domain = address[1], address[2]
    return not (_EXAMPLE_DOMAIN.search(domain) or _ROLE_ADDRESS.fullmatch(name))


def _phones(text: str) -> set[str]:
    """Digits of the phone numbers that are not reserved for fiction."""
    numbers = set()
    for found in _NORTH_AMERICAN.finditer(text):
        area, exchange, line = found[1] or found[2], found[3], found[4]
        if area in _TOLL_FREE:
            continue
        if area[0] in "23456789" and exchange[0] in "23456789" and "555" not in (area, exchange):
            numbers.add(area + exchange + line)
    for found in _INTERNATIONAL.finditer(text):
        digits = re.sub(r"\D", "", found[0])
        if 9 <= len(digits) <= 15 and not re.match(r"1?\d{0,3}555", digits):
            numbers.add(digits[-10:])
    numbers |= {re.sub(r"\D", "", found[1]) for found in _NATIONAL.finditer(text)}
    numbers |= {re.sub(r"\D", "", found[0]) for found in _MOBILE.finditer(text)}
    return {digits for digits in numbers if not _is_fictional(digits)}


def _is_fictional(digits: str) -> bool:
    plain = digits if digits.startswith("0") else f"0{digits}"
    return bool(_DRAMA.match(digits) or _DRAMA.match(plain) or _SEQUENCE.search(digits))


def _is_card(digits: str) -> bool:
    """By the Luhn sum and a first digit that issuers use."""
    if digits[0] not in "3456" or len(set(digits)) < 4:
        return False
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(number // 10 + number % 10 for number in doubled) % 10 == 0


def _is_iban(iban: str) -> bool:
    """ISO 7064: the number, its first four characters last and letters as numbers, is 1 mod 97."""
    if not 15 <= len(iban) <= 34:
        return False
    return int("".join(str(int(mark, 36)) for mark in iban[4:] + iban[:4])) % 97 == 1


def _is_global(address: str) -> bool:
    return ipaddress.IPv6Address(address).is_global


def _is_host(text: str, found: re.Match[str]) -> bool:
    """A public address; four small numbers are a section or a version."""
    numbers = [int(part) for part in found[0].split(".")]
    if max(numbers) > 255 or max(numbers) < 20 or found[0] in _PUBLIC_SERVICES:
        return False
    if re.search(r"(?:version|release|build)\s*$", text[: found.start()][-12:], re.IGNORECASE):
        return False
    return ipaddress.IPv4Address(".".join(map(str, numbers))).is_global
