"""Packs: what is carried, checked, split and put together again; nothing is downloaded."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from localism.cli.main import cli
from localism.errors import ConfigError, StageError, UsageError
from localism.models_toml import load
from localism.packing import carry, contents, packer, wheels
from localism.packing import pack as packing
from localism.packing.contents import File, Piece
from localism.paths import embedded

ROOT = Path(__file__).parents[2]
MODELS = """# Ours.
[teacher]
path = "{teacher}"       # the big one
[judge]
path = '{teacher}'
kind = "likelihood"
[student]
path = "weights/student"
max_tokens = 64
[extract]
method = "sdd"
seeds = ["{seeds}", {{ path = "{other}", sample = 3 }}]
[prompts]
pack = "compact"
[curate]
skills = "words"
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    """models.toml of a lab: model folders with pickles beside the weights, and seed files."""
    folder = tmp_path_factory.mktemp("lab")
    for role in ("teacher", "student"):
        shutil.copytree(embedded(f"embedded:{role}"), folder / "weights" / role)
    (folder / "weights/teacher/README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (folder / "weights/teacher/pytorch_model.bin").write_bytes(b"\x80\x04pickle")
    (folder / "weights/teacher/original").mkdir()
    (folder / "weights/teacher/original/consolidated.00.pth").write_bytes(b"more")
    row = json.dumps({"instruction": "How do I prune roses?", "output": "In spring."}) + "\n"
    for name in ("a/seeds.jsonl", "b/seeds.jsonl"):
        (folder / name).parent.mkdir()
        (folder / name).write_text(row)
    text = MODELS.format(
        teacher=folder / "weights/teacher",
        seeds=folder / "a/seeds.jsonl",
        other=folder / "b/seeds.jsonl",
    )
    (folder / "models.toml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def packed(lab, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "pack"
    packing.pack(lab / "models.toml", folder, None, lambda *_: None)
    return folder


@pytest.fixture
def copied(packed, tmp_path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "pack"))


# ---- what is carried -----------------------------------------------------------------------


def test_models_data_and_localism_are_carried_and_pickles_are_not(packed):
    there = {entry["path"] for entry in carry.read_manifest(packed)["files"]}
    assert {
        "models.toml",
        "carry.py",
        "README.txt",
        "models/teacher/config.json",
        "models/student/model.safetensors",
        "data/seeds/seeds.jsonl",
        "data/seeds-2/seeds.jsonl",
        "localism/pyproject.toml",
        "localism/requirements/gpu.txt",
        "localism/localism/cli/main.py",
        "localism/prompts/paper/pack.toml",
    } <= there
    assert not [path for path in there if path.endswith((".bin", ".pth", ".pyc"))]
    # A judge that is the teacher's folder is not carried twice.
    assert not [path for path in there if path.startswith("models/judge")]


def test_the_packs_models_toml_is_the_users_own_with_paths_that_hold_inside(
    packed, lab, monkeypatch
):
    text = (packed / "models.toml").read_text()
    assert "# the big one" in text and str(lab) not in text
    monkeypatch.chdir(packed)
    config = load(Path("models.toml"), ())  # which checks every folder and file
    assert config.teacher.path == config.judge.path == str(packed / "models/teacher")
    assert [str(Path(seeds.path).relative_to(packed)) for seeds in config.extract.seeds] == [
        "data/seeds/seeds.jsonl", "data/seeds-2/seeds.jsonl"
    ]  # fmt: skip


def test_the_manifest_says_where_each_part_came_from_and_its_licence(packed, lab):
    teacher = carry.read_manifest(packed)["contents"][0]
    assert teacher["what"] == "teacher" and teacher["from"] == str(lab / "weights/teacher")
    assert "apache" in teacher["licence"].lower()
    assert teacher["bytes"] > 10**6


def test_a_path_spelled_with_escapes_is_refused_rather_than_left_as_it_is():
    text = '[teacher]\npath = "/we\\u0069ghts/t"\n'
    piece = Piece("teacher", Path("/weights/t"), "models/teacher", ("/weights/t",))
    with pytest.raises(ConfigError, match="could not be rewritten"):
        contents.rewritten(text, [piece], "models.toml")


def test_a_path_that_is_part_of_another_is_not_rewritten_within_it():
    text = 'a = "/w/t"\nb = "/w/t/seeds"  # "/w/t" too\n'
    pieces = [Piece("a", Path("/w/t"), "models/a", ("/w/t",))]
    assert contents.rewritten(text, pieces, "x").startswith('a = "models/a"\nb = "/w/t/seeds"')


# ---- verify --------------------------------------------------------------------------------


def test_a_fresh_pack_is_whole(packed):
    assert carry.verify(packed) == []


def test_one_byte_flipped_in_any_file_is_found(copied):
    """Every file of the pack in turn, the manifest's own entry aside."""
    for entry in carry.read_manifest(copied)["files"]:
        path = copied / entry["path"]
        if not entry["bytes"]:
            continue
        content = bytearray(path.read_bytes())
        place = random.Random(entry["path"]).randrange(len(content))
        content[place] ^= 1
        path.write_bytes(content)
        found = carry._check(path, entry, quick=False)
        content[place] ^= 1
        path.write_bytes(content)
        assert found == "altered", entry["path"]
    assert carry.verify(copied) == []


def test_missing_cut_longer_linked_and_extra_files_are_named(copied):
    (copied / "models/student/config.json").unlink()
    weights = copied / "models/teacher/model.safetensors"
    os.truncate(weights, 1000)
    with (copied / "README.txt").open("a") as more:
        more.write("x")
    (copied / "carry.py").unlink()
    (copied / "carry.py").symlink_to(ROOT / "localism/packing/carry.py")
    (copied / "models/extra.bin").write_bytes(b"?")
    assert set(carry.verify(copied)) == {
        ("missing", "models/student/config.json"),
        ("shorter", "models/teacher/model.safetensors"),
        ("longer", "README.txt"),
        ("link", "carry.py"),
        ("extra", "models/extra.bin"),
    }
    assert ("altered", "models.toml") not in carry.verify(copied, quick=True)


def test_a_pack_that_was_set_up_and_run_in_is_still_whole(copied):
    for name in (
        "localism/.venv/bin/x",
        "runs/first/corpus.duckdb",
        "localism/localism/__pycache__/y",
    ):
        (copied / name).parent.mkdir(parents=True, exist_ok=True)
        (copied / name).write_text("z")
    assert carry.verify(copied) == []


def test_the_packs_own_program_needs_nothing_but_python(copied):
    bare = [sys.executable, "-I", "-S", "carry.py", "verify", "."]
    done = subprocess.run(bare, cwd=copied, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    (copied / "models.toml").write_text("x")
    done = subprocess.run(bare, cwd=copied, capture_output=True, text=True)
    assert done.returncode == 3 and "shorter    models.toml" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["verify", "nothing"], 3, "no pack, it has no manifest"),
        (["unpack", "nothing.parts.json", "."], 3, "No such file"),
        (["verify"], 2, "carry.py verify DIR"),
        (["unpack", "one.parts.json", "/proc/none"], 4, "/proc/none"),
    ],
)
def test_the_packs_own_program_ends_with_the_codes_of_localism(
    tmp_path, monkeypatch, capsys, words, code, said
):
    monkeypatch.chdir(tmp_path)
    Path("one.parts.json").write_text('{"name": "one", "parts": []}')
    assert carry.main(words) == code
    assert said in capsys.readouterr().err


