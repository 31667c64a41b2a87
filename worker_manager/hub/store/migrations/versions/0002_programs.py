"""Jobs know their program, by which run times are guessed."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("program", sa.BigInteger(), nullable=True))
