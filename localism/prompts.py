"""Prompt packs: prompts/PACK/*.txt (Jinja2) and its manifest pack.toml -> rendered, hashed prompts.

A pack is a folder. Its pack.toml names the turns of a conversation with their sampling, the
markers that split instruction from response, and the labels of the pairwise judge.
"""

import functools
import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import jinja2.sandbox

from localism.errors import ConfigError
from localism.records import Sampling

# What each template may use. A template that needs something else could never be filled.
_MIX = {"skills", "query_type"}
VARIABLES: dict[str, set[str]] = {
    "topics": {"count", "known", "domain", "field", "subject"},
    "skills": {"topic", "count", "known", "domain"},
    "query_types": {"count", "known", "domain"},
    "label": {"instruction"},
    "draft": _MIX,
    "critique": _MIX,
    "refine": _MIX,
    "cluster_name": {"members"},
    "relabel": {"instruction", "choices"},
    "judge": {"instruction", "first", "second"},
    "shows_skill": {"instruction", "response", "skill"},
    "brevity": {"instruction"},
    "junk": {"instruction"},
}
# What a pack may do without; whoever gives one of these a value asks Pack.uses first.
OPTIONAL = {"domain", "field", "subject"}
REQUIRED = ("topics", "skills", "query_types", "draft", "critique", "refine", "judge")


def packaged(name: str) -> Path:
    """A file or folder that ships with localism, in a checkout or in an installed wheel."""
    checkout = Path(__file__).parent.parent / name
    if (Path(__file__).parent.parent / "pyproject.toml").exists() and checkout.exists():
        return checkout
    return Path(__file__).parent / "_data" / name


@dataclass(frozen=True)
class Turn:
    """One user message of the generation conversation and how its reply is sampled."""

    name: str
    """Template of the message: draft, critique or refine."""
    sampling: Sampling
    """Sampling of the reply."""


@dataclass(frozen=True)
class Pack:
    """A validated prompt pack."""

    name: str
    """Folder name under prompts/, or the folder's own name."""
    folder: Path
    """Where the templates lie."""
    turns: tuple[Turn, ...]
    """The conversation, in order; the last turn's reply holds the example."""
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
        """Fill one template; an unfilled placeholder raises jinja2.UndefinedError (our bug)."""
        return self.templates[template].render(**values).strip("\n")


@functools.cache
def load_pack(name_or_folder: str) -> Pack:
    """Read and check a pack by name (prompts/NAME) or by folder; ConfigError names the mistake."""
    folder = Path(name_or_folder)
    if not (folder / "pack.toml").exists():
        folder = packaged("prompts") / name_or_folder
    manifest_path = folder / "pack.toml"
    if not manifest_path.exists():
        names = sorted(p.parent.name for p in packaged("prompts").glob("*/pack.toml"))
        raise ConfigError(
            f"no prompt pack named {name_or_folder!r}",
            where="models.toml [prompts].pack",
            fix=f"use one of {', '.join(names)}, or the path of a folder with a pack.toml",
        )
    try:
        manifest = tomllib.loads(manifest_path.read_text())
    except tomllib.TOMLDecodeError as broken:
        raise ConfigError(
            "prompt pack manifest is not valid TOML",
            where=f"{manifest_path}: {broken}",
            fix="mend the line; prompts/compact/pack.toml shows the form",
        ) from None
    return _build(folder, manifest, *_compile(folder))


Templates = dict[str, jinja2.Template]
Variables = dict[str, frozenset[str]]


def _compile(folder: Path) -> tuple[Templates, Variables]:
    environment = jinja2.sandbox.SandboxedEnvironment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates, variables = {}, {}
    for path in sorted(folder.glob("*.txt")):
        allowed = VARIABLES.get(path.stem)
        if allowed is None:
            raise ConfigError(
                f"prompt pack has a template that nothing uses: {path.name}",
                where=str(path),
                fix=f"rename it to one of {', '.join(sorted(VARIABLES))}, or delete it",
            )
        try:
            tree = environment.parse(path.read_text())
        except jinja2.TemplateSyntaxError as broken:
            raise ConfigError(
                "prompt template does not parse",
                where=f"{path}:{broken.lineno}",
                fix=broken.message or "mend the Jinja2 syntax",
            ) from None
        used = jinja2.meta.find_undeclared_variables(tree)
        unknown = used - allowed
        if unknown:
            raise ConfigError(
                f"prompt template uses {', '.join(sorted(unknown))}, which nothing fills",
                where=str(path),
                fix=f"use only {', '.join(sorted(allowed))}",
            )
        templates[path.stem] = environment.get_template(path.name)
        variables[path.stem] = frozenset(used)
    missing = [name for name in REQUIRED if name not in templates]
    if missing:
        raise ConfigError(
            f"prompt pack lacks {', '.join(name + '.txt' for name in missing)}",
            where=str(folder),
            fix="add the templates; prompts/compact/ shows them all",
        )
    return templates, variables


def _build(
    folder: Path, manifest: dict[str, Any], templates: Templates, variables: Variables
) -> Pack:
    try:
        turns = tuple(
            Turn(t["name"], Sampling(t["temperature"], t["top_p"], t["max_tokens"]))
            for t in manifest["turns"]
        )
        first, second = manifest["judge"]["labels"]
        shown, not_shown = manifest.get("shows_skill", {}).get("labels", ("yes", "no"))
        extract = manifest["extract"]
        pack = Pack(
            name=folder.name,
            folder=folder,
            turns=turns,
            instruction_marker=manifest["markers"]["instruction"],
            response_marker=manifest["markers"]["response"],
            judge_labels=(first, second),
            skill_labels=(shown, not_shown),
            extract_sampling=Sampling(
                extract["temperature"], extract.get("top_p", 1.0), extract["max_tokens"]
            ),
            fingerprint=_fingerprint(folder),
            templates=templates,
            variables=variables,
            structured=bool(extract.get("structured", False)),
        )
    except (KeyError, TypeError, ValueError) as broken:
        raise ConfigError(
            f"prompt pack manifest is incomplete or of the wrong form: {broken!r}",
            where=str(folder / "pack.toml"),
            fix="compare it with prompts/compact/pack.toml",
        ) from None
    unknown = [turn.name for turn in turns if turn.name not in templates]
    if unknown or not turns:
        raise ConfigError(
            f"prompt pack has no template for turn {unknown}" if unknown else "pack has no turns",
            where=str(folder / "pack.toml"),
            fix="name only turns that have a .txt template",
        )
    return pack


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in {".txt", ".toml"}:
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
