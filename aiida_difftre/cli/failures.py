"""How commands tell what went wrong: a line, and no traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from aiida_difftre import sqlite
from aiida_difftre.engine.errors import one_line


@contextmanager
def complaints() -> Iterator[None]:
    """Show a ValueError of ours, or a file that cannot be read or written, as a message, not as a traceback."""
    try:
        yield
    except ValueError as error:
        raise click.ClickException(one_line(str(error))) from None
    except OSError as error:
        if error.filename is None:
            raise
        raise click.ClickException(one_line(f"{error.filename}: {error.strerror}; choose another place")) from None


class Commands(click.Group):
    """Commands that wait for a busy database, and say so when it stays busy."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command.

        Raises:
            click.ClickException: when the database stays locked.
        """
        try:
            return super().invoke(ctx)
        except Exception as error:
            if not sqlite.is_locked(error):
                raise
            raise click.ClickException(
                f"the database of the profile is locked for more than {sqlite.patience():g} s by {_lock_holders()}; "
                "end that, or try again. SQLite takes one writer: hand several runs to one daemon (`aiida-difftre "
                "submit`), or use a profile with PostgreSQL"
            ) from error


def _lock_holders() -> str:
    from aiida.manage import get_manager

    profile = get_manager().get_profile()
    folder = profile.storage_config.get("filepath") if profile is not None else None
    return sqlite.holders_text(Path(folder) / sqlite.DATABASE) if folder else "another process"
