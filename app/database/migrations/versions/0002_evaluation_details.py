"""Evaluations keep their curves and their confusion matrix."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("evaluations", sa.Column("curves", JSON, nullable=True))
    op.add_column("evaluations", sa.Column("confusion_matrix", JSON, nullable=True))


def downgrade() -> None:
    op.drop_column("evaluations", "confusion_matrix")
    op.drop_column("evaluations", "curves")
