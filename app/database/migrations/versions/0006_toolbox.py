"""Room for the training toolbox: leased devices, reproductions, classifiers, attributes of boxes, TTA."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "device_leases",
        sa.Column("device", sa.String(80), nullable=False),
        sa.Column("host", sa.String(200), nullable=False),
        sa.Column("job_id", sa.String(36), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("device", name="pk_device_leases"),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_device_leases_job_id_jobs", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_device_leases_job_id", "device_leases", ["job_id"])
    op.add_column("jobs", sa.Column("devices", JSON, nullable=True))
    op.add_column("workers", sa.Column("cpu_jobs", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("workers", sa.Column("lease_s", sa.Float(), nullable=False, server_default="45"))
    op.add_column("jobs", sa.Column("reproduces", sa.String(36), nullable=True))
    op.add_column("models", sa.Column("task", sa.String(16), nullable=False, server_default="detect"))
    op.add_column("datasets", sa.Column("attributes", JSON, nullable=True))
    op.add_column("evaluations", sa.Column("tta", JSON, nullable=True))


def downgrade() -> None:
    op.drop_column("evaluations", "tta")
    op.drop_column("datasets", "attributes")
    op.drop_column("models", "task")
    op.drop_column("jobs", "reproduces")
    op.drop_column("workers", "lease_s")
    op.drop_column("workers", "cpu_jobs")
    op.drop_column("jobs", "devices")
    op.drop_table("device_leases")
