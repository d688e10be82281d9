"""What the service's role may do in the ledger's schema: read, insert, adopt and delete lines parts; nothing else.

Rights are not part of every dump (`pg_dump --no-acl`, another cluster without the role), so they are looked at whenever
the database is opened: too few would stop the writer in the middle of a batch, too many would let it rewrite the books.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Final

import asyncpg

from homefed.api.errors import Refused

SCHEMA: Final = "ledger"
_APPEND: Final = ("SELECT", "INSERT")
_READ: Final = ("SELECT",)
_RIGHTS: Final[Mapping[str, tuple[str, ...]]] = {
    "identity": _APPEND,
    "checkpoints": _APPEND,
    "seals": _APPEND,
    "leaves": _APPEND,
    "accounts": _APPEND,
    "entries": _APPEND,
    "chains": _APPEND,
    "claims": _APPEND,
    "resolutions": _APPEND,
    "floors": _APPEND,
    "nodes": _APPEND,
    "cosignatures": _APPEND,
    "parts": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "balances": _READ,
    "chain_sums": _READ,
}
_KNOWN: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE")
_FOUND: Final = (
    "SELECT relname, privilege, has_table_privilege(pg_class.oid, privilege),"
    " pg_has_role(current_user, relowner, 'USAGE')"
    " FROM pg_class CROSS JOIN unnest($2::text[]) AS privilege"
    " WHERE relnamespace = to_regnamespace($1) AND relname = ANY($3::text[])"
)
_log = logging.getLogger(__name__)


async def grant(owner: asyncpg.Connection, service: str) -> None:
    """By the owner of the tables, to another role; nothing to do where they are one."""
    role = await owner.fetchval("SELECT quote_ident($1)", service)
    if await owner.fetchval("SELECT current_user") == service:
        return
    await owner.execute(f"GRANT USAGE ON SCHEMA {SCHEMA} TO {role}")
    await owner.execute(f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {SCHEMA} TO {role}")
    for table, rights in _RIGHTS.items():
        await owner.execute(f"GRANT {', '.join(rights)} ON {SCHEMA}.{table} TO {role}")


async def missing(service: asyncpg.Connection) -> list[str]:
    """What the connection's role lacks, as GRANT would name it."""
    if not await service.fetchval("SELECT has_schema_privilege($1, 'USAGE')", SCHEMA):
        return [f"USAGE ON SCHEMA {SCHEMA}"]
    rows = await service.fetch(_FOUND, SCHEMA, _KNOWN, [*_RIGHTS])
    return _named([(table, right) for table, right, has, _ in rows if right in _RIGHTS[table] and not has])


async def check(service: asyncpg.Connection) -> None:
    """Errors: Refused (RightsMissing, RightsTooWide) with the remedy. An owner can do all: that is only said."""
    role = await service.fetchval("SELECT quote_ident(current_user)")
    if lacking := await missing(service):
        raise Refused(
            f"{role} lacks {', '.join(lacking[:3])}{' and more' * (len(lacking) > 3)}, as after a restore without"
            " access rights: start once with --store-owner naming the owner of the tables, which grants them",
            reason="RightsMissing",
        )
    rows = await service.fetch(_FOUND, SCHEMA, _KNOWN, [*_RIGHTS])
    if any(owns for *_, owns in rows):
        _log.warning(
            "%s owns the ledger's tables: give the service a role of its own, without the right to change them", role
        )
        return
    wide = _named([(table, right) for table, right, has, _ in rows if right not in _RIGHTS[table] and has])
    if wide:
        raise Refused(
            f"{role} may change what is kept for ever: REVOKE {wide[0]} FROM {role} or from whom it has that;"
            f" {len(wide)} such rights were found",
            reason="RightsTooWide",
        )


def _named(rights: Iterable[tuple[str, str]]) -> list[str]:
    return sorted(f"{right} ON {SCHEMA}.{table}" for table, right in rights)
