"""A caller's idempotency key means one request, on whatever path; method and path are in the fingerprint."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

NAME = "uq_idempotency_keys_owner"
NOT_THE_NEWEST = """
    delete from idempotency_keys where exists (
        select 1 from idempotency_keys newer
        where newer.owner = idempotency_keys.owner and newer.key = idempotency_keys.key
        and newer.id > idempotency_keys.id
    )
"""


def upgrade() -> None:
    op.execute(NOT_THE_NEWEST)
    with op.batch_alter_table("idempotency_keys") as table:
        table.drop_constraint(NAME, type_="unique")
        table.drop_column("route")
        table.create_unique_constraint(NAME, ["owner", "key"])


def downgrade() -> None:
    with op.batch_alter_table("idempotency_keys") as table:
        table.drop_constraint(NAME, type_="unique")
        table.add_column(sa.Column("route", sa.String(length=120), nullable=False, server_default=""))
        table.create_unique_constraint(NAME, ["owner", "route", "key"])
