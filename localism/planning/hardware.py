"""What models cost on a machine: seconds and watts, where nothing was measured.

Good to a factor of three or four; every constant is a guess of how well batches fill the hardware.
"""

from dataclasses import dataclass

from localism import weights
from localism.config import Config, Served
from localism.errors import LocalismError
from localism.gpus import Gpus
from localism.paths import embedded
from localism.planning.seen import Calibrated
from localism.power import Power
from localism.serving.memory import needed
from localism.serving.placement import Placement, place

# Model floating-point operations that are done a second, of what a card could: an H100 in bf16 and
# a core of a CPU in float32; the shares are those of well-filled batches.
GPU_FLOPS, CPU_FLOPS = 0.9e15, 5e10
DECODE_SHARE, TRAIN_SHARE = 0.15, 0.35
START_SECONDS = {True: 120.0, False: 25.0}
GPU_WATTS, CORE_WATTS = 700.0, 8.0
ROLE = {"extract": "teacher", "generate": "teacher", "curate": "judge"}


@dataclass(frozen=True)
class Machine:
    """What the run has to work with."""

    gpus: Gpus
    """Those of this machine."""
    cores: int
    """Of the CPU."""

    def flops(self) -> float:
        """Of all GPUs, or of the CPU."""
        return self.gpus.number * GPU_FLOPS if self.gpus.number else self.cores * CPU_FLOPS

    def watts(self, given: float | None, trial: Calibrated | None) -> Power:
        """Power while it works: as given, as a trial measured it, or assumed."""
        if given is not None:
            return Power(given, "as given by --watts")
        if trial and trial.power.watts is not None:
            return Power(trial.power.watts, f"in the trial: {trial.power.source}")
        if self.gpus.number:
            return Power(self.gpus.number * GPU_WATTS, f"assumed, {GPU_WATTS:.0f} W a GPU")
        return Power(self.cores * CORE_WATTS, f"assumed, {CORE_WATTS:.0f} W a core")


def role_of(config: Config, stage: str) -> Served:
    """The model that writes most in a stage."""
    return config.served(ROLE.get(stage, "student"))


def parameters(section: Served) -> int | None:
    """Of a model on this disk; None for one behind endpoints, or that cannot be read."""
    try:
        return weights.parameter_count(embedded(section.path)) if section.path else None
    except (LocalismError, OSError):
        return None


def busy_gpus(config: Config, machine: Machine, stage: str) -> int:
    """GPUs of this machine that a stage keeps busy."""
    if not machine.gpus.number or stage == "train":
        return machine.gpus.number
    return placement(config, machine.gpus, ROLE.get(stage, "student"), _at_once(config, stage)).gpus


def engines(config: Config, machine: Machine) -> dict[str, str]:
    """How each role's engine will lie on the GPUs, in words; nothing on a CPU."""
    most = {"teacher": None, "judge": None, "student": max(config.mix.dev, config.mix.test)}
    return {
        role: placement(config, machine.gpus, role, conversations).said()
        for role, conversations in most.items()
        if machine.gpus.number and getattr(config, role).path
    }


def _at_once(config: Config, stage: str) -> int | None:
    """Conversations that a stage's engine is given together, where they may be few."""
    mix = config.mix
    planned = {"generate": mix.train + mix.dev + mix.test, "pick": mix.dev, "evaluate": mix.test}
    return planned.get(stage)


def placement(config: Config, gpus: Gpus, role: str, conversations: int | None) -> Placement:
    """Where a role's engine will lie; ConfigError, MachineError where it can't.

    Behind endpoints nobody knows: one GPU is counted.
    """
    section = config.served(role)
    if not section.path:
        return Placement()
    return place(needed(embedded(section.path), section), section, gpus, role, conversations)


def call_work(sent: float, written: float) -> float:
    """Floating-point operations' worth of tokens, for each parameter of the model.

    Prompts are read many tokens at once, at about the share of a training step.
    """
    return 2 * (written / DECODE_SHARE + sent / TRAIN_SHARE)


def call_seconds(
    config: Config, machine: Machine, stage: str, sent: float, written: float
) -> float | None:
    """Of model calls with so many tokens; None where the size of the model is not known."""
    size = parameters(role_of(config, stage))
    gpus = busy_gpus(config, machine, stage)
    flops = gpus * GPU_FLOPS if gpus else machine.flops()
    return None if size is None else size * call_work(sent, written) / flops


def train_seconds(config: Config, machine: Machine, tokens: float) -> float | None:
    """Of training on so many tokens: two operations a parameter forward, four back."""
    size = parameters(config.student)
    return None if size is None else 6 * size * tokens / (TRAIN_SHARE * machine.flops())


def start_seconds(config: Config, machine: Machine, stage: str, one: float | None = None) -> float:
    """Of a stage's engines; `one` is what the start of one was measured to take."""
    engines = 2 if stage in ("pick", "evaluate") else 1
    return engines * (one or START_SECONDS[bool(busy_gpus(config, machine, stage))])
