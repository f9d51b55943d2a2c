"""What can be trained on, and each training's name, folder and checkpoints.

A training set is a named list of examples: `accepted`, the run's own, or one that localism variant
made (tables training_set and set_example). A training is one fine-tuning of the base on a set with
one seed. The run's own is `main`: its checkpoints are epoch-03 and so on, under checkpoints/. Any
other is called after its set and seed, and so are its checkpoints: brevity-20.seed1/epoch-03, under
trainings/brevity-20.seed1/checkpoints/.
"""

from dataclasses import dataclass
from pathlib import Path

from localism.config import Config
from localism.errors import UsageError
from localism.records import Split
from localism.store import Row, Store

ACCEPTED = "accepted"
MAIN = "main"
TRAININGS = "trainings"


@dataclass(frozen=True)
class Training:
    """One fine-tuning of the base; a row of table training."""

    name: str
    """main, or that of the set, with the seed where that is not the run's."""
    set_name: str
    """What it is trained on."""
    seed: int
    """Of the order of the examples."""

    def home(self, run_folder: Path) -> Path:
        """The folder that holds its train/ and checkpoints/."""
        return run_folder if self.name == MAIN else run_folder / TRAININGS / self.name

    def model_id(self, checkpoint: str) -> str:
        """The checkpoint's name among all of the run."""
        return checkpoint if self.name == MAIN else f"{self.name}/{checkpoint}"

    def option(self) -> str:
        """What names it on the command line of train, pick and evaluate."""
        if self.name == MAIN:
            return ""
        seed = "" if self.name == self.set_name else f" --seed {self.seed}"
        return f" --on {self.set_name}{seed}"

    def named(self, text: str) -> str:
        """A summary that says which training it is about, unless it is the run's own."""
        return text if self.name == MAIN else f"{self.name}: {text}"


def main_training(config: Config) -> Training:
    """The run's own."""
    return Training(MAIN, ACCEPTED, config.seed)


def training_of(config: Config, set_name: str, seed: int | None = None) -> Training:
    """The training of a set with a seed; the run's own seed when there is none."""
    if seed is None or seed == config.seed:
        name = MAIN if set_name == ACCEPTED else set_name
        return Training(name, set_name, config.seed)
    return Training(f"{set_name}.seed{seed}", set_name, seed)


def accepted(store: Store, split: Split) -> list[Row]:
    """(mix_id, instruction, response) of the accepted examples of a split, in the plan's order."""
    return store.query(
        "SELECT mix_id, c.instruction, c.response FROM candidate c JOIN mix m USING (mix_id)"
        " WHERE c.status = 'accepted' AND m.split = ? ORDER BY m.ordinal",
        [split],
    )


def examples(store: Store, set_name: str) -> list[Row]:
    """(mix_id, instruction, response) of a training set; UsageError names the sets there are."""
    if set_name == ACCEPTED:
        return accepted(store, "train")
    known = [r["set_name"] for r in store.query("SELECT set_name FROM training_set ORDER BY ALL")]
    if set_name not in known:
        raise UsageError(
            f"there is no training set {set_name!r}",
            where="table training_set",
            fix=f"name one of: {', '.join([ACCEPTED, *known])}; localism variant makes more",
        )
    return store.query(
        "SELECT mix_id, instruction, response FROM set_example"
        " WHERE set_name = ? AND status = 'accepted' ORDER BY ordinal",
        [set_name],
    )
