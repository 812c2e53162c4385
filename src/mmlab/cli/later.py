"""Commands on demand: a command is imported, and its flags are read, when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from mmlab.cli.flags import grouped
from mmlab.cli.values import read_plainly

Function = Callable[..., None]


def later(home: str) -> Callable[[], Function]:
    """A stand-in to be registered for `module.function` of mmlab.cli: it finds the function when it is called."""
    module, _, name = home.partition(".")

    def find() -> Function:
        function: Function = getattr(import_module(f"mmlab.cli.{module}"), name)
        return function

    return find


class Commands(MutableMapping[str, Any]):
    """Commands by name, in order; one that stands for another is built when it is first looked up."""

    def __init__(self, named: Mapping[str, Any]) -> None:
        self._waiting = dict(named)
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            self._built[name] = built(self._waiting[name])
        return self._built[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._waiting[name] = self._built[name] = command

    def __delitem__(self, name: str) -> None:
        del self._waiting[name]
        self._built.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._waiting

    def __iter__(self) -> Iterator[str]:
        return iter(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)


def built(command: Any) -> Any:
    """The command that `command` stands for; a group is itself, since its own commands wait in it."""
    if isinstance(command, TyperGroup):
        return command
    one = typer.Typer(add_completion=False, rich_markup_mode=command.rich_markup_mode, pretty_exceptions_enable=False)
    function = grouped(command.callback())
    one.command(command.name, cls=type(command))(function)
    made = typer.main.get_command(one)
    read_plainly(made, function)
    return made


class OnDemand(TyperGroup):
    """A group of commands that wait until they are asked for; give it to typer as `cls`."""

    def __init__(self, *, commands: Mapping[str, Any], **more: Any) -> None:
        super().__init__(**more)
        self.commands = Commands(commands)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """The names in order; none of the commands is built for it."""
        return list(self.commands)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words after the group's own flags."""
        read_plainly(self)
        return super().parse_args(ctx, args)
