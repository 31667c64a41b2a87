"""Blobs: whose they are, and which jobs need them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "blobs",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("refs", sa.BigInteger(), nullable=False),
        sa.Column("unused_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("sha256", "owner"),
        sqlite_with_rowid=False,
    )
    only = sa.text("unused_ms IS NOT NULL")
    op.create_index("blobs_unused", "blobs", ["unused_ms"], sqlite_where=only, postgresql_where=only)
    op.create_table(
        "blob_refs",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("idx", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(128), nullable=False),
        sa.PrimaryKeyConstraint("id", "idx", "sha256"),
        sqlite_with_rowid=False,
    )
