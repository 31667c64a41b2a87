"""`python -m worker_manager` is `worker-manager`."""

from worker_manager.cli.main import main

if __name__ == "__main__":
    main()
