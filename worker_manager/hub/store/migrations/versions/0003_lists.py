"""Jobs can be listed by any state, and workers that are here without those that are gone, however many there are."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("jobs_failed", table_name="jobs")
    op.create_index("jobs_state", "jobs", ["state", "id"], **_only("idx = -1"))
    op.create_index("workers_here", "workers", ["pool", "ready_ms"], **_only("gone_ms IS NULL"))


def _only(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}
