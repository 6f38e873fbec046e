"""Options of commands that are made from the typed settings, when they are first needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from bench.config.fields import Field

LAST = ("set", "tuned", "plugins")  # shown after the conditions


class SettingsCommand(click.Command):
    """A command with an option for each field of some schemas, before its own options.

    Args:
        schemas: Names of classes in `bench.config.schema`.
        hide: Names of fields that the command does not offer.
    """

    def __init__(self, *args: Any, schemas: tuple[str, ...], hide: tuple[str, ...] = (), **attributes: Any):
        super().__init__(*args, **attributes)
        self.schemas, self.hide = schemas, hide
        self._derived: list[click.Parameter] | None = None

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The arguments, the options from the schemas, then the other options."""
        if self._derived is None:
            self._derived = self._options()
        own = super().get_params(ctx)
        arguments = [each for each in own if isinstance(each, click.Argument)]
        return [*arguments, *self._derived, *(each for each in own if each not in arguments)]

    def _options(self) -> list[click.Parameter]:
        from bench.config import schema
        from bench.config.fields import fields

        found: list[click.Parameter] = []
        for name in self.schemas:
            every = [field for field in fields(getattr(schema, name)) if field.name not in self.hide]
            ranks = {field.name: (field.name in schema.CONDITIONS) + 2 * (field.name in LAST) for field in every}
            found += [_option(field) for field in sorted(every, key=lambda field: ranks[field.name])]
        return found


def _option(field: Field) -> click.Option:
    """An option that passes on text; the schema converts it."""
    names = [field.flag, *filter(None, [field.extra.get("short")]), field.name]
    if field.default is False:
        return click.Option(names, is_flag=True, help=field.help)
    multiple = bool(field.extra.get("multiple"))
    return click.Option(names, metavar=_metavar(field), multiple=multiple, help=field.help + _default(field))


def _metavar(field: Field) -> str:
    from bench.config.fields import choices

    return str(field.extra.get("metavar") or "|".join(choices(field)))


def _default(field: Field) -> str:
    from bench.config.labels import spell_value

    shown = field.extra.get("default")
    if shown is None and field.default not in (None, (), {}):
        shown = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else spell_value(field.default)
    return f"  [default: {shown}]" if shown else ""
