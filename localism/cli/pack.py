"""The commands pack, verify and unpack: everything carried into an air gap, and checked there."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import click

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class Size(click.ParamType):
    """Bytes, with K, M, G or T for powers of a thousand."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """As click wants it."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", str(value).strip(), re.I)
        size = int(float(found[1]) * UNITS[found[2].upper()]) if found else 0
        if size < 10**6:
            self.fail(f"{value!r} is no size of a megabyte or more, for instance 50G", param, ctx)
        return size


class PythonVersion(click.ParamType):
    """Of CPython, as pip and wheels write it."""

    name = "X.Y"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """As click wants it."""
        found = re.fullmatch(r"3\.(\d+)", str(value).strip())
        if not found or int(found[1]) < 11:
            self.fail(f"{value!r} is no version from 3.11 on, for instance 3.12", param, ctx)
        return found[0]


@click.command(
    epilog="\b\nExamples:\n  localism pack --to /media/usb/localism --models models.toml\n"
    "  localism pack --to out/pack --for cpu --no-wheels --split 50G"
)
@click.option(
    "--to", "folder", required=True, type=click.Path(path_type=Path), metavar="DIR",
    help="The pack; the same command goes on with one that was cut off.",
)  # fmt: skip
@click.option(
    "--models", type=click.Path(path_type=Path), metavar="FILE",
    help="Whose models and data are carried.  [default: ./models.toml, else the built-in]",
)  # fmt: skip
@click.option(
    "--for", "kind", type=click.Choice(["gpu", "cpu"]), default="gpu", show_default=True,
    help="What the machine inside has; decides which wheels it gets.",
)  # fmt: skip
@click.option("--no-wheels", is_flag=True, help="Leave the wheels out.")
@click.option(
    "--with-tests", is_flag=True, help="Carry the test tools too: make test works inside."
)
@click.option(
    "--python",
    type=PythonVersion(),
    metavar="X.Y",
    help="Python of the machine inside.  [default: this one's]",
)
@click.option("--torch-index", metavar="URL", help="Index with the CPU build of torch (--for cpu).")
@click.option(
    "--split", type=Size(), metavar="SIZE", help="Also write parts of this size for media."
)
@click.option("--json", "as_json", is_flag=True, help="What was packed as one JSON object.")
def pack(
    folder: Path,
    models: Path | None,
    kind: str,
    no_wheels: bool,
    with_tests: bool,
    python: str | None,
    torch_index: str | None,
    split: int | None,
    as_json: bool,
) -> None:
    """Everything a run needs into one folder: models, data, wheels, localism, and a manifest."""
    from localism import tables
    from localism.packing import pack as packing
    from localism.packing import packer
    from localism.recipe import default_models

    asked = None if no_wheels else packing.Wheels(kind, python, torch_index, with_tests)
    packed = packing.pack(models or default_models(), folder, asked, _on_file)
    facts: dict[str, Any] = {
        "folder": str(packed.folder), "bytes": packed.bytes, "files": packed.files,
        "left": list(packed.left), "notes": list(packed.notes),
    }  # fmt: skip
    if split:
        facts["parts"] = str(packer.split(folder, split, _on_file))
    if as_json:
        click.echo(json.dumps(facts))
        return
    click.echo(f"{folder}: {packed.files:,} files, {tables.gigabytes(packed.bytes)}")
    if packed.left:
        shown = ", ".join(packed.left[:3]) + (", …" if len(packed.left) > 3 else "")
        click.echo(f"left behind, pickles and other formats: {shown}")
    for note in packed.notes:
        click.echo(f"see to: {note}")
    if split:
        click.echo(
            f"parts: {facts['parts']}; inside: python3 carry.py unpack {folder.name}.parts.json DIR"
        )
    click.echo(f"next: carry it in, then python3 {folder.name}/carry.py verify {folder.name}")


def _on_file(path: str, size: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{size / 1e6:>10,.1f} MB  {path[-60:]}", err=True, nl=False)


@click.command(
    epilog="\b\nExamples:\n  localism verify /data/localism-pack\n"
    "  localism verify pack --quick --json"
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--quick", is_flag=True, help="Names and sizes alone.")
@click.option("--json", "as_json", is_flag=True, help="The problems as one JSON object.")
def verify(folder: Path, quick: bool, as_json: bool) -> None:
    """Every file of a pack present, whole and unaltered, and none extra; exit 3 when not."""
    from localism.errors import ConfigError
    from localism.packing import carry

    try:
        problems = carry.verify(folder, quick=quick, on_file=_on_file)
        files = carry.read_manifest(folder)["files"]
    except carry.BadPack as bad:
        raise _bad(bad) from None
    if as_json:
        click.echo(json.dumps({"files": len(files), "problems": [p._asdict() for p in problems]}))
    if problems:
        shown = "\n       ".join(f"{one.kind} {one.path}" for one in problems[:20])
        more = f"\n       and {len(problems) - 20:,} more" if len(problems) > 20 else ""
        raise ConfigError(
            f"{len(problems):,} of {len(files):,} files are not as the manifest says",
            where=shown + more,
            fix="copy these files again from the pack outside; remove what is extra",
        )
    if not as_json:
        looked = "sizes alone" if quick else "every byte"
        click.echo(f"{folder}: {len(files):,} files whole and unaltered ({looked})")


@click.command(
    epilog="\b\nExamples:\n  localism unpack /media/usb/pack.parts.json --to /data\n"
    "  localism unpack pack.parts.json /data"
)
@click.argument("parts", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path), metavar="[DIR]", required=False)
@click.option(
    "--to", "target", type=click.Path(path_type=Path), metavar="DIR",
    help="The pack appears in there under its own name.  [default: .]",
)  # fmt: skip
def unpack(parts: Path, folder: Path | None, target: Path | None) -> None:
    """Put the parts of a pack together again, each checked; then verify the whole.

    A pack that was carried as a folder needs no unpacking: localism verify DIR."""
    from localism.packing import carry

    if folder and target:
        raise click.UsageError("Both DIR and --to say where the pack is to appear: give one.")
    try:
        unpacked = carry.unpack(parts, target or folder or Path())
    except carry.BadPack as bad:
        raise _bad(bad) from None
    click.get_current_context().invoke(verify, folder=unpacked, quick=False, as_json=False)


def _bad(bad: Exception) -> Exception:
    from localism.errors import ConfigError

    where, _, problem = str(bad).partition(": ")
    problem, _, way = problem.partition("; ")
    fix = way or "name the folder of a pack"
    return ConfigError(problem or "this is no pack", where=where, fix=fix)