def test_a_folder_that_is_to_be_unpacked_is_told_what_to_do(packed, tmp_path):
    (tmp_path / "pack.parts.json").touch()
    (tmp_path / "empty").mkdir()
    for folder, problem, fix in (
        (packed, "this pack needs no unpacking", "verify it, then do as its README.txt says"),
        (tmp_path, "this is a folder", f"name the list of parts in it, {tmp_path}/pack.parts.json"),
        (tmp_path / "empty", "no pack, and no list of parts", "name the NAME.parts.json"),
    ):
        wrong = CliRunner().invoke(cli, ["unpack", str(folder)], obj={}).exception
        assert isinstance(wrong, ConfigError) and wrong.where == str(folder)
        assert wrong.problem == problem and fix in wrong.fix


def test_the_command_names_what_is_wrong_and_exits_with_3(copied):
    (copied / "models.toml").unlink()
    done = CliRunner().invoke(cli, ["verify", str(copied)], obj={})
    assert isinstance(done.exception, ConfigError) and done.exception.exit_code == 3
    assert "missing models.toml" in done.exception.where


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": 99, "files": []}', '{"format": 1, "files": [{"path": "../x"}]}'],
)
def test_a_damaged_manifest_is_told_so(tmp_path, content):
    (tmp_path / carry.MANIFEST).write_text(content)
    with pytest.raises(carry.BadPack, match="; (copy this file again|use the carry.py in it)"):
        carry.verify(tmp_path)


