"""Which licences the models and data of a run have, and what they demand of what comes out of it.

    Licence(name, source, demands: tuple[str, ...], restricts: bool | None, forbids, prefix)
    find(folder, role) -> Licence                    of one model or data folder
    of_run(config) -> RunLicences                    roles, and what follows for data and model
        .roles: dict[str, Licence]                   teacher, judge, student, embedder, seeds PATH
        .data, .model: Licence                       the most restrictive parent, all demands
        .conflicts: tuple[str, ...]                  what an export to outside wants a yes for

Licences are read where they lie: models.toml ([licences]), a model card's front matter, licence
files, and as a last hint the names in config.json. What is not found is unknown, and unknown is
never free. This is a map for engineers and not legal advice.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from localism.config import Config
from localism.licence_terms import NON_COMMERCIAL, TERMS, Terms, by_id
from localism.paths import embedded

UNKNOWN = "unknown"
NOT_LEGAL_ADVICE = "An engineering map, not legal advice."
OURS = Path(__file__).parent / "embedded"
_FILES = re.compile(r"(licen[sc]e|copying|notice)", re.I)
_MOST_CHARACTERS = 400_000


@dataclass(frozen=True)
class Licence:
    """A licence as it was found, or its absence."""

    name: str
    """For instance Llama 3.3 Community License; unknown."""
    source: str
    """Where it was read, for instance README.md: license: llama3.3; empty when nowhere."""
    demands: tuple[str, ...]
    """What it asks of the data and of a model made with them; empty is nothing that we know of."""
    restricts: bool | None
    """Whether it limits or asks something of what is made with it; None is not known."""
    forbids: str = ""
    """What may not be done with the result, in a few words; empty is nothing that we know of."""
    prefix: str = ""
    """What the name of the result must begin with."""
    card_id: str = UNKNOWN
    """What a model or dataset card calls it."""

    @property
    def rank(self) -> int:
        """The most restrictive is highest; unknown stands above mere demands."""
        if self.forbids:
            return 3
        return 2 if self.restricts is None else int(self.restricts)


NO_LICENCE = Licence(UNKNOWN, "", (), None)


@dataclass(frozen=True)
class RunLicences:
    """The licences of a run's parts and what follows from them."""

    roles: dict[str, Licence]
    """By role: teacher, judge, student, embedder; seeds and other sources as `seeds PATH`."""
    data: Licence
    """Of the examples: the most restrictive of the writer's and those of the seed data."""
    model: Licence
    """Of the trained model: data and base together, and what the judge's demands add."""
    conflicts: tuple[str, ...]
    """What stands against publishing; empty is nothing that we know of."""


# ---- one folder ----------------------------------------------------------------------------


def find(folder: Path, role: str, stated: str = "") -> Licence:
    """The licence of a model or data folder, or of the folder that a data file lies in.

    `role` decides what it demands: weights pass into the student's result, outputs of the others.
    `stated` is what the user says in [licences], which counts before anything found.
    """
    if stated:
        return _as_stated(stated, role)
    if folder.resolve().is_relative_to(OURS.resolve()):
        return _licence(by_id("apache-2.0"), role, "ships with localism")
    if not folder.exists():
        return Licence(UNKNOWN, f"{folder.name} is not there any more", (), None)
    # Beside a single file a card may be its own; a LICENSE is that of whatever else lies there.
    home = folder if folder.is_dir() else folder.parent
    found = [_licence(terms, role, source, name) for terms, source, name in _on_card(home)]
    if folder.is_dir():
        found += [
            _licence(terms, role, source, name)
            for terms, source, name in _in_files(home, has_card=bool(found))
        ]
        found += [_licence(terms, role, source) for terms, source in _hints(home)]
    if not found:
        return NO_LICENCE
    # Of several the most restrictive, with everybody's demands: a card may be freer than the model
    # that it was made of.
    strictest = max(found, key=lambda licence: licence.rank)
    return replace(strictest, demands=_demands(found), prefix=_prefix(found))


def _as_stated(stated: str, role: str) -> Licence:
    where = f"models.toml: [licences] {stated}"
    return _licence(by_id(stated), role, where, stated)


def _licence(terms: Terms | None, role: str, source: str, name: str = UNKNOWN) -> Licence:
    """What terms mean for a role; without terms a licence that has a name and unknown demands."""
    wanted = name.strip().lower().replace(" ", "-")
    if terms is None:
        return Licence(name, source, (), None, card_id=wanted)
    card_id = wanted if wanted in terms.ids else terms.ids[0]
    if role == "embedder":  # its vectors order names; nothing of it is in data or model
        return Licence(terms.name, source, (), terms.restricts, card_id=card_id)
    demands = terms.outputs + (terms.weights if role == "student" else ())
    return Licence(
        terms.name, source, demands, terms.restricts, terms.forbids, terms.prefix, card_id
    )


def _on_card(folder: Path) -> Iterator[tuple[Terms | None, str, str]]:
    """(terms, where, name) of each licence that the folder's card names."""
    card = front_matter(folder / "README.md")
    for name in card.get("license_name") or card.get("license") or []:
        if name.lower() not in ("other", UNKNOWN):
            yield by_id(name), f"README.md: license: {name}", name


