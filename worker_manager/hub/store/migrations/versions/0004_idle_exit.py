"""A worker says for how long it is idle before it may go, for when no manager takes care of it."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("idle_exit_ms", sa.BigInteger(), nullable=True))