def test_what_is_no_list_of_parts_is_told_what_to_name_instead(packed, tmp_path):
    part, other, torn = (tmp_path / name for name in ("a.tar.001", "b.tar.001", "a.parts.json"))
    for file in (part, other):
        file.write_bytes(b"\x89")
    torn.write_text('{"name": "a"}')
    for named, problem, fix in (
        (part, "this is no list of parts", f"name the list, {torn}"),
        (other, "this is no list of parts", "name the NAME.parts.json beside the parts"),
        (torn, "this list of parts is damaged", "copy this file again"),
        (packed / carry.MANIFEST, "this pack needs no unpacking", "verify it"),
        (tmp_path / "none", "No such file or directory", "name the NAME.parts.json"),
    ):
        wrong = CliRunner().invoke(cli, ["unpack", str(named), str(tmp_path)], obj={}).exception
        assert isinstance(wrong, ConfigError) and (wrong.problem, wrong.fix[: len(fix)]) == (
            problem, fix,
        )  # fmt: skip


def test_a_pack_appears_in_one_folder_alone(tmp_path):
    done = CliRunner().invoke(cli, ["unpack", "a.parts.json", "one", "--to", "two"], obj={})
    assert done.exit_code == 2 and "give one" in done.output


# ---- cut off and begun again ---------------------------------------------------------------


def test_what_was_copied_before_a_kill_is_not_copied_again(tmp_path):
    sources = []
    for number in range(40):
        path = tmp_path / f"source-{number}"
        path.write_bytes(bytes([number]) * 300_000)
        sources.append(File(path, f"data/{number}"))
    script = (
        "import sys, time; from pathlib import Path\n"
        "from localism.packing import packer; from localism.packing.contents import File\n"
        "files = [File(Path(s), f'data/{n}') for n, s in enumerate(sys.argv[2:])]\n"
        "packer.begin(Path(sys.argv[1]))\n"
        "said = lambda *_: (print('.', flush=True), time.sleep(0.02))\n"
        "packer.copy_all(files, Path(sys.argv[1]), said)\n"
    )
    target = tmp_path / "pack"
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(target), *(str(file.source) for file in sources)],
        stdout=subprocess.PIPE,
    )
    assert child.stdout
    for _ in range(5):
        child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait()
    copied: list[str] = []
    packer.begin(target)
    entries = packer.copy_all(sources, target, lambda path, _: copied.append(path))
    assert 0 < len(copied) <= 35
    packer.finish(target, entries, {})
    assert carry.verify(target) == []


def test_a_source_that_changed_in_between_is_copied_again(tmp_path):
    source = tmp_path / "a"
    source.write_text("before")
    packer.begin(tmp_path / "pack")
    packer.copy_all([File(source, "a")], tmp_path / "pack", lambda *_: None)
    time.sleep(0.01)
    source.write_text("after!")
    entries = packer.copy_all([File(source, "a")], tmp_path / "pack", lambda *_: None)
    packer.finish(tmp_path / "pack", entries, {})
    assert (tmp_path / "pack/a").read_text() == "after!" and carry.verify(tmp_path / "pack") == []