def _in_files(folder: Path, *, has_card: bool) -> Iterator[tuple[Terms | None, str, str]]:
    """(terms, where, name) of each licence file; one in words of its own counts without a card."""
    for path in sorted(folder.iterdir()):
        if not (_FILES.match(path.name) and path.is_file()):
            continue
        text = _beginning(path)
        terms = next((terms for terms in TERMS if terms.matches(text)), None)
        is_notice = path.name.lower().startswith("notice")
        if terms or not (is_notice or has_card):
            yield terms, path.name, terms.ids[0] if terms else UNKNOWN


def _hints(folder: Path) -> Iterator[tuple[Terms, str]]:
    """Licences that demand something and that the names of a model suggest."""
    in_cache = folder.parent.name == "snapshots"  # models--meta-llama--Llama-3.1-8B/snapshots/0e9e
    names = [(folder.parent.parent if in_cache else folder).name]
    named = [(names[0], "the folder's name")]
    named += [(base, "README.md: base_model") for base in front_matter(folder / "README.md").get(
        "base_model", [])]  # fmt: skip
    config = _config(folder)
    for key in ("_name_or_path", "model_type"):
        if isinstance(config.get(key), str):
            named.append((config[key], f"config.json: {key}"))
    for name, where in named:
        for terms in TERMS:
            if terms.hinted(name):
                yield terms, f"{where}: {name}"
                break


def _config(folder: Path) -> Mapping[str, str]:
    try:
        loaded = json.loads(_beginning(folder / "config.json"))
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _beginning(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(_MOST_CHARACTERS)


def front_matter(card: Path) -> dict[str, list[str]]:
    """The plain keys of a card's YAML head, each with its values; enough for licences."""
    if not card.is_file():
        return {}
    lines = _beginning(card).removeprefix("\ufeff").splitlines()
    found: dict[str, list[str]] = {}
    if not lines or lines[0].strip() != "---":
        return found
    key = ""
    for line in lines[1:]:
        if line.strip() == "---":
            return found
        if begun := re.match(r"([\w-]+):\s*(.*)$", line):
            key = begun[1]
            found[key] = _values(begun[2])
        elif key and (item := re.match(r"\s*-\s+(.+)$", line)):
            found[key] += _values(item[1])
    return {}  # a head that never ends is none


def _values(text: str) -> list[str]:
    text = re.sub(r"\s+#.*$", "", text.strip())
    parts = text[1:-1].split(",") if text.startswith("[") else [text]
    return [part.strip().strip("\"'") for part in parts if part.strip().strip("\"'")]


# ---- a run ---------------------------------------------------------------------------------


def of_run(config: Config, sources: Mapping[str, Licence] | None = None) -> RunLicences:
    """The licences of a run; `sources` replaces what its examples come from (teacher and seeds)."""
    roles = {role: of_role(config, role) for role in ("teacher", "judge", "student", "embedder")}
    written = {"teacher": roles["teacher"], **of_seeds(config)} if sources is None else sources
    roles |= written
    data = together(list(written.values()))
    judges = [roles["judge"]] if roles["judge"].restricts else []  # it wrote nothing, but it chose
    model = together([data, roles["student"], *judges])
    parts = {role: roles[role] for role in (*written, "student", "judge")}
    return RunLicences(roles, data, model, conflicts(parts, roles["student"]))


def of_role(config: Config, role: str) -> Licence:
    """The licence of a model of the run."""
    if role == "judge" and config.judge.same_as:
        return of_role(config, "teacher")
    stated: str = getattr(config.licences, role)
    path = config.embedder.path if role == "embedder" else config.served(role).path
    if stated or path:
        return find(embedded(path) if path else Path(), role, stated)
    return Licence(UNKNOWN, "served elsewhere: its folder is not on this machine", (), None)


def of_seeds(config: Config) -> dict[str, Licence]:
    """The licences of the seed data by path; empty where the teacher was asked alone."""
    if config.extract.method == "sda":
        return {}
    return {
        f"seeds {source.path}": find(embedded(source.path), "seeds", config.licences.seeds)
        for source in config.extract.seeds
    }


def together(parents: Sequence[Licence]) -> Licence:
    """The licence of what has several parents: the most restrictive's, with everybody's demands."""
    if not parents:
        return NO_LICENCE
    rank = max(parent.rank for parent in parents)
    strictest = [parent for parent in parents if parent.rank == rank]
    return Licence(
        " and ".join(dict.fromkeys(parent.name for parent in strictest)),
        "its most restrictive parent",
        _demands(parents),
        None if rank == 2 else rank > 0,
        ", ".join(dict.fromkeys(parent.forbids for parent in parents if parent.forbids)),
        _prefix(parents),
        " and ".join(dict.fromkeys(parent.card_id for parent in strictest)),
    )


def _demands(parents: Sequence[Licence]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(demand for parent in parents for demand in parent.demands))


def _prefix(parents: Sequence[Licence]) -> str:
    return next((parent.prefix for parent in parents if parent.prefix), "")


def conflicts(parents: Mapping[str, Licence], student: Licence) -> tuple[str, ...]:
    """What the licences of these forbid; improving models of its own family is no conflict."""
    found: dict[str, list[str]] = {}
    for role, licence in parents.items():
        own_family = licence.forbids != NON_COMMERCIAL and licence.name == student.name
        if licence.forbids and not own_family:
            found.setdefault(f"({licence.name}) forbids {licence.forbids}", []).append(role)
    return tuple(f"{' and '.join(roles)} {what}" for what, roles in found.items())
