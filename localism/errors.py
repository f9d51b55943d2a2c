"""Errors that a user can fix: what is wrong, where, and what to do.

Only these are caught by the command line and shown as three lines without a traceback.
Anything else that is raised is a bug of ours and keeps its traceback.
"""


class LocalismError(Exception):
    """A problem with a fix; subclasses set the exit code of the command."""

    exit_code = 5

    def __init__(self, problem: str, *, where: str, fix: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        return f"error: {self.problem}\nwhere: {self.where}\nfix:   {self.fix}"


class UsageError(LocalismError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class ConfigError(LocalismError):
    """models.toml, a prompt pack, a model folder or a data file is wrong."""

    exit_code = 3


class MachineError(LocalismError):
    """The machine is too small or lacks something the run needs."""

    exit_code = 4


class StageError(LocalismError):
    """A stage could not finish; what it finished before is kept."""

    exit_code = 5


class OutOfTime(Exception):
    """The hours that were allowed are over; what is finished is kept, and nothing is wrong."""

    exit_code = 6
