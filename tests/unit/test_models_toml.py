"""Every mistake in models.toml is one error that says where it is and how to mend it."""

import shutil
from pathlib import Path

import pytest

from localism import models_toml
from localism.errors import ConfigError, LocalismError, UsageError
from localism.prompting.packs import packaged

EMBEDDED = packaged("models.toml").read_text()
TEACHER = Path(models_toml.__file__).parent / "embedded" / "teacher"


def write(folder: Path, text: str = EMBEDDED) -> Path:
    path = folder / "models.toml"
    path.write_text(text)
    return path


def test_the_embedded_default_is_valid_and_a_rehearsal(tmp_path):
    loaded = models_toml.load(write(tmp_path))
    assert loaded.is_rehearsal()
    assert loaded.served("judge") is loaded.teacher
    assert loaded.served("student") is loaded.student


def test_the_h100_template_differs_from_a_loadable_file_only_by_its_paths(tmp_path):
    template = Path(models_toml.__file__).parent / "templates" / "models-h100.toml"
    text = template.read_text()
    text = text.replace("/models/teacher-70b-instruct", "embedded:teacher")
    loaded = models_toml.load(
        write(tmp_path, text.replace("/models/student-3b-base", "embedded:student"))
    )
    assert (loaded.train.epochs, loaded.mix.train, loaded.prompts.pack) == (15, 4000, "paper")


@pytest.mark.parametrize(
    ("override", "problem", "where", "fix"),
    [
        ("train.epoch=3", "unknown key epoch", "[train].epoch", "epochs"),
        ("trian.epochs=3", "unknown key trian", "trian", "train"),
        ("train.zzz=3", "unknown key zzz", "[train].zzz", "known here: epochs"),
        ("train.epochs=many", "epochs", "[train].epochs = 'many'", "models-toml"),
        ("train.epochs=0", "greater than or equal to 1", "[train].epochs = 0", "models-toml"),
        ("train.batch=20", "not a multiple of micro_batch", "[train].batch", "multiple of 16"),
        ("mix.k=999", "larger than the", "[mix].k", "smaller k"),
        ("extract.method=sdx", "method", "[extract].method = 'sdx'", "models-toml"),
        ("teacher.path=", "needs a path or endpoints", "[teacher]", "model folder"),
        ("teacher.path=nowhere", "does not exist", "[teacher].path", "config.json"),
        ("embedder.path=nowhere", "sentence-transformers", "[embedder].path", "minilm"),
        ("prompts.pack=nope", "no prompt pack", "[prompts].pack", "compact"),
        ("judge.path=embedded:teacher", "same_as", "[judge].same_as", "keep one"),
        ('student.endpoints=["http://a/v1"]', "needs a path or endpoints", "[student]", "path"),
        ("extract.seeds=[]", "needs seed examples", "[extract].seeds", "file or folder"),
        ('extract.seeds=["no.jsonl"]', "no seed data", "[extract].seeds[0]", "JSONL"),
        ("train.epochs='3'", "valid integer", "[train].epochs = '3'", "models-toml"),
        ("mix.train=true", "valid integer", "[mix].train = True", "models-toml"),
        ("pick.both_orders=1", "valid boolean", "[pick].both_orders = 1", "models-toml"),
        ("train.warmup=false", "valid number", "[train].warmup = False", "models-toml"),
        (
            'teacher={path="", endpoints=["http://node:80x0/v1"]}',
            "no base URL",
            "[teacher].endpoints",
            "http://node1:8000/v1",
        ),
        (
            'teacher={path="", endpoints=["http://user:pw@node:8000/v1"]}',
            "no base URL",
            "[teacher].endpoints",
            "api_key_file",
        ),
        ("seed=one", "seed", "seed = 'one'", "models-toml"),
    ],
)
def test_a_mistake_names_its_key_and_the_fix(tmp_path, override, problem, where, fix):
    overrides = [override]
    if override.startswith("mix.k"):
        overrides.append("extract.method=sda")
    with pytest.raises(ConfigError) as caught:
        models_toml.load(write(tmp_path), overrides)
    assert problem in caught.value.problem
    assert where in caught.value.where
    assert fix in caught.value.fix
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("override", ["train.epochs", "=3", "train..epochs=3", "seed.x=1"])
def test_a_malformed_override_is_a_usage_error(tmp_path, override):
    with pytest.raises(UsageError) as caught:
        models_toml.load(write(tmp_path), [override])
    assert override in caught.value.where
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["seed = = 1", "[teacher\n", "\x00"])
def test_broken_toml_says_where(tmp_path, text):
    with pytest.raises(ConfigError, match="not valid TOML") as caught:
        models_toml.load(write(tmp_path, text))
    assert "line" in caught.value.where


def test_a_missing_file_points_to_init(tmp_path):
    with pytest.raises(ConfigError) as caught:
        models_toml.load(tmp_path / "absent.toml")
    assert "localism init" in caught.value.fix


def test_a_missing_table_says_how_to_get_a_complete_file(tmp_path):
    with pytest.raises(ConfigError) as caught:
        models_toml.load(write(tmp_path, "[judge]\nsame_as = 'teacher'\n"))
    assert "teacher" in caught.value.problem
    assert "localism init" in caught.value.fix


@pytest.mark.parametrize(
    ("remove", "problem"),
    [
        ("tokenizer.json", "no tokenizer"),
        ("config.json", "no config.json"),
        ("model.safetensors", "no safetensors"),
        ("chat_template.jinja", "chat template"),
    ],
)
def test_an_incomplete_teacher_folder_is_refused(tmp_path, remove, problem):
    folder = tmp_path / "model"
    shutil.copytree(TEACHER, folder)
    (folder / remove).unlink()
    with pytest.raises(ConfigError, match=problem) as caught:
        models_toml.load(write(tmp_path), ["teacher.path=model"])
    assert "[teacher].path" in caught.value.where


def test_torn_weights_are_refused(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(TEACHER, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ConfigError, match="damaged") as caught:
        models_toml.load(write(tmp_path), ["teacher.path=model"])
    assert "bytes expected" in caught.value.where


def test_a_base_student_needs_no_chat_template(tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(TEACHER.parent / "student", folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    assert models_toml.load(write(tmp_path), ["student.path=base"]).student.path == str(folder)


def test_relative_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    shutil.copytree(TEACHER, tmp_path / "weights")
    monkeypatch.chdir("/")
    loaded = models_toml.load(write(tmp_path), ["teacher.path=weights"])
    assert loaded.teacher.path == str(tmp_path / "weights")


def test_speed_keys_leave_the_recipe_alone_and_others_do_not(tmp_path):
    base = models_toml.load(write(tmp_path))
    faster = models_toml.load(write(tmp_path), ["teacher.max_num_seqs=64", "embedder.batch_size=8"])
    other = models_toml.load(write(tmp_path), ["train.epochs=9"])
    assert faster.recipe_hash() == base.recipe_hash()
    assert other.recipe_hash() != base.recipe_hash()


def test_every_error_prints_as_three_lines():
    text = str(LocalismError("a", where="b", fix="c"))
    assert [line.split()[0] for line in text.splitlines()] == ["error:", "where:", "fix:"]
