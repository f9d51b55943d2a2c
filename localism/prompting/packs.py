"""Prompt packs: prompts/PACK/*.txt (Jinja2) and its manifest pack.toml -> rendered, hashed prompts.

A pack is a folder. Its pack.toml (manifest.py) names the turns of a conversation with their
conditions and sampling, the markers that split instruction from response, and the judge's labels.
"""

import functools
import hashlib
import itertools
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import jinja2.sandbox

from localism.errors import ConfigError
from localism.prompting.manifest import Manifest, read_manifest
from localism.records import Sampling, stable_id
from localism.toml_mistakes import likely

# What each template may use. A template that needs something else could never be filled.
VARIABLES: dict[str, set[str]] = {
    "topics": {"count", "known", "domain", "field", "subject"},
    "skills": {"topic", "count", "known", "domain"},
    "query_types": {"count", "known", "domain"},
    "label": {"instruction", "marker"},
    "cluster_name": {"members"},
    "relabel": {"instruction", "choices", "marker"},
    "judge": {"instruction", "first", "second", "marker"},
    "rate": {"instruction", "response"},
    "shows_skill": {"instruction", "response", "skill"},
    "brevity": {"instruction"},
    "junk": {"instruction"},
    "longer": {"instruction", "response"},
    "shorter": {"instruction", "response"},
}
# The same for the templates of turns, whatever a pack calls them.
TURN_VARIABLES = {"skills", "query_type", "structured"}
# What a template is about: without these nobody could answer it.
ABOUT = {
    "skills": {"topic"},
    "label": {"instruction"},
    "cluster_name": {"members"},
    "relabel": {"instruction", "choices"},
    "judge": {"instruction", "first", "second"},
    "rate": {"instruction", "response"},
    "shows_skill": {"response", "skill"},
    "brevity": {"instruction"},
    "junk": {"instruction"},
    "longer": {"response"},
    "shorter": {"response"},
}
# What a pack may do without; whoever gives one of these a value asks Pack.uses first.
OPTIONAL = {"domain", "field", "subject", "marker"}
REQUIRED = ("topics", "skills", "query_types", "judge")
# Values that are no plain text, or are to be read by people.
SAMPLES: dict[str, Any] = {
    "count": 7,
    "known": ["first_known", "second_known"],
    "members": ["first_skill", "second_skill"],
    "choices": ["first_skill", "second_skill"],
    "skills": ["estimating_risk", "adjusting_tone"],
    "query_type": {
        "name": "Advice on a decision",
        "definition": "someone weighs options in their own situation and wants a way to choose",
    },
}


def packaged(name: str) -> Path:
    """A file or folder that ships with localism, in a checkout or in an installed wheel."""
    package = Path(__file__).parents[1]
    checkout = package.parent / name
    if (package.parent / "pyproject.toml").exists() and checkout.exists():
        return checkout
    return package / "_data" / name


@dataclass(frozen=True)
class Turn:
    """One user message of the generation conversation and how its reply is sampled."""

    name: str
    """What the ledger calls it, for instance draft or critique."""
    template: str
    """Template of the message."""
    sampling: Sampling
    """Sampling of the reply."""
    only_if_cut_off: bool
    """It is left out unless the reply before it was cut off."""
    has_example: bool
    """Its reply holds the example, or its response alone; a critique's does not."""
    structured: bool
    """Its reply is asked for as JSON, under the server's structured output."""


@dataclass(frozen=True)
class Pack:
    """A validated prompt pack."""

    name: str
    """Folder name under prompts/, or the folder's own name."""
    description: str
    """What it is for, in a sentence; may be empty."""
    folder: Path
    """Where the templates lie."""
    turns: tuple[Turn, ...]
    """The conversation, in order; whichever turn is the last to run, its reply has the example."""
    instruction_marker: str
    """Heading in front of the instruction, for instance '### Instruction'."""
    response_marker: str
    """Heading in front of the response."""
    judge_labels: tuple[str, str]
    """What the judge answers when the first, or the second, shown response is better."""
    skill_labels: tuple[str, str]
    """What the judge answers when a skill is shown, or is not: yes and no, unless the pack says."""
    extract_sampling: Sampling
    """Sampling of the lists of topics, skills and query types."""
    fingerprint: str
    """SHA-256 over every file of the pack."""
    templates: dict[str, jinja2.Template]
    """Compiled templates by name."""
    variables: dict[str, frozenset[str]]
    """What each template has a place for."""
    structured: bool
    """Whether lists are asked for as JSON, under the server's structured output."""

    def has(self, template: str) -> bool:
        """Whether the pack brings this template."""
        return template in self.templates

    def uses(self, template: str, variable: str) -> bool:
        """Whether the pack has this template, and it a place for this variable."""
        return variable in self.variables.get(template, ())

    def render(self, template: str, **values: Any) -> str:
        """Fill one template; an unfilled placeholder raises jinja2.UndefinedError (our bug).

        `marker` is filled here unless it is given: by it a template can fence a text that it does
        not trust.
        """
        if self.uses(template, "marker") and "marker" not in values:
            values["marker"] = marker(*map(str, values.values()))
        return self.templates[template].render(**values).strip("\n")


