"""What the doctor computes and starts, against real engines."""

import re
import subprocess

import pytest
from pipeline import command

from localism.models_toml import load
from localism.paths import embedded
from localism.prompting.packs import packaged
from localism.serving.memory import needed

SIZE = re.compile(r"KV cache size: ([\d,]+) tokens")
GIVEN = 2**30  # of cache, to models as small as these (serving/engine.py)


@pytest.mark.parametrize(("role", "stage"), [("teacher", "generate"), ("student", "pick")])
def test_the_cache_of_a_token_is_within_ten_percent_of_the_engines_own(finished, role, stage):
    log = (finished.folder / "logs" / f"{stage}-{role}.log").read_text()
    tokens = int(SIZE.findall(log)[-1].replace(",", ""))
    section = load(packaged("models.toml")).served(role)
    need = needed(embedded(section.path), section)
    assert need.a_token == pytest.approx(GIVEN / tokens, rel=0.1)


def test_deep_starts_each_engine_once_and_leaves_nothing(tmp_path):
    done = subprocess.run(
        [*command(tmp_path / "none", "doctor", "--deep"), "--models", str(packaged("models.toml"))],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "teacher engine" in done.stdout and "student engine" in done.stdout
    assert done.stdout.count("started and answered") == 2
    assert not (tmp_path / "none").exists()
