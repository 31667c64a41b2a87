"""Workers of a launch may join by an identity that their platform vouches for, where they can hold no token."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("intents", sa.Column("joins_by", sa.String(16), nullable=True))
    op.add_column("intents", sa.Column("identity", sa.String(200), nullable=True))
    for name in ("identity", "joins_by"):
        only = sa.text(f"{name} IS NOT NULL")
        index = "intents_identity" if name == "identity" else "intents_joins"
        op.create_index(index, "intents", [name], sqlite_where=only, postgresql_where=only)