def marker(*texts: str, absent_from: str = "") -> str:
    """Eight hex digits that occur in none of the texts, nor in `absent_from`.

    Made of the texts' content, so that a prompt stays the same when it is rendered again; and not
    of `absent_from`, so that prompts which differ in it alone share their beginning.
    """
    candidates = (stable_id("marker", texts, attempt)[:8] for attempt in itertools.count())
    # In small letters, for a reader might take <MESSAGE-AB..> for the same.
    folded = [text.casefold() for text in (*texts, absent_from)]
    return next(found for found in candidates if not any(found in text for text in folded))


@functools.cache
def load_pack(name_or_folder: str) -> Pack:
    """Read and check a pack by name (prompts/NAME) or by folder; ConfigError names a mistake."""
    pack, mistakes = examine(pack_folder(name_or_folder))
    if not pack:
        raise mistakes[0]
    return pack


def pack_names() -> list[str]:
    """The packs that ship with localism, or lie beside those."""
    return sorted(path.parent.name for path in packaged("prompts").glob("*/pack.toml"))


def pack_folder(name_or_folder: str, asked_by: str = "models.toml [prompts].pack") -> Path:
    """The folder of a pack; ConfigError when there is none."""
    for folder in (Path(name_or_folder), packaged("prompts") / name_or_folder):
        if (folder / "pack.toml").is_file():
            return folder
    is_folder = bool(name_or_folder) and Path(name_or_folder).is_dir()
    raise ConfigError(
        "the folder has no pack.toml" if is_folder else f"no prompt pack named {name_or_folder!r}",
        where=asked_by,
        fix=f"{likely(name_or_folder, pack_names())}use one of {', '.join(pack_names())}, or the "
        "path of a folder with a pack.toml",
    )


def examine(folder: Path) -> tuple[Pack | None, list[ConfigError]]:
    """The pack, or None and every mistake in it.

    Contradictions between the keys of pack.toml are looked for when each key by itself is right.
    """
    manifest, of_turns, mistakes = read_manifest(folder / "pack.toml")
    texts = Templates(folder, of_turns)
    mistakes += texts.mistakes
    if mistakes or not manifest:
        return None, mistakes
    return _build(folder, manifest, texts), []


