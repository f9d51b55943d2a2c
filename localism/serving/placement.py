"""How a served model lies on the GPUs of a machine: from its size and theirs, before it is started.

Tensor parallel: the smallest number of GPUs that the model's layers can be divided among and that
has room, beside the weights and the engine's own needs, for the longest conversation and for
max_num_seqs conversations of 512 tokens; or a larger one, if as many copies then leave fewer GPUs
idle. Where no number has room for so many, the largest one.
Data parallel: as many copies as the other GPUs hold, and no more than the work fills. A number in
models.toml is taken as given, and refused here if it cannot work. What is derived enters no recipe
and no fingerprint: a run may go on on another machine.
"""

from typing import NamedTuple

from localism.config import Served
from localism.errors import ConfigError, MachineError
from localism.gpus import Gpus
from localism.serving.memory import OVERHEAD_BYTES, Needed
from localism.tables import gigabytes, number_of

# An instruction and its answer, as instruction-tuned models write them. What is longer waits or is
# computed again; with less room than this for each place of the batch, places stay empty.
USUAL_TOKENS = 512
# vLLM fills the vocabulary up to a multiple of this before it divides it.
PADDING = 64
# gpu_memory_utilization as it is when nobody says more or less.
USUAL_SHARE = 0.9
# More tokens than any engine holds, and more GPUs than one copy is shared by.
NO_END, MANY_GPUS = 2**62, 64


class Placement(NamedTuple):
    """How many GPUs an engine takes, and what for."""

    tensor: int = 1
    """GPUs that share one copy of the weights."""
    pipeline: int = 1
    """Such groups that a copy's layers are spread over, one after the other."""
    data: int = 1
    """Copies."""
    why: str = ""
    """In a line, for people; empty where there was nothing to decide."""
    machines: int = 1
    """That it spans, each with as many of the GPUs."""

    @property
    def gpus(self) -> int:
        """All that it takes."""
        return self.tensor * self.pipeline * self.data

    @property
    def gpus_here(self) -> int:
        """Of this machine."""
        return self.gpus // self.machines

    def said(self) -> str:
        """tensor parallel 4, data parallel 2 (...)."""
        sizes = f"tensor parallel {self.tensor}, data parallel {self.data}"
        if self.pipeline > 1:
            sizes += f", pipeline parallel {self.pipeline}"
        return f"{sizes} ({self.why})" if self.why else sizes


def place(
    need: Needed, section: Served, gpus: Gpus, table: str, conversations: int | None = None
) -> Placement:
    """Where a model goes. `table`: its table of models.toml; `conversations`: how much work waits.

    Raises ConfigError for a given size that the model's layers cannot be divided by, MachineError
    for too few or too small GPUs; both name a size that works, where one does.
    """
    if section.nodes > 1:
        return over_machines(need, section, gpus, table)
    if not gpus.number:
        return _without_gpus(need, section, table)
    room = Room(need, section, gpus)
    tensor, why = _tensor(room, table)
    copies, why_copies = _copies(room, tensor, table, conversations)
    return Placement(tensor, 1, copies, f"{why}; {why_copies}" if why_copies else why)


