"""Jobs say where they run and count every attempt; a dataset itself says why it was rejected."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

CANCELLED = '{"code": "cancelled", "message": "the import was cancelled"}'
WHY_REJECTED = """
    update datasets set failure = (
        select coalesce(nullif(jobs.failure, cast('null' as {json})), cast(:cancelled as {json})) from jobs
        where jobs.dataset_id = datasets.id and jobs.kind = 'dataset-import'
        order by jobs.id desc limit 1
    )
    where status = 'rejected'
"""
"""An import that was cancelled has no failure of its own."""


def upgrade() -> None:
    op.add_column("jobs", sa.Column("device", sa.String(64), nullable=True))
    op.add_column("jobs", sa.Column("charged_attempts", sa.Integer(), nullable=False, server_default="0"))
    op.execute("update jobs set charged_attempts = attempt")
    op.add_column("datasets", sa.Column("failure", JSON, nullable=True))
    connection = op.get_bind()
    json = "jsonb" if connection.dialect.name == "postgresql" else "text"
    connection.execute(sa.text(WHY_REJECTED.format(json=json)), {"cancelled": CANCELLED})


def downgrade() -> None:
    op.drop_column("datasets", "failure")
    op.drop_column("jobs", "charged_attempts")
    op.drop_column("jobs", "device")