class Templates:
    """The templates of a folder, compiled and filled once for trial.

    `of_turns` names the turn of each template of a turn. None means that the manifest does not tell
    them: then any template may be a turn's.
    """

    def __init__(self, folder: Path, of_turns: Mapping[str, str] | None) -> None:
        self.folder = folder
        self.compiled: dict[str, jinja2.Template] = {}
        self.variables: dict[str, frozenset[str]] = {}
        """What each has a place for."""
        self.mistakes: list[ConfigError] = []
        """Every mistake found."""
        self._there = sorted(folder.glob("*.txt"))
        names = [path.stem for path in self._there] if of_turns is None else of_turns
        self._allowed = {**dict.fromkeys(names, TURN_VARIABLES), **VARIABLES}
        self._environment = jinja2.sandbox.SandboxedEnvironment(
            loader=jinja2.FileSystemLoader(folder),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        for path in self._there:
            self._compile(path)
        self._look_for_missing(of_turns or {})
        for name in self.compiled:
            self._try(name)

    def _mistake(self, problem: str, where: object, fix: str) -> None:
        self.mistakes.append(ConfigError(problem, where=str(where), fix=fix))

    def _compile(self, path: Path) -> None:
        allowed = self._allowed.get(path.stem)
        if allowed is None:
            known = ", ".join(sorted(self._allowed))
            self._mistake(
                f"prompt pack has a template that nothing uses: {path.name}",
                path,
                f"name it in a turn of pack.toml, rename it to one of {known}, or delete it",
            )
            return
        try:
            tree = self._environment.parse(path.read_text(encoding="utf-8"))
            used = jinja2.meta.find_undeclared_variables(tree)
            template = self._environment.get_template(path.name)
        except jinja2.TemplateSyntaxError as broken:
            fix = broken.message or "mend the Jinja2 syntax"
            self._mistake("prompt template does not parse", f"{path}:{broken.lineno}", fix)
            return
        except UnicodeDecodeError as broken:
            self._mistake("prompt template is not UTF-8", f"{path}: {broken}", "save it as UTF-8")
            return
        except OSError as unread:
            fix = "a template is a text file that can be read"
            self._mistake("prompt template cannot be read", f"{path} ({unread.strerror})", fix)
            return
        if unknown := used - allowed:
            self._mistake(
                f"prompt template uses {', '.join(sorted(unknown))}, which nothing fills",
                path,
                f"use only {', '.join(sorted(allowed))}",
            )
            return
        if missing := ABOUT.get(path.stem, set()) - used:
            self._mistake(
                f"prompt template has no place for {', '.join(sorted(missing))}",
                path,
                f"add {{{{ {min(missing)} }}}}: without it nobody could answer",
            )
            return
        self.compiled[path.stem] = template
        self.variables[path.stem] = frozenset(used)

    def _look_for_missing(self, of_turns: Mapping[str, str]) -> None:
        there = {path.stem for path in self._there}
        for name in sorted(set(REQUIRED) - there):
            fix = "add the template; prompts/compact/ shows them all"
            self._mistake(f"prompt pack lacks {name}.txt", self.folder, fix)
        manifest = self.folder / "pack.toml"
        for name, turn in of_turns.items():
            if name in VARIABLES:
                fix = "give the turn a template of its own"
                self._mistake(f"turn {turn} uses {name}.txt, which is no turn's", manifest, fix)
            elif name not in there:
                fix = f"add {name}.txt, or name another template in that turn"
                self._mistake(f"prompt pack has no template for turn {turn}", manifest, fix)
        turns = [self.variables[name] for name in of_turns if name in self.variables]
        if len(turns) == len(of_turns) > 0 and not any("skills" in used for used in turns):
            fix = "write {{ skills | join(', ') }} where the teacher is to read them"
            self._mistake("no turn tells the teacher the skills", manifest, fix)

    def _try(self, name: str) -> None:
        """Fill it with values of every shape that it may be given."""
        for values in trial_values(name):
            where = f"{self.folder / name}.txt, with {textwrap.shorten(str(values), 300)}"
            try:
                is_empty = not self.compiled[name].render(**values).strip()
            # Whatever the expressions of a template can raise.
            except (jinja2.TemplateError, ArithmeticError, LookupError, *_VALUE_ERRORS) as failed:
                fix = f"mend what fails: {failed}"
                self._mistake("prompt template cannot be filled", where, fix)
                return
            if is_empty:
                fix = "write what the teacher is to be asked"
                self._mistake("prompt template comes out empty", where, fix)
                return


_VALUE_ERRORS = (TypeError, ValueError, AttributeError)


def trial_values(template: str) -> list[dict[str, Any]]:
    """Values of every shape that a template may be filled with, the fullest first."""
    if template not in VARIABLES:
        return [
            {"skills": skills, "query_type": kind, "structured": structured}
            for skills in (SAMPLES["skills"], ["a_b"], ["a_b", "c_d", "e_f"])
            for kind in (SAMPLES["query_type"], {"name": "A type", "definition": ""}, None)
            for structured in (False, True)
        ]
    full = {name: SAMPLES.get(name, f"A certain {name}.") for name in sorted(VARIABLES[template])}
    empty = {name: type(full[name])() for name in full.keys() & (OPTIONAL | {"known"})}
    return [full, {**full, **empty}] if empty else [full]


def _build(folder: Path, manifest: Manifest, texts: Templates) -> Pack:
    extract = manifest.extract
    return Pack(
        name=folder.name,
        description=manifest.pack.description,
        folder=folder,
        turns=tuple(
            Turn(
                name=turn.name,
                template=turn.template_name,
                sampling=Sampling(turn.temperature, turn.top_p, turn.max_tokens),
                only_if_cut_off=turn.when == "cut off",
                has_example=turn.example,
                structured=turn.structured,
            )
            for turn in manifest.turns
        ),
        instruction_marker=manifest.markers.instruction,
        response_marker=manifest.markers.response,
        judge_labels=manifest.judge.labels,
        skill_labels=manifest.shows_skill.labels,
        extract_sampling=Sampling(extract.temperature, extract.top_p, extract.max_tokens),
        fingerprint=_fingerprint(folder),
        templates=texts.compiled,
        variables=texts.variables,
        structured=extract.structured,
    )


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in {".txt", ".toml"}:
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
