"""How a model is served, when a plan was pinned to it, and what its last plan measured."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("models", sa.Column("serving", JSON, nullable=True))
    op.add_column("models", sa.Column("plan", JSON, nullable=True))


def downgrade() -> None:
    op.drop_column("models", "plan")
    op.drop_column("models", "serving")
