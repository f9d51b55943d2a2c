"""pack.toml of a prompt pack -> a checked Manifest, or every mistake in it with its fix."""

import difflib
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from localism.errors import ConfigError

MANUAL = "docs/prompt-packs.md lists every key; prompts/compact/pack.toml is a short example"

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
# A heading is found line by line, and the name of a template is the name of its file.
Line = Annotated[Text, StringConstraints(pattern=r"^[^\r\n]+$")]
TemplateName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$")]
Labels = Annotated[tuple[Text, Text], Field(strict=False)]  # TOML has lists and no tuples
When = Literal["always", "cut off"]


class Table(BaseModel):
    """A table of pack.toml: an unknown key is an error, "3" is no number and true is not 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class About(Table):
    """[pack]: for people."""

    name: str = ""
    description: str = ""


class Markers(Table):
    """[markers]: the headings that split an example."""

    instruction: Line
    response: Line


class SampledTable(Table):
    """How replies are sampled."""

    temperature: Annotated[float, Field(ge=0, le=5)]
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Annotated[int, Field(ge=1)]


class TurnTable(SampledTable):
    """[[turns]]: one user message of the conversation."""

    name: TemplateName
    template: TemplateName | None = None
    when: When = "always"
    example: bool = True
    structured: bool = False

    @property
    def template_name(self) -> str:
        """The template of the message; the turn's own name unless it says otherwise."""
        return self.template or self.name


class LabelsTable(Table):
    """[judge]: the two answers that a judge may give."""

    labels: Labels


class ShownTable(Table):
    """[shows_skill]: the same, for whether a skill is shown."""

    labels: Labels = ("yes", "no")


class Lists(SampledTable):
    """[extract]: lists of topics, skills and query types."""

    structured: bool = False


class Manifest(Table):
    """The whole of pack.toml."""

    pack: About = About()
    markers: Markers
    turns: Annotated[list[TurnTable], Field(min_length=1)]
    judge: LabelsTable
    shows_skill: ShownTable = ShownTable()
    extract: Lists


def read_manifest(path: Path) -> tuple[dict[str, Any], Manifest | None, list[ConfigError]]:
    """The raw tables, the Manifest unless its form is wrong, and every mistake found."""
    try:
        table = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as broken:
        problem = "prompt pack manifest is not valid TOML"
        return {}, None, [ConfigError(problem, where=f"{path}: {broken}", fix="mend that line")]
    try:
        manifest = Manifest.model_validate(table)
    except ValidationError as wrong:
        return table, None, [_explain(dict(error), path) for error in wrong.errors()]
    return table, manifest, list(_contradictions(manifest, path))


def turn_templates(table: dict[str, Any]) -> dict[str, str]:
    """Template -> the first turn that uses it, as far as raw tables say so."""
    found: dict[str, str] = {}
    turns = table.get("turns")
    for turn in turns if isinstance(turns, list) else []:
        name = turn.get("name") if isinstance(turn, dict) else None
        template = turn.get("template", name) if name else None
        if isinstance(name, str) and isinstance(template, str):
            found.setdefault(template, name)
    return found


def _contradictions(manifest: Manifest, path: Path) -> Iterator[ConfigError]:
    """Values that are each fine and cannot be together."""

    def mistake(problem: str, key: str, fix: str) -> ConfigError:
        return ConfigError(problem, where=f"{path} {key}", fix=fix)

    for number, turn in enumerate(manifest.turns, 1):
        key = f"[[turns]] number {number}, {turn.name!r}"
        if turn.name in [earlier.name for earlier in manifest.turns[: number - 1]]:
            fix = "give each turn a name of its own; two turns may share a template"
            yield mistake(f"two turns are named {turn.name}", f"{key}: name", fix)
        if turn.structured and not turn.example:
            fix = "drop structured, or example = false"
            yield mistake("a turn without an example is structured", f"{key}: structured", fix)
    if manifest.turns[0].when != "always":
        yield mistake(
            "the first turn has a condition, and there is no reply before it",
            f"[[turns]] number 1, {manifest.turns[0].name!r}: when = {manifest.turns[0].when!r}",
            'drop it, or write when = "always"',
        )
    for number, turn in _possibly_last(manifest.turns):
        if not turn.example:
            yield mistake(
                f"a conversation may end with {turn.name}, whose reply holds no example",
                f"[[turns]] number {number}, {turn.name!r}: example = false",
                "the last turn that always runs, and those after it, have to give the example",
            )
    instruction, response = manifest.markers.instruction, manifest.markers.response
    if instruction.casefold() == response.casefold():
        yield mistake(
            "the two markers are the same",
            f"[markers].response = {response!r}",
            "the headings of instruction and response have to differ",
        )
    labelled = {"judge": manifest.judge.labels, "shows_skill": manifest.shows_skill.labels}
    for key, (first, second) in labelled.items():
        if first == second:
            fix = "the judge's two answers have to differ"
            yield mistake("the two labels are the same", f"[{key}].labels = {first!r}, twice", fix)


def _possibly_last(turns: Sequence[TurnTable]) -> Iterator[tuple[int, TurnTable]]:
    """(number from 1, turn) of every turn that a conversation may end with."""
    for number in range(len(turns), 0, -1):
        yield number, turns[number - 1]
        if turns[number - 1].when == "always":
            return


def _explain(error: dict[str, Any], path: Path) -> ConfigError:
    place, kind = list(error["loc"]), error["type"]
    key = next(part for part in reversed(place) if isinstance(part, str))
    if kind == "extra_forbidden":
        known = _known_keys(place[:-1])
        near = difflib.get_close_matches(str(key), known, 1, 0.5)
        fix = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        return ConfigError(f"unknown key {key}", where=f"{path} {_spell(place)}", fix=fix)
    if kind == "missing":
        return ConfigError(
            f"{key} is missing", where=f"{path} {_spell(place)}", fix=f"add it; {MANUAL}"
        )
    message = error["msg"][0].lower() + error["msg"][1:]
    return ConfigError(
        f"{key}: {message}", where=f"{path} {_spell(place)} = {error['input']!r}", fix=MANUAL
    )


def _spell(place: list[str | int]) -> str:
    """['turns', 1, 'when'] -> '[[turns]] number 2: when'; others as '[extract].top_p'."""
    if place[0] == "turns" and len(place) > 1:
        key = f": {place[2]}" if len(place) > 2 else ""
        return f"[[turns]] number {int(place[1]) + 1}{key}"
    return f"[{place[0]}]" + "".join(f".{part}" for part in place[1:2])


def _known_keys(place: list[str | int]) -> list[str]:
    """The keys of the table at that place."""
    table: Any = Manifest
    for part in place:
        if isinstance(part, str):
            table = table.model_fields[part].annotation
            table = get_args(table)[0] if get_args(table) else table
    return list(table.model_fields)
