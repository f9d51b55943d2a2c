"""Prompts of the suites: prompts/judges/*.txt (Jinja2) -> rendered texts.

Each protocol says which of them it uses and what each is filled with. Texts of models and items are
material: a template fences them with `marker`, eight hex digits that occur in none of them.
"""

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import jinja2.sandbox

from localism.errors import ConfigError
from localism.prompting.packs import marker, packaged
from localism.records import stable_id

Render = Callable[..., str]


@dataclass(frozen=True)
class JudgePrompts:
    """The templates of a folder, compiled."""

    folder: Path
    """Where they lie."""
    templates: Mapping[str, jinja2.Template]
    """By name."""
    variables: Mapping[str, frozenset[str]]
    """What each has a place for."""
    digests: Mapping[str, str]
    """SHA-256 of each template's text."""

    def render(self, template: str, **values: Any) -> str:
        """Fill one; an unfilled placeholder raises jinja2.UndefinedError (our bug)."""
        if "marker" in self.variables[template]:
            values["marker"] = marker(*map(str, values.values()))
        return self.templates[template].render(**values).strip("\n")

    def fingerprint(self, needed: Iterable[str]) -> str:
        """Of these templates, by name and content."""
        return stable_id([[name, self.digests[name]] for name in sorted(needed)])

    def check(self, needed: Mapping[str, Set[str]]) -> None:
        """ConfigError unless every template that is needed is there and uses no other variable."""
        for name, filled in needed.items():
            where = str(self.folder / f"{name}.txt")
            if name not in self.templates:
                raise ConfigError(
                    f"the judge prompts lack {name}.txt",
                    where=where,
                    fix="add it; prompts/judges/ shows them all",
                )
            if unknown := self.variables[name] - filled - {"marker"}:
                raise ConfigError(
                    f"judge prompt uses {', '.join(sorted(unknown))}, which nothing fills",
                    where=where,
                    fix=f"use only {', '.join(sorted(filled))} and marker",
                )


@functools.cache
def load(name_or_folder: str) -> JudgePrompts:
    """Judge prompts by name under prompts/, or by folder; ConfigError names a mistake."""
    folder = _folder(name_or_folder)
    environment = jinja2.sandbox.SandboxedEnvironment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates, variables, digests = {}, {}, {}
    for path in sorted(folder.glob("*.txt")):
        try:
            text = path.read_text(encoding="utf-8")
            tree = environment.parse(text)
            templates[path.stem] = environment.from_string(text)
        except jinja2.TemplateSyntaxError as broken:
            raise ConfigError(
                f"judge prompt does not parse: {broken.message}",
                where=f"{path}:{broken.lineno}",
                fix="mend the Jinja2 syntax",
            ) from None
        except (OSError, UnicodeDecodeError) as unread:
            raise ConfigError(
                f"judge prompt cannot be read: {unread}", where=str(path), fix="save it as UTF-8"
            ) from None
        variables[path.stem] = frozenset(jinja2.meta.find_undeclared_variables(tree))
        digests[path.stem] = hashlib.sha256(text.encode()).hexdigest()
    return JudgePrompts(folder, templates, variables, digests)


def _folder(name_or_folder: str) -> Path:
    for folder in (Path(name_or_folder), packaged("prompts") / name_or_folder):
        if folder.is_dir() and any(folder.glob("*.txt")):
            return folder
    raise ConfigError(
        f"no judge prompts in {name_or_folder!r}",
        where="models.toml [evaluate].judge_prompts",
        fix="judges, or the path of a folder with *.txt",
    )
