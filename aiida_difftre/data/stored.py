"""A node that holds the same as one that was just made: the same file used again is the same node in the graph."""

from __future__ import annotations

from typing import TypeVar

from aiida import orm
from aiida.common.hashing import make_hash
from aiida.orm.implementation.utils import clean_value

DataT = TypeVar("DataT", bound=orm.Data)

HASH = "_aiida_hash"
"""The extra in which AiiDA keeps the hash of kind, attributes and files of a node."""


def the_same(node: DataT) -> DataT:
    """The oldest stored node of the same kind with the same attributes and files; else the one that was given.

    Args:
        node: An unstored node. Its label and description do not count, but among several the one with its label is
            preferred.

    Returns:
        A node to use in its place, with the label that it was stored with.
    """
    for name, value in node.base.attributes.all.items():
        node.base.attributes.set(name, clean_value(value))  # as they are when they are stored, and hashed
    query = orm.QueryBuilder().append(
        type(node),
        filters={f"extras.{HASH}": make_hash(node.base.caching.get_objects_to_hash())},
        subclassing=False,
        tag="same",
    )
    found = query.order_by({"same": {"id": "asc"}}).all(flat=True)
    return next((one for one in found if one.label == node.label), found[0] if found else node)
