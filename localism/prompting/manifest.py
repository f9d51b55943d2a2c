"""pack.toml of a prompt pack -> a checked Manifest, or every mistake in it with its fix."""

import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from localism.errors import ConfigError
from localism.toml_mistakes import Mistake, Place, mistakes

MANUAL = "docs/prompt-packs.md lists every key; prompts/compact/pack.toml is a short example"


def _one_line(text: str) -> str:
    if len(text.splitlines()) > 1:
        raise ValueError("a heading is one line, for replies are searched line by line")
    return text


def _file_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise ValueError("a file is named after it: use letters, digits, - and _ alone")
    return text


def _one_word(text: str) -> str:
    if len(text.split()) > 1:
        raise ValueError(f"{text!r} is several words; a judge answers with one token")
    return text


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Line = Annotated[Text, AfterValidator(_one_line)]
TemplateName = Annotated[str, AfterValidator(_file_name)]
Label = Annotated[Text, AfterValidator(_one_word)]
Labels = Annotated[tuple[Label, Label], Field(strict=False)]  # TOML has lists and no tuples
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


class Read(NamedTuple):
    """What could be read of a pack.toml."""

    manifest: Manifest | None
    """None when its form is wrong."""
    of_turns: dict[str, str] | None
    """Template -> the first turn that uses it; None when the turns themselves are wrong."""
    mistakes: list[ConfigError]
    """Every mistake found."""


def read_manifest(path: Path) -> Read:
    """The Manifest, and every mistake in it."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as broken:  # of tomllib, or of a file in another encoding
        problem = "prompt pack manifest is not valid TOML"
        fix = "save it as UTF-8" if isinstance(broken, UnicodeDecodeError) else "mend that line"
        error = ConfigError(problem, where=f"{path}: {broken}", fix=fix)
        return Read(None, None, [error])
    try:
        manifest = Manifest.model_validate(table)
    except ValidationError as wrong:
        found = mistakes(wrong, Manifest, MANUAL)
        errors = [_error(mistake, path) for mistake in found]
        # A table that is missing or unknown may be the turns under another name.
        if any(mistake.place[0] == "turns" or len(mistake.place) == 1 for mistake in found):
            return Read(None, None, errors)
        turns = map(TurnTable.model_validate, table["turns"])
        return Read(None, turn_templates(turns), errors)
    return Read(manifest, turn_templates(manifest.turns), list(_contradictions(manifest, path)))


def turn_templates(turns: Iterable[TurnTable]) -> dict[str, str]:
    """Template -> the first turn that uses it."""
    found: dict[str, str] = {}
    for turn in turns:
        found.setdefault(turn.template_name, turn.name)
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


def _error(mistake: Mistake, path: Path) -> ConfigError:
    where = f"{path} {_spell(mistake.place)}{mistake.value}"
    return ConfigError(mistake.problem, where=where, fix=mistake.fix)


def _spell(place: Place) -> str:
    """('turns', 1, 'when') -> '[[turns]] number 2: when'; others as '[extract].top_p'."""
    if place[0] == "turns" and len(place) > 1:
        key = f": {place[2]}" if len(place) > 2 else ""
        return f"[[turns]] number {int(place[1]) + 1}{key}"
    return f"[{place[0]}]" + "".join(f".{part}" for part in place[1:2])
