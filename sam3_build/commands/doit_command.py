"""Takes the words typed after `doit`; returns the command and the names. Refuses what would give a traceback in doit.

doit answers some wrong names with a traceback and ignores others, and does not pass them to a dodo file.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from doit.cmd_base import Command, DodoTaskLoader, DoitCmdBase
from doit.cmd_run import Run
from doit.cmdparse import CmdOption, CmdParse, CmdParseError
from doit.doit_cmd import DoitMain
from doit.exceptions import InvalidCommand

from sam3_build.commands import extras
from sam3_build.errors import BuildError, nearest

COMMANDS = {command.get_name(): command for command in DoitMain.DOIT_CMDS}
# Commands whose names may be patterns.
TAKE_PATTERNS = ("run", "clean")


@dataclass(frozen=True)
class Typed:
    """A command of doit (`run` where none is named), the words after its options, and whether it was named."""

    command: str
    words: tuple[str, ...]
    is_named: bool


NOTHING = Typed("run", (), is_named=False)


class DumpDB(Command):  # type: ignore[misc]  # doit ships no types
    """`doit dumpdb`, which loads no dodo file and ends in a traceback without a database. pyproject.toml names it."""

    doc_purpose = "not here: what was built is recorded in the store"
    doc_usage = ""
    doc_description = None

    def execute(self, opt_values: dict[str, object], pos_args: list[str]) -> None:
        """Refuse, and say what shows the same."""
        raise InvalidCommand(
            "doit's database is kept in memory, and dumpdb finds none; `sam3-build plan` shows what is fresh, and "
            "`sam3-build explain ACTION` what it was built from"
        )


def require_build() -> None:
    """Return where all that builds is installed; else one line, and exit code 1."""
    try:
        extras.require_build()
    except BuildError as error:
        raise SystemExit(str(error)) from None


def read(arguments: Sequence[str]) -> Typed:
    """Return what the words after `doit` ask for, read as doit reads them.

    InvalidCommand when actions would run in processes that doit forks, and when options follow names.
    """
    _, rest = _parse(DodoTaskLoader.cmd_options, arguments)  # may stand before the command
    rest = [word for word in rest if word.startswith("-") or "=" not in word]
    is_named = bool(rest) and rest[0] in COMMANDS
    command = COMMANDS[rest[0]] if is_named else Run
    loader = () if not issubclass(command, DoitCmdBase) else (*DoitCmdBase.base_options, *DodoTaskLoader.cmd_options)
    options, words = _parse((*loader, *command.cmd_options), rest[is_named:])
    if options.get("par_type", "thread") != "thread":
        raise InvalidCommand(
            f"-P {options['par_type']} does not work here: every action has a process of its own already, and doit's "
            "tasks cannot be sent to another; leave -P out, as in `doit -n 2 build`, and threads wait for the processes"
        )
    for word in words:
        if word.startswith("-"):
            raise InvalidCommand(f"{word} stands after a name: options come before names, as in `doit -n 2 build`")
    return Typed(command.get_name(), tuple(words), is_named)


def _parse(options: Sequence[dict[str, object]], words: Sequence[str]) -> tuple[dict[str, object], list[str]]:
    """Return options and what follows; nothing of either where doit itself will refuse the options."""
    try:
        found, rest = CmdParse([CmdOption(option) for option in options]).parse_only(list(words))
    except CmdParseError:
        return {}, list(words)
    return found, rest


def refuse_unknown(typed: Typed, tasks: Collection[str]) -> None:
    """Hold the names that were typed against those of all tasks. InvalidCommand for the first that means nothing."""
    patterns = typed.command in TAKE_PATTERNS
    for word in typed.words:
        if word in tasks or (patterns and any(fnmatchcase(task, word) for task in tasks)):
            continue
        if "*" in word:
            why = "no task has such a name" if patterns else f"`doit {typed.command}` takes no patterns"
            raise InvalidCommand(f"{word}: {why}: `doit list --all` shows them")
        if word in COMMANDS and not typed.is_named:
            raise InvalidCommand(
                f"{word!r} is a command of doit and no task; a command comes first, before options: `doit {word}`"
            )
        what, known = "task", list(tasks)
        if not typed.is_named and word == typed.words[0]:
            what, known = "task or command", [*known, *COMMANDS]
        near = nearest(word, known)
        hint = f"; did you mean {near!r}?" if near else ": `doit list --all` shows them"
        raise InvalidCommand(f"no {what} is named {word!r}{hint}")
