"""`python -m worker_manager.hub STATE_DIR`: the hub as `discovery.start` runs it, with the settings left in that
directory."""

import sys
from dataclasses import replace
from pathlib import Path

from worker_manager.errors import StoreError, WorkerManagerError
from worker_manager.hub.discovery import SETTINGS
from worker_manager.hub.settings import HubSettings


def main() -> int:
    try:
        if len(sys.argv) != 2:
            raise StoreError("usage: python -m worker_manager.hub STATE_DIR")
        from worker_manager.hub.server import serve

        serve(_settings(Path(sys.argv[1])))
    except WorkerManagerError as error:
        print(f"worker-manager hub: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _settings(state_dir: Path) -> HubSettings:
    path = state_dir / SETTINGS
    try:
        text = path.read_text()
    except FileNotFoundError:
        return HubSettings(state_dir)
    try:
        return replace(HubSettings.from_json(text), state_dir=state_dir)
    except (ValueError, TypeError, AttributeError):
        raise StoreError(f"{path} cannot be read as the settings of a hub: delete it, or write it anew") from None


if __name__ == "__main__":
    sys.exit(main())
