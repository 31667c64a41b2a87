"""Run by alembic, on the connection that `schema.prepare` hands in."""

from alembic import context

from worker_manager.hub.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