def test_what_no_longer_belongs_is_gone_from_the_finished_pack(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    pack = tmp_path / "pack"
    packer.begin(pack)
    packer.copy_all([File(tmp_path / n, n) for n in ("a", "b")], pack, lambda *_: None)
    entries = packer.copy_all([File(tmp_path / "a", "a")], pack, lambda *_: None)
    packer.finish(pack, entries, {})
    assert sorted(path.name for path in pack.iterdir()) == [carry.MANIFEST, "a"]


def test_an_unfinished_pack_is_none(tmp_path):
    packer.begin(tmp_path / "pack")
    with pytest.raises(carry.BadPack, match="not finished"):
        carry.verify(tmp_path / "pack")


def test_a_folder_of_something_else_is_left_alone(tmp_path, packed):
    (tmp_path / "photo.jpg").write_text("x")
    with pytest.raises(UsageError, match="not empty"):
        packer.begin(tmp_path)
    with pytest.raises(UsageError, match="finished already"):
        packer.begin(packed)


# ---- parts ---------------------------------------------------------------------------------


@pytest.fixture
def parts(copied) -> Path:
    return packer.split(copied, 2_000_000, lambda *_: None)


def test_parts_are_of_the_size_asked_for_and_give_the_pack_again(parts, copied, tmp_path):
    listed = json.loads(parts.read_text())["parts"]
    assert len(listed) > 3
    assert {part["bytes"] for part in listed[:-1]} == {2_000_000}
    folder = carry.unpack(parts, tmp_path / "inside")
    assert carry.verify(folder) == []
    assert (folder / "models.toml").read_text() == (copied / "models.toml").read_text()


@pytest.mark.parametrize("harm", ["flip", "cut", "lose"])
def test_a_damaged_part_is_named(parts, tmp_path, harm):
    part = parts.parent / json.loads(parts.read_text())["parts"][1]["path"]
    if harm == "flip":
        content = bytearray(part.read_bytes())
        content[77] ^= 8
        part.write_bytes(content)
    elif harm == "cut":
        os.truncate(part, 1000)
    else:
        part.unlink()
    with pytest.raises(carry.BadPack, match=part.name):
        carry.unpack(parts, tmp_path / "inside")
    assert not (tmp_path / "inside" / "pack").exists()


def test_a_tar_that_would_leave_its_folder_is_refused(tmp_path):
    evil = tmp_path / "pack.tar.001"
    with tarfile.open(evil, "w") as tar:
        member = tarfile.TarInfo("../outside")
        tar.addfile(member)
    part = {"path": evil.name, "bytes": evil.stat().st_size, "sha256": carry.sha256_of(evil)}
    listed = tmp_path / "pack.parts.json"
    listed.write_text(json.dumps({"name": "pack", "parts": [part]}))
    with pytest.raises(carry.BadPack):
        carry.unpack(listed, tmp_path / "inside")
    assert not (tmp_path / "outside").exists() and not (tmp_path / "inside/outside").exists()


# ---- wheels --------------------------------------------------------------------------------


def test_every_wheel_of_a_lock_has_to_be_there(tmp_path):
    lock = tmp_path / "lock.txt"
    lock.write_text("# a lock\ntorch==2.13.0\nruamel.yaml==0.18.1 ; python_version > '3'\nx-y==1\n")
    for name in ("torch-2.13.0+cpu-cp311-cp311-linux_x86_64", "ruamel_yaml-0.18.1-py3-none-any"):
        (tmp_path / f"{name}.whl").touch()
    with pytest.raises(StageError, match="no wheel for x-y 1"):
        wheels.wanted(tmp_path, [lock])
    (tmp_path / "x_y-1-py3-none-any.whl").touch()
    assert len(wheels.wanted(tmp_path, [lock])) == 3


@pytest.mark.parametrize("size", ["50", "12Q", "", "-3G"])
def test_sizes_are_of_a_megabyte_or_more(size, tmp_path):
    arguments = ["pack", "--to", str(tmp_path / "p"), "--no-wheels", "--split", size]
    assert CliRunner().invoke(cli, arguments, obj={}).exit_code == 2
