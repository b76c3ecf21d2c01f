"""The profile, and the node or run that an argument of a command names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aiida_difftre import sqlite
from aiida_difftre.engine.errors import one_line, shown

if TYPE_CHECKING:
    from aiida.orm import Node

OWN_PROFILE = "difftre"
"""The profile that ``setup`` and ``demo`` make: the user's own ones are left alone."""

LONGEST_PK = 18
"""Digits that an integer of 64 bits always has room for."""


def load(profile: str | None) -> str:
    """Load a profile, and return its name: the given one, else our own where it exists, else the default one.

    Raises:
        click.ClickException: where there is none.
    """
    from aiida.common.exceptions import ConfigurationError
    from aiida.manage import get_config
    from aiida.manage.configuration import load_profile

    sqlite.be_patient(sqlite.COMMANDS_S)
    check_configuration()
    try:
        name = profile or (OWN_PROFILE if OWN_PROFILE in get_config().profile_names else None)
        return load_profile(name).name
    except ConfigurationError as error:
        raise click.ClickException(one_line(f"{error}; make a profile with `aiida-difftre setup`")) from None


def check_configuration() -> None:
    """Refuse a configuration of AiiDA that is damaged, as a full disk leaves it.

    Raises:
        click.ClickException: naming the file, and the remedy.
    """
    from aiida.common.exceptions import ConfigurationError, MissingConfigurationError
    from aiida.manage import get_config
    from aiida.manage.configuration.settings import DEFAULT_CONFIG_FILE_NAME, AiiDAConfigDir

    try:
        get_config()
    except MissingConfigurationError:
        return
    except (ConfigurationError, ValueError, KeyError, TypeError, AttributeError) as error:
        path = AiiDAConfigDir.get() / DEFAULT_CONFIG_FILE_NAME
        raise click.ClickException(
            f"the configuration of AiiDA, {path}, is damaged ({one_line(str(error))}); put back one of the copies "
            f"beside it ({path.name}.DATE), or move it away and make a profile with `aiida-difftre setup`"
        ) from None


def node_called(identifier: str) -> Node:
    """The node that a PK, a UUID or a label names.

    Raises:
        click.ClickException: where nothing, or more than one node, is called so.
    """
    from aiida.common.exceptions import MultipleObjectsError, NotExistent
    from aiida.orm import load_node

    if identifier.isdecimal() and len(identifier) > LONGEST_PK:
        raise click.ClickException(f"{shown(identifier)} is no node: no database counts so far")
    try:
        return load_node(identifier)
    except (NotExistent, MultipleObjectsError, ValueError) as error:
        raise click.ClickException(one_line(f"{shown(identifier)} is no node: {error}")) from None


def run_called(identifier: str) -> int:
    """The PK of a run, by PK, UUID or label; a label is that of a run where other nodes have it too.

    Raises:
        click.ClickException: where nothing, or more than one run, is called so.
    """
    from aiida_difftre.cli.snapshots import runs_called

    called = [] if identifier.isdecimal() else runs_called(identifier)
    if len(called) > 1:
        pks = ", ".join(map(str, called))
        raise click.ClickException(f"{identifier!r} is the label of {len(called)} runs: {pks}; give the PK of one")
    return called[0] if called else int(node_called(identifier).pk or 0)