def over_machines(need: Needed | None, section: Served, gpus: Gpus, table: str) -> Placement:
    """Over [table].nodes machines like this one. need: None where GPUs are not what limits it.

    Sizes that are not given: a copy's weights are shared by all GPUs of a machine, where they are
    near each other, and its layers are spread over the machines. Whole copies beside each other,
    where data_parallel is given, lie within a machine, as many on each.
    """
    nodes, copies = section.nodes, section.data_parallel or 1
    pipeline = section.pipeline_parallel or (nodes if copies == 1 else 1)
    here = gpus.number or 1
    tensor = section.tensor_parallel or max(1, here * nodes // (pipeline * copies))
    found = Placement(tensor, pipeline, copies, f"over {nodes} machines", nodes)
    _check_spread(found, here if gpus.number else found.gpus_here, table)
    if need and (against := stands_against(need, tensor, copies)):
        raise ConfigError(
            f"the model does not suit tensor parallel {tensor}: {against}",
            where=f"models.toml [{table}].nodes = {nodes}",
            fix=f"give another [{table}].tensor_parallel",
        )
    # Further arguments may quantise the weights or the cache.
    fits = not need or Room(need, section, gpus).fits(tensor, pipeline)
    if need and not fits and not section.engine_arguments:
        raise MachineError(
            "weights and the longest conversation do not fit on "
            f"{number_of(tensor * pipeline, 'GPU')}",
            where=f"models.toml [{table}].nodes = {nodes}: weights {gigabytes(need.weights)}, "
            f"one conversation of {need.longest:,} tokens {gigabytes(need.conversation)}, GPUs of "
            f"{gigabytes(gpus.memory or 0)}",
            fix=f"more machines: [{table}].nodes; or quantised weights, or a lower max_model_len",
        )
    return found


def _check_spread(found: Placement, here: int, table: str) -> None:
    where = f"models.toml [{table}].nodes = {found.machines}"
    if found.gpus % found.machines or (found.data > 1 and found.data % found.machines):
        raise ConfigError(
            f"{found.said()} cannot be spread evenly",
            where=where,
            fix=f"pipeline_parallel = {found.machines}, or data_parallel a multiple of it",
        )
    if found.gpus_here > here:
        raise MachineError(
            f"the engine is to have {number_of(found.gpus_here, 'GPU')} of each machine, which has "
            f"{here}",
            where=f"{where}, tensor_parallel, pipeline_parallel, data_parallel",
            fix="leave tensor_parallel and pipeline_parallel away: they then follow from the GPUs",
        )


def _without_gpus(need: Needed, section: Served, table: str) -> Placement:
    """On a CPU the sizes are what models.toml says, if the layers can be divided so."""
    tensor, data = section.tensor_parallel or 1, section.data_parallel or 1
    if against := stands_against(need, tensor, data):
        raise ConfigError(
            f"the model does not suit this size: {against}",
            where=f"models.toml [{table}].tensor_parallel = {tensor}",
            fix="leave it away: there is no GPU to divide the model among",
        )
    return Placement(tensor, 1, data, "nvidia-smi lists no GPU")


class Room:
    """What one model leaves of the GPUs' memory, by the number of GPUs that share a copy."""

    def __init__(self, need: Needed, section: Served, gpus: Gpus) -> None:
        self.need, self.section, self.gpus = need, section, gpus

    @property
    def usable(self) -> int | None:
        """Bytes of a GPU for weights and cache; None where its memory is not known."""
        if self.gpus.memory is None:
            return None
        return int(self.section.gpu_memory_utilization * self.gpus.memory) - OVERHEAD_BYTES

    def tokens(self, tensor: int, pipeline: int = 1) -> int | None:
        """Of cache in a copy; below 0 where not even the weights fit, None where not known."""
        if self.usable is None:
            return None
        left = self.usable - self.need.weights / (tensor * pipeline)
        if left < 0:
            return -1
        # Heads that are fewer than the GPUs are kept several times.
        shared = pipeline * min(tensor, self.need.layers.kv_heads or tensor)
        return int(left * shared / self.need.a_token) if self.need.a_token else NO_END

    def fits(self, tensor: int, pipeline: int = 1) -> bool:
        """Weights and the longest conversation."""
        tokens = self.tokens(tensor, pipeline)
        return tokens is None or tokens >= self.need.longest

    def is_ample(self, tensor: int, pipeline: int = 1) -> bool:
        """The whole batch of usual conversations too."""
        tokens = self.tokens(tensor, pipeline)
        wanted = USUAL_TOKENS * self.section.max_num_seqs
        return tokens is not None and tokens >= max(wanted, self.need.longest)

    def at_once(self, tensor: int, pipeline: int = 1) -> int:
        """Usual conversations that a copy decodes at once."""
        tokens = self.tokens(tensor, pipeline)
        most = self.section.max_num_seqs
        return most if tokens is None else max(1, min(most, tokens // USUAL_TOKENS))

    def sizes(self, most: int) -> list[int]:
        """Numbers of GPUs, up to `most`, that the layers can be divided among."""
        return [size for size in range(1, most + 1) if not stands_against(self.need, size)]


def stands_against(need: Needed, tensor: int, copies: int = 1) -> str:
    """Why a model cannot be divided so, by what vLLM 0.32 checks; empty when it can.

    Experts are divided over the GPUs of all copies.
    """
    layers = need.layers
    if layers.heads % tensor:
        return f"its {layers.heads} attention heads cannot be divided by {tensor}"
    heads = layers.kv_heads
    if heads and heads % tensor and tensor % heads:
        return f"its {heads} key and value heads cannot be shared by {tensor} GPUs"
    if -(-layers.vocabulary // PADDING) * PADDING % tensor:
        return f"its vocabulary of {layers.vocabulary:,} cannot be divided by {tensor}"
    split = [(width, tensor) for width in layers.widths]
    if layers.expert_width:
        split.append((layers.expert_width, tensor * copies))
    for width, parts in split:
        if width % parts:
            return f"layers of {width:,} cannot be divided by {parts}"
    return _against_scales(need, tensor, split)


def _against_scales(need: Needed, tensor: int, split: list[tuple[int, int]]) -> str:
    """Quantised weights have a scale for so many numbers, which all have to lie on one GPU."""
    layers = need.layers
    split = [*split, (layers.heads * layers.head_size, tensor)]
    kept = max(1, layers.kv_heads // tensor) * layers.head_size * tensor
    for size, parts_of in ((layers.group, split), (layers.block, [*split, (kept, tensor)])):
        for width, parts in parts_of:
            if size and width and parts > 1 and (width // parts) % size:
                return f"{width:,} / {parts} is no multiple of the {size} that share a scale"
    return ""


# ---- the size of a copy --------------------------------------------------------------------


def _tensor(room: Room, table: str) -> tuple[int, str]:
    given, copies = room.section.tensor_parallel, room.section.data_parallel or 1
    most = room.gpus.number // copies
    _check_number(room, (given or 1) * copies, table)
    if given:
        _check_given(room, given, most, table)
        return given, _told(room, given, "as models.toml says")
    sizes = room.sizes(most)
    if room.usable is None:
        return sizes[-1], "nvidia-smi does not say how much memory the GPUs have"
    ample = [size for size in sizes if room.is_ample(size)]
    if ample:
        # The smallest, or what leaves no GPU idle with as many copies.
        copies = most // ample[0]
        size = max(size for size in ample if most // size == copies)
        return size, _told(
            room, size, "one GPU has room" if size == 1 else _why_several(room, size)
        )
    fitting = [size for size in sizes if room.fits(size)]
    if not fitting and not room.section.engine_arguments:
        raise _too_small(room, sizes[-1], table)
    size = max(fitting or sizes)
    return size, _told(room, size, "as many as there are")


def _why_several(room: Room, size: int) -> str:
    """What one GPU fewer, as far as the layers allow it, would lack."""
    smaller = room.sizes(size - 1)[-1]
    on = number_of(smaller, "GPU")
    tokens = room.tokens(smaller)
    if room.is_ample(smaller):
        return "all GPUs in use"
    if tokens is None or tokens < 0:
        return f"the weights do not fit on {on}"
    if not room.fits(smaller):
        return f"{on} would not hold the longest conversation"
    return f"{on} would hold only {number_of(tokens // USUAL_TOKENS, 'usual conversation')} at once"


def _told(room: Room, size: int, said: str) -> str:
    """one GPU has room: weights 16.1 GB of the 74.1 GB usable on each GPU, cache for ..."""
    tokens = room.tokens(size)
    if room.usable is None or tokens is None:
        return said
    each = f"weights {gigabytes(room.need.weights / size)} of the {gigabytes(room.usable)} usable"
    cache = "" if tokens == NO_END else f", cache for {max(0, tokens):,} tokens a copy"
    return f"{said}: {each} on each GPU{cache}"


def _check_number(room: Room, wanted: int, table: str) -> None:
    if wanted <= room.gpus.number:
        return
    sizes = {key: getattr(room.section, key) for key in ("tensor_parallel", "data_parallel")}
    given = ", ".join(f"{key} = {value}" for key, value in sizes.items() if value)
    raise MachineError(
        f"the engine is to have {number_of(wanted, 'GPU')}, and there are {room.gpus.number}",
        where=f"models.toml [{table}] {given}",
        fix="leave them away: what is absent is found from the GPUs' memory",
    )


def _check_given(room: Room, given: int, most: int, table: str) -> None:
    against = stands_against(room.need, given)
    where = f"models.toml [{table}].tensor_parallel = {given}"
    working = [size for size in room.sizes(most) if room.fits(size)]
    sizes = f"tensor_parallel = {working[0]}, or leave it away" if working else ""
    if against:
        fix = sizes or "leave it away"
        raise ConfigError(f"the model does not suit this size: {against}", where=where, fix=fix)
    # Further arguments may quantise the weights or the cache.
    if not room.fits(given) and not room.section.engine_arguments:
        raise _too_small(room, given, table, sizes)


def _too_small(room: Room, tensor: int, table: str, sizes: str = "") -> MachineError:
    need, usable, tokens = room.need, room.usable, room.tokens(tensor)
    assert usable is not None and tokens is not None
    on = number_of(tensor, "GPU")
    where = (
        f"models.toml [{table}]: weights {gigabytes(need.weights)}, one conversation of "
        f"{need.longest:,} tokens {gigabytes(need.conversation)}; usable on each GPU "
        f"{gigabytes(max(0, usable))} of {gigabytes(room.gpus.memory or 0)} "
        f"(gpu_memory_utilization = {room.section.gpu_memory_utilization})"
    )
    if tokens < 0:
        fix = sizes or f"{_enough(room)}, a smaller model, or quantised weights"
        if room.section.gpu_memory_utilization < USUAL_SHARE:
            fix = f"a higher [{table}].gpu_memory_utilization; or {fix}"
        return MachineError(f"the weights do not fit on {on}", where=where, fix=fix)
    shorter = f"[{table}].max_model_len = {tokens // 256 * 256 or tokens}"
    return MachineError(
        f"the longest conversation does not fit beside the weights on {on}",
        where=where,
        fix=f"{sizes or _enough(room)}; or {shorter} or less",
    )


def _enough(room: Room) -> str:
    """4 GPUs of 85.9 GB."""
    enough = next((size for size in room.sizes(MANY_GPUS) if room.fits(size)), None)
    alike = f"GPUs of {gigabytes(room.gpus.memory or 0)}"
    return f"{enough} {alike}" if enough else f"larger GPUs than {alike[8:]}"


# ---- copies --------------------------------------------------------------------------------


def _copies(room: Room, tensor: int, table: str, conversations: int | None) -> tuple[int, str]:
    given, most = room.section.data_parallel, room.gpus.number // tensor
    if given:
        against = stands_against(room.need, tensor, given)
        if against:
            raise ConfigError(
                f"the experts cannot be divided over {given} copies: {against}",
                where=f"models.toml [{table}].data_parallel = {given}",
                fix="leave it away",
            )
        return given, f"{given} copies as models.toml says" if given > 1 else ""
    possible = [n for n in range(1, most + 1) if not stands_against(room.need, tensor, n)]
    copies = possible[-1]
    if conversations is None or copies == 1:
        return copies, ""
    # A batch that isn't full takes nearly as long as a full one, for both read all the weights.
    filled = -(-conversations // room.at_once(tensor))
    if filled < copies:
        fewer = max(n for n in possible if n <= max(1, filled))
        return fewer, f"{conversations:,} conversations fill no more copies"
    return copies, ""
